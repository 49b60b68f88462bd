#!/usr/bin/env bats
# Recording allocations from outside, by the library (tests/torture/trace_loop.c): the program's own
# truth comes out as with the agent, and no probe stays.

load lib
load trace
load servers

setup_file() {
	[ -e /sys/bus/event_source/devices/uprobe/type ] && [ "$(id -u)" -eq 0 ] ||
		export UPROBES_FORBIDDEN=1
}

setup() {
	[ -z "${UPROBES_FORBIDDEN:-}" ] || skip 'uprobes are not permitted here'
}

# What the victims do from `go` on is meant to fit into the rings, whole or for seconds, as memprobe may
# get no CPU meanwhile.
PACED='20000 1000 10000' # alloc_truth's
FEW=200		 # rounds of allocshape

record_rounds() { # COUNT COMMAND...
	trace_begin "${@:2}" attach wait pause read detach
	tell go '^going'
	runs_for_rounds "$1"
	tell stop '^stopped'
	trace_go
	grep -q '^uprobes ' "$trace_out" || fail "$(grep -v ^site "$trace_out")"
}

is_as_before() {
	victim_check 2>/dev/null
}

still_works() {
	tell go '^going'
	runs_for_rounds 10
	tell stop '^stopped'
	victim_check
	! grep . /sys/kernel/tracing/uprobe_events 2>/dev/null || fail 'a probe is left'
}

is_exact() {
	"$ROOT/tests/live/truth.py" "$victim_out" "$trace_out" "$@" ||
		fail "$(grep -v ^site "$trace_out")"
}

# $output holds the truth of victims that tell it by function.
is_shape() {
	local function truth got
	json '.engine == "uprobe" and .rate == 1 and .lost == 0 and .counters.truncated == 0'
	while read -r _ function truth; do
		got=$(figures_of "$function")
		[ "$got" = "$truth" ] || fail "$function: $got instead of $truth" "$output"
	done < <(grep '^truth' "$victim_out")
	victim_check
}

@test "uprobes: exact with two threads, glibc" {
	start_victim alloc_truth 2 $PACED
	record_rounds 100 uprobe
	is_exact
	grep -q '^uprobes wanted' "$trace_out"
	still_works
}

# The kernel does not take its breakpoints out for who is killed while it makes or closes them.
@test "uprobes: none stays when memprobe is killed" {
	local killed
	start_victim leaks 2000
	killed=$("$BUILD/tests/torture/killer" random 25 "$victim_pid" \
		"$MEMPROBE" allocs "$victim_pid" -d 20ms --engine=uprobe) || fail "$killed"
	[[ $killed != *kills=0* ]] || fail "$killed"
	# It takes the kernel a while.
	wait_until 60 is_as_before
	victim_check
}

# One of the two comes first, and the other is refused, or records beside it.
@test "uprobes: an agent that comes at the same time" {
	local i
	start_victim malloc_load 1 4096 2000
	for i in {1..8}; do
		"$MEMPROBE" allocs "$victim_pid" -d 50ms --engine=uprobe >/dev/null 2>&1 &
		"$MEMPROBE" allocs "$victim_pid" -d 50ms --engine=agent >/dev/null 2>&1 || true
		wait $! || true
		victim_works
	done
	wait_until 60 is_as_before
	victim_check
}

@test "uprobes: exact with jemalloc and linked statically" {
	if ldconfig -p | grep -q libjemalloc.so.2; then
		start_command env LD_PRELOAD=libjemalloc.so.2 "$VICTIMS/alloc_truth" 1 $PACED
		record_rounds 50 uprobe
		is_exact
		still_works
	fi
	start_victim alloc_truth-musl 1 $PACED
	record_rounds 50 uprobe
	is_exact
	still_works
}

# Their operators do not reach malloc. Probed at their `ret`s: exceptions pass.
@test "uprobes: operator new of jemalloc, tcmalloc and mimalloc" {
	local library
	for library in libjemalloc.so.2 libtcmalloc_minimal.so.4 libmimalloc.so.2; do
		ldconfig -p | grep -q "$library" || continue
		start_command env "LD_PRELOAD=$library" "$VICTIMS/alloc_truth_cxx" 2 $PACED
		record_rounds 50 uprobe
		is_exact
		still_works
		stop_victim
		# mimalloc in C does not throw: it aborts.
		[ "$library" != libmimalloc.so.2 ] || continue
		start_command env "LD_PRELOAD=$library" "$VICTIMS/allocnew"
		record_begin allocs "$victim_pid" --json --engine=uprobe --all
		victim_say go
		victim_wait '^done 1$' >/dev/null
		record_end
		status_is 0
		is_shape
		stop_victim
	done
}

@test "uprobes: samples weigh what they stand for" {
	start_victim alloc_truth 1 20000
	record_rounds 400 uprobe rate=4096
	is_exact --sampled
	still_works
}

