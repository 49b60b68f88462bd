#!/usr/bin/env bats
# syscalls: who maps how much, against a victim that knows it.

load lib

setup_file() {
	"${BUILD:-$BATS_TEST_DIRNAME/../../build}"/memprobe syscalls $$ --engine=tracepoints -d 1ms \
		>/dev/null 2>&1 || export TRACEPOINTS_FORBIDDEN=1
}

needs_tracepoints() {
	[ -z "${TRACEPOINTS_FORBIDDEN:-}" ] || skip 'tracepoints are not permitted here'
}

# Where the kernel allows no programs: perf's samples, as it is before Linux 5.8, too.
without_programs() {
	MEMPROBE=$BATS_TEST_TMPDIR/memprobe
	printf '#!/bin/sh\nexec %s bpf %s "$@"\n' "$VICTIMS/under_filter" "$BUILD/memprobe" >"$MEMPROBE"
	chmod 755 "$MEMPROBE"
}

# The sum of KEY over all sites of FUNCTION whose leaf is SYSCALL.
sum_of() {
	json_get '[.sites[] | select((.frames | index($f)) and (.frames[-1] | startswith($c + "("))) |
		.[$k]] | add // 0' --arg f "$1" --arg c "$2" --arg k "$3"
}

record_calls() { # VICTIM [OPTION...]
	start_victim "$1"
	record_begin syscalls "$victim_pid" --json "${@:2}"
	victim_say go
	victim_wait '^done$'
	record_end
	victim_check
}

# What was recorded is what the victim says that it did.
is_told() {
	json '.lost == 0'
	while read -r _ function call count bytes net; do
		[ "$(sum_of "$function" "$call" count)" -eq "$count" ] || fail "$function $call" "$output"
		[ "$(sum_of "$function" "$call" bytes)" -eq "$bytes" ] || fail "$function $call" "$output"
		[ "$(sum_of "$function" "$call" net_bytes)" -eq "$net" ] || fail "$function $call" "$output"
	done < <(grep '^call' "$victim_out")
	json '.calls.mmap.failed == 1 and .calls.munmap.count >= 8'
	json '[.sites[].frames[-1]] | index("madvise(MADV_DONTNEED)") and
		index("mmap(PROT_READ|PROT_WRITE, MAP_PRIVATE|MAP_ANONYMOUS)") and
		index("mprotect(PROT_READ)") and index("mremap(MREMAP_MAYMOVE|MREMAP_FIXED)")'
	[ "$(sum_of large_malloc mmap count)" -eq 1 ]
}

@test "syscalls: count, bytes and what is still mapped, by function" {
	needs_tracepoints
	record_calls mapcalls
	status_is 0
	is_told
	json '.engine == "tracepoints" and .truncated == 0 and .stopped_us == 0 and .warnings[1:] == []'
}

@test "syscalls without programs of the kernel's: the same, and what children do" {
	needs_tracepoints
	without_programs
	record_calls mapcalls
	status_is 0
	is_told
	json '.engine == "tracepoints" and .truncated == 0 and .child_events >= 1'
}

@test "syscalls --engine=ptrace: the same, and it says that it is slow" {
	record_calls mapcalls --engine=ptrace
	status_is 0
	is_told
	json '.engine == "ptrace" and .truncated == 0 and .child_events == null and .stopped_us > 0'
	json '.warnings[0] | contains("ptrace")'
	[[ $stderr == *'stops a thread twice'* ]] || fail "$stderr"
}

@test "syscalls of a 32-bit process" {
	record_calls mapcalls-32
	status_is 0
	is_told
	stop_victim
	without_programs
	record_calls mapcalls-32
	status_is 0
	is_told
	json '.engine == "ptrace" and ([.warnings[] | select(contains("32-bit"))] | length) == 1'
	probe syscalls "$victim_pid" -d 1s --engine=tracepoints
	status_is 5
	victim_check
}

