#!/usr/bin/env bats
# Real servers at work: every command on each, after which it still answers, and answers right.
# Each has a directory, a socket and a load of its own, and ends with its test.

load lib
load look
load look_heap
load look_trace
load look_allocs
load kill_series

setup() {
	make_public_dir
	dir=$public_dir
	# Servers start and end threads as they please.
	# shellcheck disable=SC2034
	victim_threads_vary=1
}

need() {
	PATH=$PATH:/usr/sbin:/sbin
	command -v "$1" >/dev/null || skip "$1 is not installed"
}

# In the background, bounded, ended by teardown; sets pid.
background() { # NAME COMMAND...
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
	wait_until 20 is_gone "$load_pid"
}

wait_for() { # SECONDS COMMAND...: quietly
	wait_until "$1" quietly "${@:2}" || fail "$(tail -n 20 "$dir"/*.log)"
}

quietly() {
	"$@" >/dev/null 2>&1
}

@test "redis-server" {
	need redis-server
	need redis-benchmark
	background redis redis-server --port 0 --unixsocket "$dir/redis" --save '' --dir "$dir"
	server=$pid
	wait_for 30 redis-cli -s "$dir/redis" ping
	redis-cli -s "$dir/redis" set canary 4711
	background_load redis-benchmark -s "$dir/redis" -q -t set,get,lpush -r 1000 -d 200 -c 8 -n 100000
	adopt "$server"
	allocator=glibc
	if grep -q jemalloc "/proc/$server/maps"; then
		allocator=other
	fi
	look_at "$server"
	trace_at "$server"
	allocs_at "$server"
	kill_at_server "$server"
	still_under_load
	[ "$(redis-cli -s "$dir/redis" get canary)" = 4711 ]
	victim_check
}

@test "mariadbd" {
	need mariadbd
	need mariadb-install-db
	(unprivileged mariadb-install-db --no-defaults --datadir="$dir/data" --skip-test-db \
		--auth-root-authentication-method=normal) >"$dir/install.log" 2>&1 ||
		fail "$(tail "$dir/install.log")"
	background mariadbd unprivileged mariadbd --no-defaults --datadir="$dir/data" \
		--socket="$dir/socket" --skip-networking --pid-file="$dir/pid" \
		--innodb-buffer-pool-size=32M
	server=$pid
	sql() {
		timeout 30 mariadb --no-defaults -u root -S "$dir/socket" -N -B -e "$1"
	}
	wait_for 60 sql 'select 1'
	sql 'create database test; create table test.canary (n int); insert into test.canary values (4711)'
	background_load mariadb-slap --no-defaults -u root -S "$dir/socket" --concurrency=3 \
		--auto-generate-sql --number-of-queries=3000
	adopt "$server"
	look_at "$server"
	look_heap_at "$server"
	trace_at "$server"
	allocs_at "$server" reachable
	kill_at_server "$server"
	still_under_load
	[ "$(sql 'select n from test.canary')" = 4711 ]
	end_load
	look_still_at "$server"
	[ "$(sql 'select n from test.canary')" = 4711 ]
	victim_check
}

