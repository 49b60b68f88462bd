#!/bin/sh
# Tries this clone on a fresh machine: makes a bare root of a Debian suite (debootstrap's minbase, and
# make), copies the clone's tracked files in, and runs `make TARGET...` there, as root.
#
#	contrib/fresh-root.sh SUITE [TARGET...] [NAME=VALUE...]	(none: check)
#	contrib/fresh-root.sh --libc SUITE
#
# SUITE: bullseye, bookworm, trixie, sid (Debian 11, 12, 13, the next). --libc prints a folder with
# that suite's C library and its headers, which a program can be built for and run in.
#
# The root has its own mounts and processes, which end with make. Nothing of a run is kept; what it
# began with is, in MEMPROBE_ROOTS (~/.cache/memprobe/roots): remove a folder there to have it made
# anew. The mirror is what this machine's apt has of Debian (another: MEMPROBE_MIRROR=URL).
# The status is make's; 77 if there is no root to be had.
set -eu

usage() {
	sed -n 's/^#	/usage: /p' "$0" >&2
	exit 2
}

no_root() { # REASON
	echo "fresh-root: cannot make a root of $suite: $1" >&2
	exit 77
}

cd "$(dirname "$0")/.."
roots=${MEMPROBE_ROOTS:-${XDG_CACHE_HOME:-$HOME/.cache}/memprobe/roots}
keyring=/usr/share/keyrings/debian-archive-keyring.gpg

# What is to go in any case: a folder, and a process with all that it has started.
work=
child=
clean_up() {
	if [ -n "$child" ]; then
		# unshare blocks gentler signals. What runs in the root ends with it.
		kill -KILL "$child" 2>/dev/null || true
		wait "$child" || true
	fi
	[ -z "$work" ] || rm -rf --one-file-system "$work" "$work.log"
}
trap clean_up EXIT
trap 'exit 130' HUP INT TERM

# ---- this machine's way to the mirror ----

mirror_of_debian() {
	# Security has a label of its own; updates lie beside the suite itself.
	apt-get indextargets --format '$(REPO_URI) $(ORIGIN) $(LABEL)' 'Created-By: Packages' |
		sed -n 's/ Debian Debian$//p' | head -n 1
}

find_mirror() {
	mirror=${MEMPROBE_MIRROR:-}
	[ -z "$mirror" ] || return 0
	command -v apt-get >/dev/null || no_root 'there is no apt to tell a mirror; set MEMPROBE_MIRROR'
	mirror=$(mirror_of_debian)
	# What a repository is, is known once its lists are here.
	if [ -z "$mirror" ] && apt-get update -q >&2; then
		mirror=$(mirror_of_debian)
	fi
	[ -n "$mirror" ] || no_root 'apt knows no mirror of Debian; set MEMPROBE_MIRROR'
}

# How apt fetches here: proxies, checks of dates, retries.
apt_settings() {
	apt-config dump | grep -E '^Acquire::(http|https|ftp|Check-|Retries|ForceIP)' || true
}

# debootstrap knows of proxies by the environment only.
export_proxies() {
	for kind in http https; do
		proxy=
		eval "$(apt-config shell proxy "Acquire::$kind::Proxy")"
		[ -z "$proxy" ] || eval "export ${kind}_proxy=\"\${${kind}_proxy:-\$proxy}\""
	done
}

# ---- the roots that are kept ----

# make_once NAME COMMAND: sets $kept to $roots/NAME, which `COMMAND DIR` fills if it is not there yet.
make_once() {
	kept=$roots/$1
	[ ! -d "$kept" ] || return 0
	find_mirror
	mkdir -p "$roots"
	work=$(mktemp -d "$roots/.$1.XXXXXX")
	chmod 755 "$work"
	echo "fresh-root: making $kept" >&2
	if ! "$2" "$work" >"$work.log" 2>&1; then
		tail -n 20 "$work.log" >&2
		no_root "$2 failed"
	fi
	# Somebody else may have made one meanwhile, which is as good.
	mv -T "$work" "$kept" 2>/dev/null || [ -d "$kept" ] || no_root "cannot write to $roots"
	rm -rf "$work" "$work.log"
	work=
}

