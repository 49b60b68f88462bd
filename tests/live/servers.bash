# Real servers and loads on them, in $dir: `load servers` after `load lib`, make_public_dir first.
#
#	need PROGRAM			skips where it is not installed
#	background NAME COMMAND...	runs it until teardown; sets pid; its output is $dir/NAME.log
#	background_load COMMAND...	again and again; still_under_load, end_load
#	wait_for SECONDS COMMAND...	wait_until, quietly
#
#	start_redis [ARG...]		sets server, its pid; redis COMMAND... asks it
#	start_mariadbd [ARG...]		sets server; mariadb_sql QUERY asks it
#	start_apache [LINES]		more of the configuration; sets worker, a process; get PATH
#	start_nginx [LINES [LINES]]	more of the configuration, and of its server; sets worker; get PATH

need() {
	PATH=$PATH:/usr/sbin:/sbin
	command -v "$1" >/dev/null || skip "$1 is not installed"
}

# Bounded, ended by teardown.
background() {
	local name=$1
	shift
	"$@" >"$dir/$name.log" 2>&1 </dev/null 3>&- &
	pid=$!
	ends_with $pid
}

# A load that ends by itself before the look is over would test less: it is repeated for ever.
background_load() {
	background load bash -c 'trap "kill \$child; exit" TERM
		while "$@" & child=$!; wait $child; do :; done' load "$@"
	load_pid=$pid
}

still_under_load() {
	! is_gone "$load_pid" || fail "the load has ended" "$(tail -5 "$dir/load.log")"
}

end_load() {
	kill -TERM "$load_pid"
	wait_until 60 is_gone "$load_pid"
}

wait_for() {
	wait_until "$1" quietly "${@:2}" || fail "$(tail -n 20 "$dir"/*.log)"
}

quietly() {
	"$@" >/dev/null 2>&1
}

start_redis() {
	need redis-server
	need redis-benchmark
	background redis redis-server --port 0 --unixsocket "$dir/redis" --save '' --dir "$dir" "$@"
	server=$pid
	wait_for 60 redis ping
}

redis() {
	timeout "$(patience 60)" redis-cli -s "$dir/redis" "$@"
}

load_redis() {
	background_load redis-benchmark -s "$dir/redis" -q -t set,get,lpush -r 1000 -d 200 -c 8 -n 100000
}

start_mariadbd() {
	need mariadbd
	need mariadb-install-db
	(unprivileged mariadb-install-db --no-defaults --datadir="$dir/data" --skip-test-db \
		--auth-root-authentication-method=normal) >"$dir/install.log" 2>&1 ||
		fail "$(tail "$dir/install.log")"
	background mariadbd unprivileged mariadbd --no-defaults --datadir="$dir/data" \
		--socket="$dir/socket" --skip-networking --pid-file="$dir/pid" \
		--innodb-buffer-pool-size=32M "$@"
	server=$pid
	wait_for 60 mariadb_sql 'select 1'
}

mariadb_sql() {
	timeout "$(patience 60)" mariadb --no-defaults -u root -S "$dir/socket" -N -B -e "$1"
}

load_mariadbd() {
	background_load mariadb-slap --no-defaults -u root -S "$dir/socket" --concurrency=3 \
		--auto-generate-sql --number-of-queries=3000
}

start_nginx() {
	need nginx
	need curl
	mkdir "$dir/www"
	echo canary-4711 >"$dir/www/canary"
	cat >"$dir/nginx.conf" <<-EOF
		daemon off;
		worker_processes 1;
		pid $dir/pid;
		error_log $dir/error.log;
		${1:-}
		events { worker_connections 64; }
		http {
			access_log off;
			client_body_temp_path $dir/body;
			proxy_temp_path $dir/proxy;
			fastcgi_temp_path $dir/fastcgi;
			uwsgi_temp_path $dir/uwsgi;
			scgi_temp_path $dir/scgi;
			server { listen unix:$dir/socket; root $dir/www; ${2:-} }
		}
	EOF
	background nginx nginx -c "$dir/nginx.conf" -e "$dir/error.log"
	wait_for 60 get canary
	worker=$(cat "/proc/$pid/task/$pid/children")
	worker=${worker%% *}
}

get() { # PATH
	curl -sf --max-time 60 --unix-socket "$dir/socket" "http://test/$1"
}

load_nginx() {
	background_load curl -sf --unix-socket "$dir/socket" "http://test/canary?[1-20000]" -o /dev/null
}

# Its ports are those of the machine: another one is tried where one is taken.
start_apache() {
	local modules=/usr/lib/apache2/modules tries=0
	need apache2
	need curl
	[ -e "$modules/mod_mpm_event.so" ] || skip "apache2 has no mpm_event here"
	mkdir -p "$dir/www"
	echo canary-4711 >"$dir/www/canary"
	while :; do
		port=$((20000 + RANDOM % 10000))
		cat >"$dir/apache.conf" <<-EOF
			LoadModule mpm_event_module $modules/mod_mpm_event.so
			LoadModule authz_core_module $modules/mod_authz_core.so
			ServerName test
			Listen 127.0.0.1:$port
			PidFile $dir/apache.pid
			ErrorLog $dir/apache_error.log
			DocumentRoot $dir/www
			StartServers 1
			ServerLimit 1
			ThreadLimit 8
			ThreadsPerChild 8
			MaxRequestWorkers 8
			${1:-}
		EOF
		background apache unprivileged apache2 -X -f "$dir/apache.conf"
		get() { # PATH
			curl -sf --max-time 60 "http://127.0.0.1:$port/$1"
		}
		wait_for 60 apache_is_decided
		get canary >/dev/null && break
		[ $((tries++)) -lt 5 ] || fail "$(tail "$dir/apache.log" "$dir/apache_error.log")"
	done
	# shellcheck disable=SC2034
	worker=$pid
}

apache_is_decided() {
	is_gone "$pid" || get canary
}
