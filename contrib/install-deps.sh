#!/bin/sh
# Installs what is missing to build, test, show or measure memprobe.
#
#	contrib/install-deps.sh [--build] [--tests] [--demo] [--bench] [--docs]	(none: --build)
#
# Debian and Ubuntu: by apt-get, as root or through sudo, without starting the services that come
# along. Elsewhere it prints the packages' names there and exits with 1, if something is missing.
# What is there already is never touched; with nothing missing it takes no rights and no network.
set -eu

# group, how to see that it is there, and its package (two: NAME,NAME) for apt, dnf, zypper, pacman
# (-: has none).
#	cmd:NAME  a program;  h:FILE  a header;  m32  gcc and g++ link for 32 bits;  file:PATH
# Of a group that ends with `?` what cannot be installed is done without: its tests are skipped.
table() {
	cat <<'EOF'
build cmd:gcc gcc gcc gcc gcc
build cmd:make make make make make
build cmd:ar binutils binutils binutils binutils
build h:elfutils/libdwfl.h libdw-dev elfutils-devel libdw-devel libelf
build h:libelf.h libelf-dev elfutils-libelf-devel libelf-devel libelf
build h:jansson.h libjansson-dev jansson-devel libjansson-devel jansson
build h:libiberty/demangle.h libiberty-dev binutils-devel binutils-devel binutils
build h:zstd.h libzstd-dev libzstd-devel libzstd-devel zstd
build h:pcre2.h libpcre2-dev pcre2-devel pcre2-devel pcre2
build h:zlib.h zlib1g-dev zlib-devel zlib-devel zlib
build h:microhttpd.h libmicrohttpd-dev libmicrohttpd-devel libmicrohttpd-devel libmicrohttpd
build h:libunwind-ptrace.h libunwind-dev libunwind-devel libunwind-devel libunwind
tests cmd:clang clang clang clang clang
tests cmd:clang-format clang-format clang-tools-extra clang-tools clang
tests cmd:g++ g++ gcc-c++ gcc-c++ gcc
tests h:cmocka.h libcmocka-dev libcmocka-devel libcmocka-devel cmocka
tests cmd:bats bats bats bats bats
tests cmd:jq jq jq jq jq
tests m32 g++-multilib glibc-devel.i686,libstdc++-devel.i686 gcc-c++-32bit lib32-gcc-libs
tests cmd:musl-gcc musl-tools musl-gcc - musl
tests h:jemalloc/jemalloc.h libjemalloc-dev jemalloc-devel jemalloc-devel jemalloc
tests h:gperftools/tcmalloc.h libgoogle-perftools-dev gperftools-devel gperftools-devel gperftools
tests? h:mimalloc.h|mimalloc-2.0/mimalloc.h|mimalloc-2.1/mimalloc.h libmimalloc-dev mimalloc-devel mimalloc-devel mimalloc
tests cmd:python3 python3 python3 python3 python
tests cmd:gdb gdb gdb gdb gdb
tests cmd:strace strace strace strace strace
tests cmd:setpriv util-linux util-linux util-linux util-linux
tests cmd:ps procps procps-ng procps procps-ng
tests cmd:groff groff-base groff groff groff
tests cmd:col bsdextrautils util-linux util-linux util-linux
tests cmd:debootstrap debootstrap - - -
tests cmd:zstd zstd zstd zstd zstd
tests cmd:redis-server redis-server redis redis redis
tests cmd:redis-benchmark redis-tools redis redis redis
tests cmd:mariadbd mariadb-server mariadb-server mariadb mariadb
tests cmd:mariadb mariadb-client mariadb mariadb-client mariadb-clients
tests cmd:postgres|file:/usr/lib/postgresql postgresql postgresql-server postgresql-server postgresql
tests cmd:nginx nginx nginx nginx nginx
tests cmd:memcached memcached memcached memcached memcached
tests file:/usr/lib/x86_64-linux-gnu/libapr-1.so.0|file:/usr/lib64/libapr-1.so.0|file:/usr/lib/libapr-1.so.0 libapr1 apr libapr1-0 apr
tests file:/usr/lib/x86_64-linux-gnu/libtalloc.so.2|file:/usr/lib64/libtalloc.so.2|file:/usr/lib/libtalloc.so.2 libtalloc2 libtalloc libtalloc2 talloc
tests file:/usr/lib/x86_64-linux-gnu/libglib-2.0.so.0|file:/usr/lib64/libglib-2.0.so.0|file:/usr/lib/libglib-2.0.so.0 libglib2.0-0 glib2 glib2 glib2
tests cmd:curl curl curl curl curl
tests? cmd:promtool prometheus - - prometheus
tests? cmd:chromium|chromium-browser|google-chrome chromium chromium chromium chromium
tests? cmd:xmllint libxml2-utils libxml2 libxml2-tools libxml2
tests? cmd:dot graphviz graphviz graphviz graphviz
tests? h:postgresql/15/server/postgres.h|pgsql/server/postgres.h|postgresql/server/postgres.h postgresql-server-dev-15 postgresql-server-devel postgresql-server-devel postgresql-libs
tests? cmd:apache2 apache2-bin - - -
tests? file:/usr/lib/nginx/modules/ngx_http_lua_module.so libnginx-mod-http-lua - - -
demo cmd:g++ g++ gcc-c++ gcc-c++ gcc
bench cmd:gdb gdb gdb gdb gdb
bench cmd:heaptrack heaptrack heaptrack heaptrack heaptrack
bench cmd:g++ g++ gcc-c++ gcc-c++ gcc
bench h:sanitizer/lsan_interface.h gcc liblsan gcc gcc
bench cmd:python3 python3 python3 python3 python
bench cmd:strace strace strace strace strace
bench cmd:eu-stack elfutils elfutils elfutils elfutils
bench cmd:pmap procps procps-ng procps procps-ng
docs cmd:python3 python3 python3 python3 python
docs cmd:redis-server redis-server redis redis redis
docs cmd:redis-benchmark redis-tools redis redis redis
docs cmd:rsvg-convert librsvg2-bin librsvg2-tools rsvg-convert librsvg
EOF
}