@test "uprobes: taken where seccomp forbids the agent" {
	start_command "$VICTIMS/under_filter" "$VICTIMS/alloc_truth" 1 $PACED
	run "$TRACE" "$victim_pid" agent attach
	status_is 1
	[[ $output == *"error 4 "* ]] || fail "$output"
	record_rounds 50
	grep -q '^uprobes .*seccomp' "$trace_out" || fail "$(grep -v ^site "$trace_out")"
	is_exact
	still_works
}

@test "uprobes: go with a memprobe that is killed" {
	start_victim alloc_truth 1 $PACED
	trace_begin uprobe attach wait
	tell go '^going'
	runs_for_rounds 10
	kill -KILL "$trace_pid"
	wait "$trace_pid" || true
	runs_for_rounds 10
	tell stop '^stopped'
	still_works
	record_rounds 20 uprobe
	# What came before is not known.
	grep -q '^counters .* lost=0 lost_frees=0 ' "$trace_out"
	still_works
}

# Arguments on the stack, which is unwound by libdwfl.
@test "uprobes: 32-bit processes" {
	start_victim alloc_truth-32 2 $PACED
	record_rounds 50 uprobe
	is_exact
	still_works
	stop_victim
	start_victim allocshape-32 $FEW
	# The agent is for 64 bits only.
	record_begin allocs "$victim_pid" --json --all --sample 1
	victim_say go
	victim_wait '^done 1$' >/dev/null
	record_end
	status_is 0
	is_shape
}

@test "uprobes: refused without the right to them" {
	start_victim_as_user alloc_truth 1
	install -m 755 "$TRACE" "${user_memprobe%/*}/trace_loop"
	run as_user "${user_memprobe%/*}/trace_loop" "$victim_pid" uprobe attach
	status_is 1
	[[ $output == *"error 4 cannot probe"* ]] || fail "$output"
	victim_check
}

# The kernel's programs see them from their first call on.
@test "uprobes: threads born meanwhile, whole stacks" {
	start_victim allocload
	record_begin allocs "$victim_pid" --json --engine=uprobe --all
	victim_say 'pairs 6000'
	victim_wait '^took ' >/dev/null
	record_end
	status_is 0
	json '.lost == 0 and .counters.truncated == 0'
	json '[.sites[] | select(any(.frames[]; contains("work"))) | .all_count] | add == 6000'
	victim_check
}

# trace_without WHAT: trace_begin's program cannot do that (under_filter).
trace_without() {
	TRACE=$BATS_TEST_TMPDIR/trace_loop
	printf '#!/bin/sh\nexport TRACE_LOOP_DEBUG=1\nexec %s %s %s "$@"\n' \
		"$VICTIMS/under_filter" "$1" "$BUILD/tests/torture/trace_loop" >"$TRACE"
	chmod 755 "$TRACE"
}

is_harmless_to_births() {
	start_victim allocload
	trace_begin uprobe attach wait
	victim_say 'pairs 2000'
	victim_wait '^took ' >/dev/null
	trace_go
	! grep -q WRONG "$victim_out" || fail "$(cat "$victim_out")"
	victim_check
}

# Linux before 6.6.
@test "uprobes: a program for each probe" {
	trace_without links
	start_victim alloc_truth 2 $PACED
	record_rounds 50 uprobe
	grep -q 'one by one' "$trace_out" || fail "$(cat "$trace_out")"
	is_exact
	still_works
	stop_victim
	is_harmless_to_births
}

# allocs_without WHAT ARG...
allocs_without() {
	run --separate-stderr timeout 60 "$VICTIMS/under_filter" "$1" "$MEMPROBE" \
		allocs "$victim_pid" -d 10ms "${@:2}"
}

@test "uprobes: refused without programs in the kernel, and said what works" {
	start_victim alloc_truth 2 $PACED
	allocs_without no-bpf --engine=uprobe
	status_is 5
	[[ $stderr == *"cannot probe $victim_pid: "*'hint: '*'Linux 5.8'*'--engine=agent'* ]] || fail "$stderr"
	allocs_without bpf --engine=uprobe
	status_is 4
	[[ $stderr == *"cannot probe $victim_pid: not permitted"*'bpf(2)'* ]] || fail "$stderr"
	# The agent needs none.
	allocs_without no-bpf
	status_is 0
	victim_check
}

has_begun_threads() {
	[ "$(grep -c '^thread ' "$victim_out")" -ge "$1" ]
}

# The agent is refused. Probes are those of a thread that lives.
@test "recordings of a process whose first thread has ended" {
	start_victim exec_fork_exit
	victim_say leader-exit
	wait_until 20 grep -q '^State:.Z' "/proc/$victim_pid/task/$victim_pid/status"
	record_begin syscalls "$victim_pid" --json
	record_end
	status_is 0
	record_begin allocs "$victim_pid" --json --all
	victim_say thread
	wait_until 20 has_begun_threads 2
	# Once more another thread takes the commands.
	victim_say leader-exit
	record_wait
	status_is 6
	[[ $stderr == *'ends: the thread has ended'* ]] || fail "$stderr"
	json '.engine == "uprobe" and (.agent_refused | contains("main thread"))'
	json '[.sites[] | select(any(.frames[]; contains("pthread_create"))) | .all_count] | add >= 2'
	kill -0 "$victim_pid"
}

