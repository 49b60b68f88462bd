#!/usr/bin/env bats
# Real servers at work: every command on each, after which it still answers, and answers right.
# Each has a directory, a socket and a load of its own, and ends with its test.

load lib
load servers
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

@test "redis-server" {
	start_redis
	redis set canary 4711
	load_redis
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
	[ "$(redis get canary)" = 4711 ]
	victim_check
}

@test "mariadbd" {
	start_mariadbd
	mariadb_sql 'create database test; create table test.canary (n int); insert into test.canary values (4711)'
	load_mariadbd
	adopt "$server"
	look_at "$server"
	look_heap_at "$server"
	trace_at "$server"
	allocs_at "$server" reachable
	kill_at_server "$server"
	still_under_load
	[ "$(mariadb_sql 'select n from test.canary')" = 4711 ]
	end_load
	look_still_at "$server"
	[ "$(mariadb_sql 'select n from test.canary')" = 4711 ]
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
		timeout "$(patience 60)" "$bin/psql" -h "$dir" -U tester -d postgres -At -c "$1"
	}
	wait_for 60 sql 'select 1'
	sql 'create table canary (n int); insert into canary values (4711)'
	background_load "$bin/psql" -h "$dir" -U tester -d postgres -q -c \
		'do $$ begin for i in 1..100000000 loop perform string_agg(g::text, $q$,$q$) from generate_series(1, 100) g; end loop; end $$'
	backend_of_load() {
		backend=$(sql "select pid from pg_stat_activity where query like 'do %' limit 1")
		[ -n "$backend" ]
	}
	wait_until 60 backend_of_load
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
	start_nginx
	load_nginx
	adopt "$worker"
	look_at "$worker"
	look_heap_at "$worker"
	trace_at "$worker"
	allocs_at "$worker" reachable
	kill_at_server "$worker"
	still_under_load
	[ "$(get canary)" = canary-4711 ]
	look_still_at "$worker"
	[ "$(get canary)" = canary-4711 ]
	victim_check
}

@test "memcached" {
	need memcached
	background memcached unprivileged memcached -s "$dir/socket" -t 4 -m 64 -c 64
	server=$pid
	client() { # COUNT: sets and gets, each checked
		python3 - "$dir/socket" "$1" <<-'EOF'
			import socket, sys
			connection = socket.socket(socket.AF_UNIX)
			connection.settimeout(60)
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
	wait_for 60 client 1
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
connection.settimeout(60)
connection.connect(sys.argv[1])
print(connection.recv(64).decode())' "$dir/socket"
	}
	wait_for 60 ask
	adopt "$server"
	look_at "$server"
	look_heap_at "$server"
	trace_at "$server"
	allocs_at "$server" reachable
	kill_at_server "$server"
	look_still_at "$server"
	rounds=$(ask)
	[[ $rounds =~ ^[0-9]+$ ]]
	wait_until 60 eval '[ "$(ask)" -gt "$rounds" ]'
	victim_check
}