# Daemons lie in sbin, which is not on everybody's path.
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
export PATH

compiler=gcc
command -v gcc >/dev/null 2>&1 || compiler=cc

is_there() { # PROBE
	case $1 in
	*'|'*) is_there "${1%%|*}" || is_there "$(with_kind "$1")" ;;
	cmd:*) command -v "${1#cmd:}" >/dev/null 2>&1 ;;
	file:*) [ -e "${1#file:}" ] ;;
	h:*)
		# The compiler knows where headers are; most of the time one look is enough.
		[ -e "/usr/include/${1#h:}" ] ||
			echo "#include <${1#h:}>" | $compiler -E -x c - >/dev/null 2>&1
		;;
	m32)
		# libgcc and libc, then the headers and the library of C++: each has a package of its own.
		echo 'int main(void) { return 0; }' |
			$compiler -m32 -x c -o /dev/null - >/dev/null 2>&1 &&
			echo '#include <string>
				int main(int argc, char **argv) { return std::string(argv[0]).size() > 1000; }' |
			g++ -m32 -x c++ -o /dev/null - >/dev/null 2>&1
		;;
	esac
}

# `h:a|b|c` without its first alternative, with the kind put in front again where it has none.
with_kind() {
	rest=${1#*|}
	case $rest in
	cmd:* | file:* | h:*) echo "$rest" ;;
	*) echo "${1%%:*}:$rest" ;;
	esac
}

groups=
for argument; do
	case $argument in
	--build | --tests | --demo | --bench | --docs) groups="$groups ${argument#--}" ;;
	*)
		echo "usage: install-deps.sh [--build] [--tests] [--demo] [--bench] [--docs]" >&2
		exit 2
		;;
	esac
done
groups=${groups:- build}

missing() { # COLUMN [?]: the packages, one a line; with ? those that can be done without
	table | while read -r group probe apt dnf zypper pacman; do
		case $group in *'?') kind='?' ;; *) kind= ;; esac
		[ "$kind" = "${2:-}" ] || continue
		case "$groups " in *" ${group%'?'} "*) ;; *) continue ;; esac
		is_there "$probe" && continue
		case $1 in
		apt) echo "$apt" ;;
		dnf) echo "$dnf" ;;
		zypper) echo "$zypper" ;;
		pacman) echo "$pacman" ;;
		esac
	done | tr , '\n' | grep -v '^-$' | sort -u
}

tool=
for candidate in apt-get dnf zypper pacman; do
	command -v $candidate >/dev/null 2>&1 && tool=$candidate && break
done

if [ "$tool" != apt-get ]; then
	packages=$(missing "${tool:-apt}" | tr '\n' ' ')
	[ -n "$packages" ] || exit 0
	case $tool in
	dnf) echo "missing; as root: dnf install $packages" >&2 ;;
	zypper) echo "missing; as root: zypper install $packages" >&2 ;;
	pacman) echo "missing; as root: pacman -S --needed $packages" >&2 ;;
	*) echo "missing (by their names on Debian): $packages" >&2 ;;
	esac
	exit 1
fi

packages=$(missing apt | tr '\n' ' ')
optional=$(missing apt '?' | tr '\n' ' ')
[ -n "$packages$optional" ] || exit 0
as_root=
if [ "$(id -u)" -ne 0 ]; then
	if ! command -v sudo >/dev/null 2>&1; then
		[ -n "$packages" ] || exit 0
		echo "missing; as root: apt-get install $packages" >&2
		exit 1
	fi
	as_root=sudo
fi

# invoke-rc.d and deb-systemd-invoke ask policy-rc.d whether a service may start: 101 says no. One
# that is there already is the administrator's word and stays.
policy=/usr/sbin/policy-rc.d
allow_services_again() {
	[ -z "$policy" ] || $as_root rm -f "$policy"
}
if [ -e $policy ]; then
	policy=
else
	trap allow_services_again EXIT
	trap 'exit 130' HUP INT TERM
	printf '#!/bin/sh\nexit 101\n' | $as_root tee $policy >/dev/null
	$as_root chmod 755 $policy
fi

install_packages() {
	# shellcheck disable=SC2086
	$as_root env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 \
		apt-get install -y -q --no-install-recommends $packages </dev/null
}

install_optional() {
	for packages in $optional; do
		echo "installing, if there is one: $packages"
		install_packages >/dev/null 2>&1 || echo "there is none: its tests are skipped"
	done
}

if [ -z "$packages" ]; then
	install_optional
	exit 0
fi
echo "installing: $packages"
# The lists may be old or absent: fetch them only if it does not work without.
if ! install_packages >/dev/null 2>&1; then
	$as_root apt-get update -q
	install_packages
fi
left=$(missing apt | tr '\n' ' ')
if [ -n "$left" ]; then
	echo "still missing after installation: $left" >&2
	exit 1
fi
install_optional
