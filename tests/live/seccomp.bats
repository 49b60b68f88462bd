#!/usr/bin/env bats
# Code is run in a filtered process only if its filters let all of it through.

load lib
load kill_series

setup() {
	skip_unless_root
	[ "$(awk '/^Seccomp:/ { print $2 }' /proc/self/status)" = 0 ] || skip "runs under a filter"
}

refused() { # WORDS COMMAND...: 4, and the victim lives
	local words=$1
	shift
	probe "$@"
	status_is 4
	[[ $stderr == *"$words"* ]] || fail "$stderr"
	victim_check
	[ -n "$(ping)" ]
}

@test "strict mode: nothing is run" {
	for variant in $(runnable filtered filtered-32); do
		start_victim $variant strict
		refused strict call "$victim_pid" 'getpid()'
		refused strict trim "$victim_pid"
		refused strict mallinfo "$victim_pid" --method=call
	done
}

@test "a filter that kills on what the stub needs" {
	for variant in $(runnable filtered filtered-32); do
		start_victim $variant sigprocmask
		refused "kills the process on rt_sigprocmask" call "$victim_pid" 'getpid()'
		refused "kills the process on rt_sigprocmask" trim "$victim_pid"
		stop_victim
		start_victim $variant two
		refused "kills the process on rt_sigprocmask" call "$victim_pid" 'getpid()'
	done
}

@test "a filter that kills on what malloc may do" {
	for variant in $(runnable filtered filtered-32); do
		for call in mmap brk madvise; do
			start_victim $variant $call
			refused "kills the process on $call" trim "$victim_pid"
			refused "kills the process on" mallinfo "$victim_pid" --method=call
			stop_victim
		done
	done
}

@test "a container's list of allowed calls lets it through" {
	for variant in $(runnable filtered filtered-32); do
		start_victim $variant container
		probe call "$victim_pid" 'getpid()' --json
		status_is 0
		json '.returned == $pid' --arg pid "$(printf '0x%x' "$victim_pid")"
		probe trim "$victim_pid"
		status_is 0
		victim_check
		[ -n "$(ping)" ]
	done
}

# ---- models of real sandboxes (tests/victims/sandboxed.c) ----

start_sandboxed() { # VICTIM MODEL
	start_victim "$1" "$2"
	victim_wait '^locked' >/dev/null
}

counts() { # prints how many waits of each thread have ended
	local before
	before=$(grep -c '^each' "$victim_out")
	victim_say each
	wait_until 60 has_counts $((before + 1))
	grep '^each' "$victim_out" | tail -1
}

has_counts() {
	[ "$(grep -c '^each' "$victim_out")" -ge "$1" ]
}