bootstrap() { # DIR
	if ! command -v debootstrap; then
		echo 'debootstrap is not installed'
		return 1
	fi
	export_proxies
	# What it mounts goes with it.
	unshare --mount --propagation private debootstrap --variant=minbase --include=make \
		"$suite" "$1" "$mirror" || return
	rm -f "$1"/var/cache/apt/archives/*.deb
	apt_settings >"$1/etc/apt/apt.conf.d/99machine"
	case $mirror in
	https:*) install -D -m 644 /etc/ssl/certs/ca-certificates.crt -t "$1/etc/ssl/certs" ;;
	esac
}

# With lists and a state of its own, beside the machine's.
apt_of_suite() { # DIR ARGUMENT...
	dir=$1
	shift
	apt-get -q -o Dir::State="$dir/state" -o Dir::State::status="$dir/status" \
		-o Dir::Cache="$dir/cache" -o Dir::Etc::sourcelist="$dir/list" \
		-o Dir::Etc::sourceparts=- -o Dir::Etc::preferences=- \
		-o Dir::Etc::preferencesparts=- -o APT::Sandbox::User=root \
		-o Acquire::Languages=none "$@"
}

libc() { # DIR
	apt=$1/apt
	mkdir -p "$apt/state/lists/partial" "$apt/cache/archives/partial"
	: >"$apt/status"
	signed=
	[ ! -e $keyring ] || signed="[signed-by=$keyring]"
	echo "deb $signed $mirror $suite main" >"$apt/list"
	apt_of_suite "$apt" update || return
	(cd "$apt" && apt_of_suite "$apt" download libc6 libc6-dev libcrypt-dev linux-libc-dev) ||
		return
	# Some suites' packages say /lib, some /usr/lib.
	for dir in lib lib64; do
		mkdir -p "$1/usr/$dir" && ln -s usr/$dir "$1/$dir" || return
	done
	for package in "$apt"/*.deb; do
		dpkg-deb --fsys-tarfile "$package" | tar -x --keep-directory-symlink -C "$1" || return
	done
	# The linker takes what a link names for a file of this machine.
	find "$1" -type l -lname '/*' -exec sh -c \
		'for link; do ln -srf "$0$(readlink "$link")" "$link"; done' "$1" {} + || return
	rm -rf "$apt"
}

# ---- a run ----

copy_clone() { # DIR: the files that git tracks, as they are now
	mkdir "$1"
	git -c safe.directory="$PWD" ls-files -z | tar --null --no-recursion --ignore-failed-read \
		--owner=0 --group=0 -T - -c | tar -x -C "$1"
}

# In namespaces of its own, with the machine's / still there.
enter() { # ROOT ARGUMENT-OF-MAKE...
	root=$1
	shift
	mount --bind "$root" "$root"
	cd "$root"
	mount -t proc proc proc
	mount --rbind /sys sys
	mount --rbind /dev dev
	mount -t tmpfs -o mode=1777 shm dev/shm
	mount -t devpts -o newinstance,ptmxmode=666,mode=620,gid=5 devpts dev/pts
	mount --bind dev/pts/ptmx dev/ptmx
	mount -t tmpfs -o mode=755 run run
	cp /etc/resolv.conf /etc/hosts etc
	mkdir before
	# Not chroot: from one the kernel lets nobody unshare a user namespace.
	pivot_root . before
	umount -l /before
	rmdir /before
	cd /memprobe
	for name in $(env | sed -n 's/^\([A-Za-z_]*\)=.*/\1/p'); do
		case $name in
		http_proxy | https_proxy | no_proxy | TERM | CI) ;;
		*) unset "$name" ;;
		esac
	done
	export HOME=/root LANG=C.UTF-8 PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
	# Not by exec: what loses its parent in here is this shell's to reap.
	make "$@"
}

case ${1:-} in
bullseye | bookworm | trixie | sid) suite=$1 ;;
--libc)
	[ $# -eq 2 ] || usage
	suite=$2
	make_once "libc-$suite" libc
	echo "$kept"
	exit
	;;
--enter)
	shift
	enter "$@"
	exit
	;;
[a-z]*)
	suite=$1
	no_root 'only of bullseye, bookworm, trixie and sid'
	;;
*) usage ;;
esac
shift
[ "$(id -u)" -eq 0 ] || no_root 'needs root'
make_once "$suite" bootstrap
work=$(mktemp -d "${TMPDIR:-/var/tmp}/memprobe-$suite.XXXXXX")
cp -a --reflink=auto "$kept" "$work/root"
copy_clone "$work/root/memprobe"
unshare --mount --propagation private --pid --fork --kill-child \
	sh contrib/fresh-root.sh --enter "$work/root" "${@:-check}" </dev/null &
child=$!
status=0
wait "$child" || status=$?
child=
exit $status