@test "postgres: the postmaster and a backend" {
	bin=$(find /usr/lib/postgresql /usr/bin -name initdb 2>/dev/null | sort -V | tail -1)
	[ -n "$bin" ] || skip "postgres is not installed"
	bin=${bin%/*}
	(unprivileged "$bin/initdb" -D "$dir/data" -U tester -A trust --no-sync) \
		>"$dir/initdb.log" 2>&1 || fail "$(tail "$dir/initdb.log")"
	background postgres unprivileged "$bin/postgres" -D "$dir/data" -k "$dir" \
		-c listen_addresses= -c fsync=off
	server=$pid
	ends_with "$server" INT # "fast": without waiting for the sessions
	sql() {
		timeout 30 "$bin/psql" -h "$dir" -U tester -d postgres -At -c "$1"
	}
	wait_for 60 sql 'select 1'
	sql 'create table canary (n int); insert into canary values (4711)'
	background_load "$bin/psql" -h "$dir" -U tester -d postgres -q -c \
		'do $$ begin for i in 1..100000000 loop perform string_agg(g::text, $q$,$q$) from generate_series(1, 100) g; end loop; end $$'
	backend_of_load() {
		backend=$(sql "select pid from pg_stat_activity where query like 'do %' limit 1")
		[ -n "$backend" ]
	}
	wait_until 30 backend_of_load
	adopt "$server"
	look_at "$server"
	victim_check
	adopt "$backend"
	look_at "$backend"
	# The path of the data and an old environment.
	look_leaks_max=2000
	look_heap_at "$backend"
	trace_at "$backend"
	allocs_at "$backend" reachable
	kill_at_server "$backend"
	look_still_at "$backend"
	still_under_load
	[ "$(sql 'select n from canary')" = 4711 ]
	victim_check
}

@test "nginx: a worker" {
	need nginx
	need curl
	mkdir "$dir/www"
	echo canary-4711 >"$dir/www/canary"
	cat >"$dir/nginx.conf" <<-EOF
		daemon off;
		worker_processes 1;
		pid $dir/pid;
		error_log $dir/error.log;
		events { worker_connections 64; }
		http {
			access_log off;
			client_body_temp_path $dir/body;
			proxy_temp_path $dir/proxy;
			fastcgi_temp_path $dir/fastcgi;
			uwsgi_temp_path $dir/uwsgi;
			scgi_temp_path $dir/scgi;
			server { listen unix:$dir/socket; root $dir/www; }
		}
	EOF
	background nginx nginx -c "$dir/nginx.conf" -e "$dir/error.log"
	master=$pid
	get() {
		curl -sf --max-time 20 --unix-socket "$dir/socket" http://test/canary
	}
	wait_for 30 get
	worker=$(cat "/proc/$master/task/$master/children")
	worker=${worker%% *}
	background_load curl -sf --unix-socket "$dir/socket" "http://test/canary?[1-20000]" -o /dev/null
	adopt "$worker"
	look_at "$worker"
	look_heap_at "$worker"
	trace_at "$worker"
	allocs_at "$worker" reachable
	kill_at_server "$worker"
	still_under_load
	[ "$(get)" = canary-4711 ]
	look_still_at "$worker"
	[ "$(get)" = canary-4711 ]
	victim_check
}

@test "memcached" {
	need memcached
	background memcached unprivileged memcached -s "$dir/socket" -t 4 -m 64
	server=$pid
	client() { # COUNT: sets and gets, each checked
		python3 - "$dir/socket" "$1" <<-'EOF'
			import socket, sys
			connection = socket.socket(socket.AF_UNIX)
			connection.settimeout(20)
			connection.connect(sys.argv[1])
			stream = connection.makefile("rwb")
			for i in range(int(sys.argv[2])):
			    value = b"%d" % i * 100
			    stream.write(b"set key%d 0 0 %d\r\n%s\r\nget key%d\r\n" % (i % 1000, len(value), value, i % 1000))
			    stream.flush()
			    assert stream.readline() == b"STORED\r\n"
			    assert stream.readline().startswith(b"VALUE")
			    assert stream.readline() == value + b"\r\n"
			    assert stream.readline() == b"END\r\n"
		EOF
	}
	wait_for 30 client 1
	export -f client
	export dir
	background_load bash -c 'client 20000'
	adopt "$server"
	look_at "$server"
	look_heap_at "$server"
	trace_at "$server" quiet
	allocs_at "$server" reachable
	kill_at_server "$server"
	still_under_load
	look_still_at "$server"
	client 100
	victim_check
}

@test "python3 with threads" {
	need python3
	background python python3 "$ROOT/tests/live/work.py" "$dir/socket"
	server=$pid
	ask() {
		python3 -c '
import socket, sys
connection = socket.socket(socket.AF_UNIX)
connection.settimeout(20)
connection.connect(sys.argv[1])
print(connection.recv(64).decode())' "$dir/socket"
	}
	wait_for 30 ask
	adopt "$server"
	look_at "$server"
	look_heap_at "$server"
	trace_at "$server"
	allocs_at "$server" reachable
	kill_at_server "$server"
	look_still_at "$server"
	rounds=$(ask)
	[[ $rounds =~ ^[0-9]+$ ]]
	wait_until 30 eval '[ "$(ask)" -gt "$rounds" ]'
	victim_check
}
