#!/usr/bin/env bats
# The compiled unwind table beside libdwfl: every stack of programs that run, the same. `make check`
# compares 100 points each in some programs, `make torture` 1,000 in these and in databases at work.

load lib

setup() {
	make_public_dir
	dir=$public_dir
	# Servers start and end threads as they please.
	# shellcheck disable=SC2034
	victim_threads_vary=1
	points=100
	if [ "${TORTURE:-}" = long ]; then
		points=1000
	fi
}

need() {
	PATH=$PATH:/usr/sbin:/sbin
	command -v "$1" >/dev/null || skip "$1 is not installed"
}

only_long() {
	[ "${TORTURE:-}" = long ] || skip "part of make torture"
}

# In the background, bounded, ended by teardown; sets pid.
background() { # NAME COMMAND...
	local name=$1
	shift
	"$@" >"$dir/$name.log" 2>&1 </dev/null 3>&- &
	pid=$!
	ends_with $pid
}

# For ever.
background_load() {
	background load bash -c 'trap "kill \$child; exit" TERM
		while "$@" & child=$!; wait $child; do :; done' load "$@"
}

wait_for() { # SECONDS COMMAND...: quietly
	wait_until "$1" quietly "${@:2}" || fail "$(tail -n 20 "$dir"/*.log)"
}

quietly() {
	"$@" >/dev/null 2>&1
}

# The figures go to the log of the long run.
compare() { # PID...
	run timeout -k 5 "$(patience 600)" "$BUILD/tests/tools/unwind_compare" "$@" "$points"
	if [ "${TORTURE:-}" = long ]; then
		grep -E 'points|built' <<<"$output" | sed 's/^/# /' >&3
	fi
	[ "$status" -eq 0 ] || fail "$output"
	grep -q "points $points identical $points" <<<"$output"
}

@test "frames of all kinds, without frame pointers, and signal handlers" {
	start_victim frames
	compare "$victim_pid"
	victim_works
	victim_check
}

@test "frames of all kinds in a static program" {
	start_victim frames-static
	compare "$victim_pid"
	victim_works
	victim_check
}

# Where libc's debugging symbols are not installed.
no_name='[?]'

# The CFA is in rbx there. (libdwfl does not always find the way.)
@test "the dynamic linker's frame below a function that is being bound" {
	LD_BIND_NOT=1 start_victim frames
	sees_binding() {
		timeout -k 5 "$(patience 60)" "$BUILD/tests/tools/unwind_compare" --print "$victim_pid" |
			grep -Eq " ($no_name|_dl_fixup) ($no_name|_dl_runtime_resolve[a-z_0-9]*) by_libc realigned worker ($no_name|start_thread) ($no_name|[_a-z0-9]*clone3?)\$"
	}
	wait_until 60 sees_binding
	victim_works
	victim_check
}

# musl has no call frame information: libdwfl does not get past its signal frames.
@test "signal frames of musl" {
	local stack
	start_victim frames-musl
	stack=' on_alarm __restore_rt( __restore_sigs)?( raise)?( recurse| in_alloca| realigned| spin| in_large_frame| by_libc)* worker start$'
	sees_handler() {
		timeout -k 5 "$(patience 60)" "$BUILD/tests/tools/unwind_compare" --print "$victim_pid" |
			grep -Eq "$stack"
	}
	wait_until 60 sees_handler
	victim_works
	victim_check
}

@test "redis-server" {
	need redis-server
	need redis-benchmark
	background redis redis-server --port 0 --unixsocket "$dir/redis" --save '' --dir "$dir"
	server=$pid
	wait_for 60 redis-cli -s "$dir/redis" ping
	background_load redis-benchmark -s "$dir/redis" -q -r 10000 -d 200 -c 8 -n 200000 -P 16 \
		-t set,get,lpush,lpop,sadd,hset,zadd,lrange_100,mset
	adopt "$server"
	compare "$server"
	redis-cli -s "$dir/redis" ping
	victim_check
}

@test "python3" {
	need python3
	background python python3 "$ROOT/tests/live/work.py" "$dir/socket"
	python=$pid
	wait_until 60 test -S "$dir/socket"
	adopt "$python"
	compare "$python"
	victim_check
}

@test "mariadbd" {
	only_long
	need mariadbd
	need mariadb-install-db
	(unprivileged mariadb-install-db --no-defaults --datadir="$dir/data" --skip-test-db \
		--auth-root-authentication-method=normal) >"$dir/install.log" 2>&1 ||
		fail "$(tail "$dir/install.log")"
	background mariadbd unprivileged mariadbd --no-defaults --datadir="$dir/data" \
		--socket="$dir/socket" --skip-networking --pid-file="$dir/pid" \
		--innodb-buffer-pool-size=32M
	server=$pid
	wait_for 60 timeout "$(patience 60)" mariadb --no-defaults -u root -S "$dir/socket" -e 'select 1'
	background_load mariadb-slap --no-defaults -u root -S "$dir/socket" --concurrency=3 \
		--auto-generate-sql --auto-generate-sql-load-type=mixed --number-of-queries=3000
	adopt "$server"
	compare "$server"
	victim_check
}

@test "a postgres backend" {
	only_long
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
	"$bin/pgbench" -h "$dir" -U tester -i -q postgres >"$dir/init.log" 2>&1
	# pgbench's own transactions wait most of the time.
	cat >"$dir/report.sql" <<-EOF
		\set first random(1, 90000)
		select bid, count(*), avg(abalance), string_agg(md5(aid::text), ',' order by filler)
			from pgbench_accounts where aid between :first and :first + 5000 group by bid;
	EOF
	background_load "$bin/pgbench" -h "$dir" -U tester -c 2 -T 600 -b tpcb-like \
		-f "$dir/report.sql" postgres
	backend_of_load() {
		backend=$(sql "select pid from pg_stat_activity where application_name = 'pgbench' limit 1")
		[ -n "$backend" ]
	}
	wait_until 60 backend_of_load
	adopt "$backend"
	compare "$backend"
	victim_check
}