@test "syscalls: all engines find the same sites" {
	local engine
	needs_tracepoints
	for engine in tracepoints ptrace samples; do
		[ $engine != samples ] || without_programs
		record_calls mapcalls --engine=${engine/samples/tracepoints}
		status_is 0
		json_get '.sites | map([.frames, .count, .bytes, .net_bytes]) | sort[] | tostring' \
			>"$BATS_TEST_TMPDIR/$engine"
		stop_victim
	done
	[ -s "$BATS_TEST_TMPDIR/ptrace" ]
	diff "$BATS_TEST_TMPDIR/tracepoints" "$BATS_TEST_TMPDIR/ptrace" >&2
	diff "$BATS_TEST_TMPDIR/samples" "$BATS_TEST_TMPDIR/ptrace" >&2
}

@test "syscalls --min-size leaves small calls out, not their effect" {
	record_calls mapcalls --min-size 8M
	status_is 0
	[ "$(sum_of map_and_keep mmap count)" -eq 0 ]
	[ "$(sum_of map_with_hole mmap bytes)" -eq $((8 << 20)) ]
	[ "$(sum_of map_with_hole mmap net_bytes)" -eq $((6 << 20)) ]
	[ "$(sum_of grow_and_move mremap net_bytes)" -eq $((6 << 20)) ]
}

@test "syscalls: 20,000 pairs are all there and leave nothing mapped" {
	needs_tracepoints
	start_victim mapcalls
	# Of so little stack with each, the ring takes all of them, though memprobe may get no CPU.
	record_begin syscalls "$victim_pid" --json --stack-size=1K
	victim_say pairs 20000
	victim_wait '^paired'
	record_end
	status_is 0
	victim_check
	json '.lost == 0 and .calls.mmap.count >= 20000 and .calls.munmap.count >= 20000'
	[ "$(sum_of command mmap net_bytes)" -eq 0 ]
}

@test "syscalls of four threads at once: by all engines" {
	local engine
	for engine in auto ptrace; do
		start_victim mapcalls
		record_begin syscalls "$victim_pid" --engine=$engine --json
		victim_say race 2000
		victim_wait '^paired'
		record_end
		status_is 0
		victim_check
		json '.lost == 0 and .calls.munmap.count >= 8000'
		[ "$(sum_of race mmap count)" -eq 8000 ]
		[ "$(sum_of race mmap net_bytes)" -eq 0 ]
		stop_victim
	done
}

# The kernel's programs know processes by their ids in the first namespace.
@test "syscalls within a PID namespace" {
	local inner recorder as
	skip_unless_root
	needs_tracepoints
	unshare --pid --fork --mount-proc true || skip "cannot unshare the PID namespace"
	start_command unshare --pid --fork --kill-child --mount-proc "$VICTIMS/mapcalls"
	inner=$(cat "/proc/$victim_pid/task/$victim_pid/children")
	inner=${inner%% *}
	# shellcheck disable=SC2034
	as=(nsenter --target "$inner" --pid --mount)
	record_begin syscalls 1 --engine=tracepoints --json
	victim_say go
	victim_wait '^done$'
	# timeout runs nsenter, which a signal would end, and that memprobe.
	recorder=$(children_of "$(children_of "$record_pid")")
	kill -INT "$recorder"
	record_wait
	status_is 0
	is_told
	! is_gone "$inner"
}

@test "syscalls: the table shows the call, and folded stacks end with it" {
	start_victim mapcalls
	record_begin syscalls "$victim_pid"
	victim_say go
	victim_wait '^done$'
	record_end
	status_is 0
	[[ $output == *CALL*FUNCTION* ]]
	[[ $output == *'madvise(MADV_DONTNEED)'*advise* ]]
	record_begin syscalls "$victim_pid" -f
	victim_say pairs 10
	victim_wait '^paired'
	record_end
	grep -qE '^.*;munmap\(\) 10485760$' <<<"$output" || fail "$output"
	victim_check
}

@test "syscalls: the target ends or is killed with us" {
	start_victim mapcalls
	record_begin syscalls "$victim_pid" --json
	victim_say go
	victim_wait '^done$'
	stop_victim
	record_wait
	status_is 0
	json '.calls.mmap.count > 10 and .ended'
	# Its files are named although it maps them no more.
	json '[.sites[].frames] | any(index("main"))'
	[[ $stderr == *'has ended'* ]] || fail "$stderr"
	start_victim mapcalls
	record_begin syscalls "$victim_pid" --json
	victim_say go
	record_kill
	victim_wait '^done$'
	victim_check
}