all_have_gone_on() { # COUNTS
	local now i
	read -ra now <<<"$(counts)"
	for ((i = 1; i < ${#now[@]}; i++)); do
		# shellcheck disable=SC2206
		local before=($1)
		[ "${now[i]}" -gt "${before[i]}" ] || return 1
	done
}

# Each of its threads waits on, and again.
every_thread_works() {
	victim_check || return
	wait_until 60 all_have_gone_on "$(counts)" || fail "a thread stands still: $(counts)" || return
	victim_check
}

sandboxed_commands=(stack threads heap "heap --no-fork" leaks trim mallinfo "mallinfo --method=call"
	"call getpid()" "find xyzzy --in heap" "core -o $BATS_TEST_TMPDIR/core" "allocs -d 200ms"
	"faults -d 200ms" "syscalls -d 200ms" "syscalls -d 200ms --engine=ptrace")

some_commands=(stack heap trim "mallinfo --method=call")

# 4: what runs code there is refused.
spared_by() { # VICTIM MODEL COMMAND...
	local command words
	start_sandboxed "$1" "$2"
	for command in "${@:3}"; do
		read -ra words <<<"$command"
		probe "${words[0]}" "$victim_pid" "${words[@]:1}"
		[[ $status == [04] ]] || fail "$1 $2: $command: $status" "$stderr"
		[[ $status == 0 || $stderr == *seccomp* ]] || fail "$1 $2: $command" "$stderr"
		every_thread_works || fail "$1 $2: $command" "$stderr"
	done
	stop_victim
}

@test "every command on what runs in OpenSSH's, Chromium's and nsjail's sandbox" {
	for model in openssh chromium nsjail; do
		spared_by sandboxed $model "${sandboxed_commands[@]}"
	done
}

@test "commands on what runs under systemd's and Docker's filters" {
	for model in systemd systemd-errno docker; do
		spared_by sandboxed $model "${some_commands[@]}" "allocs -d 100ms"
	done
}

@test "commands on what runs in such sandboxes with 32 bits" {
	spared_by sandboxed-32 openssh "${some_commands[@]}"
	spared_by sandboxed-32 nsjail "${some_commands[@]}"
}

@test "whatever the filter does on restart_syscall, waits go on" {
	for action in kill thread errno trap trace notify log; do
		spared_by sandboxed restart-$action stack heap
	done
	spared_by sandboxed-32 restart-kill stack "syscalls -d 100ms --engine=ptrace"
	spared_by sandboxed-32 restart-errno stack heap
}

@test "threads with filters of their own, and filters that come while they wait" {
	spared_by sandboxed mixed "${some_commands[@]}"
	spared_by sandboxed late "${some_commands[@]}"
}

@test "filters that a user may not read" {
	for model in nsjail docker; do
		start_victim_as_user sandboxed $model
		victim_wait '^locked' >/dev/null
		for command in stack heap trim; do
			read -ra words <<<"$command"
			run --separate-stderr as_user timeout "$(patience 60)" "$user_memprobe" "${words[0]}" \
				"$victim_pid" "${words[@]:1}"
			[[ $status == [04] ]] || fail "$model: $command: $status" "$stderr"
			every_thread_works || fail "$model: $command"
		done
		stop_victim
	done
}

# ---- killed at work ----

# Between a thread's stop and its repair, a SIGKILL of memprobe must not have the thread make the call
# that its filter kills for.
@test "killed at its system calls and at random, memprobe leaves what sleeps under such a filter alive" {
	local killed model command
	for model in nsjail openssh; do
		start_sandboxed sandboxed $model
		for command in stack "mallinfo --method=call"; do
			[[ $model != openssh || $command == stack ]] || continue
			read -ra words <<<"$command"
			for kind in at random; do
				killed=$("$BUILD/tests/torture/killer" $kind "$(count 25 1000)" "$victim_pid" \
					"$MEMPROBE" "${words[0]}" "$victim_pid" "${words[@]:1}") ||
					fail "$model $command $kind: $killed"
				[[ $killed != *kills=0* ]] || fail "$killed"
				victim_stub_may_stay=1 every_thread_works || fail "$model $command $kind"
			done
		done
		stop_victim
	done
}

worker_of() { # PID: the child that memprobe works in
	children_of "$1" | grep -m 1 .
}

has_worker() {
	[ -n "$(worker_of "$1")" ]
}

@test "signals reach memprobe where it works in a child, and its status is the child's" {
	local pid worker
	start_sandboxed sandboxed docker
	"$MEMPROBE" allocs "$victim_pid" -d 60s -v >"$BATS_TEST_TMPDIR/out" 2>"$BATS_TEST_TMPDIR/err" 3>&- &
	pid=$!
	wait_until 60 grep -q 'recording begins' "$BATS_TEST_TMPDIR/err"
	worker=$(worker_of "$pid")
	[ -n "$worker" ]
	kill -INT "$pid"
	wait "$pid"
	is_gone "$worker"
	grep -q total "$BATS_TEST_TMPDIR/out"
	run memprobe call "$victim_pid" 'no_such_function()'
	[ "$status" -ne 0 ]
	every_thread_works

	"$MEMPROBE" allocs "$victim_pid" -d 60s -v >/dev/null 2>"$BATS_TEST_TMPDIR/err" 3>&- &
	pid=$!
	wait_until 60 grep -q 'recording begins' "$BATS_TEST_TMPDIR/err"
	worker=$(worker_of "$pid")
	kill -KILL "$pid"
	wait "$pid" || true
	wait_until 60 is_gone "$worker"
}

@test "a recording by ptrace whose memprobe is killed lets go of all threads" {
	start_sandboxed sandboxed nsjail
	"$MEMPROBE" syscalls "$victim_pid" --engine=ptrace -d 60s >/dev/null 2>&1 3>&- &
	local pid=$!
	wait_until 60 has_worker "$pid"
	wait_until 60 grep -q '^TracerPid:[[:space:]]*[1-9]' "/proc/$victim_pid/status"
	kill -KILL "$pid"
	wait "$pid" || true
	wait_until 60 grep -q '^TracerPid:[[:space:]]*0' "/proc/$victim_pid/status"
	every_thread_works
}