@test "allocs --engine=uprobe: what each function has not freed, exactly" {
	start_victim allocshape $FEW
	record_begin allocs "$victim_pid" --json --engine=uprobe --all
	victim_say go
	victim_wait '^done 1$' >/dev/null
	record_end
	status_is 0
	json '.engine == "uprobe" and .rate == 1 and .lost == 0 and (has("agent_refused") | not)'
	json '.counters.truncated == 0'
	is_shape
	victim_check
}

@test "allocs takes uprobes where seccomp forbids the agent, and says so" {
	start_command "$VICTIMS/under_filter" "$VICTIMS/allocshape" $FEW
	probe allocs "$victim_pid" --engine=agent -d 10ms
	status_is 4
	record_begin allocs "$victim_pid" --json
	victim_say go
	victim_wait '^done 1$' >/dev/null
	record_end
	status_is 0
	json '.engine == "uprobe" and (.agent_refused | contains("seccomp")) and .totals.count > 0'
	[[ $stderr == *"uprobes recorded instead"* ]] || fail "$stderr"
	victim_check
}

# Where memprobe gets too little of the CPUs the ring runs over, which it says.
is_done_or_lossy() {
	[ "$status" -eq 6 ] && [[ $stderr == *' were lost'* ]] || status_is 0
}

# records_at PID: under its load; then, exactly, a leak that is planted by calls of malloc().
records_at() {
	local size=123457 # nobody else asks for so many
	adopt "$1"
	# shellcheck disable=SC2034
	victim_threads_vary=1
	for seconds in 0.5 10 45; do
		probe allocs "$1" --engine=uprobe --sample 64K -d $seconds --all --json
		is_done_or_lossy
		[ "$(json_get .counters.calls)" -eq 0 ] || break
	done
	json '.engine == "uprobe" and .counters.calls > 0'
	record_begin allocs "$1" --engine=uprobe --min-size $size --max-size $size --json
	for _ in 1 2 3; do
		memprobe call "$1" "malloc($size)" >/dev/null
	done
	record_end
	is_done_or_lossy
	json '.totals.count == 3 and .totals.bytes == 3 * $size' --argjson size $size
	still_under_load
}

@test "allocs --engine=uprobe: redis-server under load" {
	make_public_dir
	dir=$public_dir
	start_redis
	redis set canary 4711
	load_redis
	records_at "$server"
	[ "$(redis get canary)" = 4711 ]
	victim_check
}

# Its threads come and go with the connections.
@test "allocs --engine=uprobe: mariadbd under load" {
	make_public_dir
	dir=$public_dir
	start_mariadbd
	mariadb_sql 'create database test; create table test.canary (n int); insert into test.canary values (4711)'
	load_mariadbd
	records_at "$server"
	[ "$(mariadb_sql 'select n from test.canary')" = 4711 ]
	victim_check
}

has_three_threads() {
	[ "$(grep -c '^thread ' "$victim_out")" -ge 3 ]
}

@test "allocs --engine=uprobe: the target forks, starts another program, loses its first thread" {
	start_victim exec_fork_exit
	record_begin allocs "$victim_pid" --json --engine=uprobe
	victim_say fork
	victim_wait '^child ' >/dev/null
	victim_say thread
	victim_wait '^thread ' >/dev/null
	victim_say exec
	record_wait
	status_is 0
	[[ $stderr == *'called exec(): the recording covers the old program'* ]] || fail "$stderr"
	json '.engine == "uprobe"'
	stop_victim
	start_victim exec_fork_exit
	record_begin allocs "$victim_pid" --json --engine=uprobe --all
	victim_say thread
	victim_wait '^thread ' >/dev/null
	victim_say leader-exit
	wait_until 60 grep -q '^State:.Z' "/proc/$victim_pid/task/$victim_pid/status"
	victim_say thread
	wait_until 60 has_three_threads
	record_end
	status_is 0
	# The last one was born of another than the first thread.
	json '[.sites[] | select(any(.frames[]; contains("pthread_create"))) | .all_count] | add >= 3'
	kill -0 "$victim_pid"
	stop_victim
	start_victim allocshape $FEW
	record_begin allocs "$victim_pid" --json --engine=uprobe --all
	victim_say go
	victim_wait '^done 1$' >/dev/null
	stop_victim
	record_wait
	status_is 0
	[[ $stderr == *'has ended'* ]] || fail "$stderr"
	while read -r _ function truth; do
		got=$(figures_of "$function")
		[ "$got" = "$truth" ] || fail "$function: $got instead of $truth" "$output"
	done < <(grep '^truth' "$victim_out")
}