@test "recordings end with a target that nobody waits for" {
	local command zombie
	for command in 'syscalls' 'syscalls --engine=ptrace' faults 'faults --all' allocs; do
		# Of the one before.
		rm -f "$BATS_TEST_TMPDIR/pid"
		bash -c 'sleep 600 & echo $!; exec sleep 600' >"$BATS_TEST_TMPDIR/pid" 3>&- &
		ends_with $!
		wait_until 60 has_line "$BATS_TEST_TMPDIR/pid"
		zombie=$(<"$BATS_TEST_TMPDIR/pid")
		ends_with "$zombie"
		wait_until 60 is_named "$zombie" sleep
		wait_until 60 is_named "$(parent_of "$zombie")" sleep
		# shellcheck disable=SC2086
		record_begin ${command%% *} "$zombie" ${command#"${command%% *}"}
		kill -KILL "$zombie"
		record_wait
		status_is 0
		[[ $command == 'faults --all' || $stderr == *' has ended'* ]] || fail "$stderr"
	done
}

has_line() {
	[ -s "$1" ]
}

is_named() {
	[ "$(cat "/proc/$1/comm" 2>/dev/null)" = "$2" ]
}

parent_of() {
	awk '$1 == "PPid:" { print $2 }' "/proc/$1/status"
}

@test "syscalls as an ordinary user: by ptrace, with what to grant" {
	skip_unless_root
	start_victim_as_user mapcalls
	user_memprobe_record syscalls "$victim_pid" --json
	victim_say go
	victim_wait '^done$'
	record_end
	victim_check
	status_is 0
	is_told
	json '.engine == "ptrace" and (.warnings | length) >= 2'
	run as_user timeout "$(patience 60)" "$user_memprobe" syscalls "$victim_pid" -d 1ms
	[[ $output == *'cannot use tracepoint'*cap_bpf,cap_perfmon*ptrace* ]] || fail "$output"
	run as_user timeout "$(patience 60)" "$user_memprobe" syscalls "$victim_pid" -d 1s --engine=tracepoints
	[ "$status" -eq 4 ] || fail "$output"
	# With just what it says.
	run setpriv --reuid=65534 --regid=65534 --clear-groups --inh-caps=+bpf,+perfmon \
		--ambient-caps=+bpf,+perfmon -- \
		timeout "$(patience 60)" "$user_memprobe" syscalls "$victim_pid" -d 1ms --engine=tracepoints
	[ "$status" -eq 0 ] || fail "$output"
	run as_user timeout "$(patience 60)" "$user_memprobe" syscalls $$ -d 1s
	[ "$status" -eq 4 ] || fail "$output"
	victim_check
}

@test "syscalls --engine: no other" {
	start_victim mapcalls
	probe syscalls "$victim_pid" -d 1s --engine=strace
	status_is 2
	victim_check
}

# ---- a target that is traced goes on as if it were not ----

# Every kind of thread, but for the one that may be woken late where its waker is slow.
torture_kinds() {
	echo cpu nanosleep poll epoll epoll_timeout futex_timeout sigtimedwait semtimedop pipe cond \
		accept sigsuspend queue malloc cancel create fork signal_stack small_stack
}

answers_in_full() {
	grep -qE '^(alive|stuck)' "$victim_out" || is_gone "$victim_pid"
}

# All threads go on, with right results, and, unless $1 says so, without an EINTR.
is_unharmed() { # [killed]
	victim_say report
	victim_say alive
	wait_until 60 answers_in_full
	grep -q '^alive' "$victim_out" || fail "$(cat "$victim_out")"
	! grep -E '^report .* wrong=[^0]|^WRONG' "$victim_out" || fail 'harmed'
	[ -n "${1:-}" ] || ! grep -E '^report .* eintr=[^0]' "$victim_out" || fail 'a wait was ended'
	victim_threads_vary=1 victim_check
}

@test "syscalls --engine=ptrace: threads that wait, signal, are born, end, fork" {
	local victim seconds
	for victim in $(runnable torture torture-32); do
		# shellcheck disable=SC2046
		start_victim $victim $(torture_kinds)
		# Longer where the victim gets little of the CPUs.
		for seconds in 1 10 45; do
			probe syscalls "$victim_pid" -d ${seconds}s --engine=ptrace --json
			status_is 0
			[ "$(json_get .events)" -le 100 ] || break
		done
		json '.events > 100 and .lost == 0'
		is_unharmed
		stop_victim
	done
}

@test "syscalls --engine=ptrace ends no wait, however often it begins and ends" {
	local victim
	for victim in $(runnable torture torture-32); do
		# shellcheck disable=SC2046
		start_victim $victim $(torture_kinds)
		for _ in {1..15}; do
			probe syscalls "$victim_pid" -d 30ms --engine=ptrace --json
			status_is 0
		done
		is_unharmed
		stop_victim
	done
}

@test "syscalls --engine=ptrace killed at any instant" {
	local kind done
	# shellcheck disable=SC2046
	start_victim torture $(torture_kinds)
	for kind in at random; do
		done=$("$BUILD/tests/torture/killer" $kind 6 "$victim_pid" \
			"$MEMPROBE" syscalls "$victim_pid" --engine=ptrace -d 20ms --json) || fail "$done"
		[[ $done == *failed=0* ]] || fail "$done"
	done
	# Who is killed between a stop and the repair of the wait that it ended cannot repair it.
	is_unharmed killed
}

@test "syscalls --engine=ptrace: what a signal has stopped stays so, and goes on by SIGCONT" {
	start_victim torture nanosleep=2 epoll=1 malloc=1 poll=1
	freeze "$victim_pid"
	probe syscalls "$victim_pid" -d 100ms --engine=ptrace --json
	status_is 0
	wait_until 60 threads_are T "$victim_pid"
	record_begin syscalls "$victim_pid" --engine=ptrace --json
	kill -CONT "$victim_pid"
	victim_say report
	wait_until 60 grep -q '^reported' "$victim_out"
	kill -STOP "$victim_pid"
	wait_until 60 threads_are t "$victim_pid"
	record_end
	wait_until 60 threads_are T "$victim_pid"
	kill -CONT "$victim_pid"
	is_unharmed
}

@test "syscalls --engine=ptrace: a target that runs another program, or ends" {
	start_victim exec_fork_exit
	record_begin syscalls "$victim_pid" --engine=ptrace --json
	victim_say exec
	record_wait
	status_is 0
	[[ $stderr == *'called exec(): the recording covers the old program'* ]] || fail "$stderr"
	record_begin syscalls "$victim_pid" --engine=ptrace --json
	victim_say exit
	record_wait
	status_is 0
}

@test "syscalls --engine=ptrace: the id of a thread that has ended comes again" {
	start_victim same_tid
	record_begin syscalls "$victim_pid" --engine=ptrace --json
	victim_say go
	victim_wait '^same'
	record_end
	status_is 0
	victim_check
	! grep -q '^refused' "$victim_out" || skip 'the ids of threads cannot be chosen here'
	[[ $(victim_truth same) != 0 ]] || fail 'no id came again'
}

# Of namespaces: in one of its own below memprobe's, which is not the first one either.
@test "syscalls of a process in a namespace of its own below memprobe's" {
	needs_tracepoints
	unshare -pf --mount-proc true || skip 'no namespaces'
	cd "$BATS_TEST_TMPDIR"
	mkfifo in
	# shellcheck disable=SC2016
	timeout "$(patience 60)" unshare -pf --mount-proc --kill-child bash -c '
		unshare -pf --kill-child "$1" <>in >out &
		until grep -q ^ready out; do sleep 0.05; done
		read -r pid _ <"/proc/$!/task/$!/children"
		"$2" syscalls "$pid" --engine=tracepoints --json -v >record 2>err &
		until grep -q "recording begins" err; do sleep 0.05; done
		echo go >in
		until grep -q ^done out; do sleep 0.05; done
		kill -INT $!
		wait $!' - "$VICTIMS/mapcalls" "$MEMPROBE" 3>&- || fail "$(cat err)"
	output=$(cat record)
	json '.engine == "tracepoints" and .events > 20 and .lost == 0'
}
