#!/usr/bin/env bats
# Threads that had better not be stopped, or cannot be.

load lib

in_vfork() {
	grep -q '^State:[[:space:]]*D' "/proc/$victim_pid/status"
}

@test "who sleeps uninterruptibly has not exited: 7, and where it sleeps" {
	for victim in $(runnable in_vfork in_vfork-32); do
		start_victim $victim
		wait_until 60 in_vfork
		for command in stack "mallinfo --method=call" trim "allocs -d 1" leaks heap \
			"core -o $BATS_TEST_TMPDIR/core" "call getppid()"; do
			# shellcheck disable=SC2086
			set -- $command
			# Uprobes, which stop nobody.
			[ "$victim $1" = "in_vfork-32 allocs" ] && continue
			[ "$1" = call ] && set -- call "$victim_pid" 'getppid()' ||
				set -- "$1" "$victim_pid" "${@:2}"
			probe "$@" --timeout 300ms
			status_is 7
			[[ $stderr == *"sleeps uninterruptibly in vfork()"* ]] || fail "$stderr"
			in_vfork || fail "$*: it does not sleep any more"
		done
		[ ! -e "$BATS_TEST_TMPDIR/core" ]
		victim_say go
		victim_wait 'vfork over'
		victim_check
		probe stack "$victim_pid"
		status_is 0
		stop_victim
	done
}

@test "one thread of many that sleeps uninterruptibly is left out, with a word" {
	start_victim in_vfork threads
	wait_until 60 in_vfork
	probe stack "$victim_pid" --json
	status_is 6
	[[ $stderr == *"thread $victim_pid is left out: it sleeps uninterruptibly in vfork()"* ]] ||
		fail "$stderr"
	json '.threads | length == 1'
	victim_say go
	victim_wait 'vfork over'
	victim_check
}

# Half of each transfer has been done, and its thread sleeps in it.
start_transfers() {
	start_victim "$1"
	settle
}

finish_transfers() {
	victim_say finish
	victim_wait '^finished'
	! grep WRONG "$victim_out"
}

@test "no transfer is cut short by what needs no registers" {
	for victim in $(runnable transfers transfers-32); do
		start_transfers $victim
		for command in heap "heap --by content" mallinfo "mallinfo --method=call" threads maps \
			trim strings; do
			# shellcheck disable=SC2086
			set -- $command
			probe "$1" "$victim_pid" "${@:2}"
			status_is 0
		done
		probe call "$victim_pid" 'getppid()'
		status_is 0
		victim_check
		finish_transfers
		stop_victim
	done
}

@test "allocs begins in no transfer: 7, and where one is" {
	start_transfers transfers
	probe allocs "$victim_pid" -d 300ms --timeout 1s
	status_is 7
	[[ $stderr == *"which a stop would cut short"* ]] || fail "$stderr"
	finish_transfers
}

@test "no transfer is cut short where uprobes record: 7" {
	for victim in $(runnable transfers transfers-32); do
		start_transfers $victim
		probe allocs "$victim_pid" -d 100ms --engine=uprobe --timeout 1s
		[ "$status" -ne 4 ] || skip "uprobes are not permitted here"
		status_is 7
		[[ $stderr == *"which a stop would cut short"* ]] || fail "$stderr"
		finish_transfers
		stop_victim
	done
}

# Killed with its stub in the target; who comes next has to know whether a thread is in there.
@test "no transfer is cut short where a memprobe was killed" {
	local killed
	for victim in $(runnable transfers transfers-32); do
		start_transfers $victim
		killed=$("$BUILD/tests/torture/killer" at 60 "$victim_pid" \
			"$MEMPROBE" call "$victim_pid" 'getppid()') || fail "$killed"
		[[ $killed != *kills=0* ]] || fail "$killed"
		probe heap "$victim_pid"
		status_is 0
		finish_transfers
		stop_victim
	done
}

# The first recvmmsg() returns short, as after any stop; the error 512 that the kernel keeps for the
# socket's next call is not to be seen.
@test "a recvmmsg that a stop has cut short leaves no error for the next call" {
	for victim in $(runnable transfers transfers-32); do
		start_transfers $victim
		probe stack "$victim_pid"
		status_is 0
		victim_say messages
		victim_wait '^received'
		grep -q '^WRONG recvmmsg: ' "$victim_out" || fail "it was not cut short"
		! grep '^WRONG.*the second time' "$victim_out" || fail "an error was left"
		stop_victim
	done
}

@test "--max-pause counts threads, in every command that stops them all: 7, and what would do" {
	start_victim threads 300
	for command in stack leaks heap "core -o $BATS_TEST_TMPDIR/core" "allocs -d 1 --engine=agent" \
		"syscalls -d 1 --engine=ptrace"; do
		# shellcheck disable=SC2086
		probe $command "$victim_pid" --max-pause 5ms
		status_is 7
		[[ $stderr == *"cannot stop $victim_pid for "*"--max-pause is 5.0 ms"*"hint: --max-pause "* ]] ||
			fail "$stderr"
	done
	[ ! -e "$BATS_TEST_TMPDIR/core" ]
	probe stack "$victim_pid" --max-pause 5ms --tid "$victim_pid"
	status_is 0
	probe stack "$victim_pid" --json --max-pause 1m
	json '.threads | length == 301'
	victim_check
}

# All are still in the call that each is in: no wait is ended by how many there are.
@test "of many threads no wait ends, whatever stops them" {
	start_victim threads 1000
	for command in stack leaks "core -o $BATS_TEST_TMPDIR/core" "syscalls -d 300ms --engine=ptrace"; do
		# shellcheck disable=SC2086
		probe $command "$victim_pid" --max-pause 1m
		[ "$status" -eq 0 ] || status_is 6
		victim_check
	done
}

# A control group of version 2, where one may be made.
make_group() {
	local mount
	mount=$(findmnt -n -t cgroup2 -o TARGET | head -1)
	[ -n "$mount" ] || skip "no cgroup2 is mounted"
	mkdir "$mount/memprobe-test-$$" 2>/dev/null || skip "no control group may be made"
	group=$mount/memprobe-test-$$
	[ -e "$group/cgroup.freeze" ] || skip "this kernel freezes no control group"
}

teardown() {
	[ -z "${group:-}" ] || echo 0 >"$group/cgroup.freeze" || true
	end_everything
	[ -z "${group:-}" ] || wait_until 60 rmdir "$group" 2>/dev/null
}

@test "a process that its control group has frozen: nothing is run in it, at once and with the reason" {
	make_group
	start_victim idle
	echo "$victim_pid" >"$group/cgroup.procs"
	echo 1 >"$group/cgroup.freeze"
	wait_until 60 grep -q 'frozen 1' "$group/cgroup.events"
	for command in trim "mallinfo --method=call" "allocs -d 1 --engine=agent"; do
		# shellcheck disable=SC2086
		probe $command "$victim_pid" --timeout 30s
		status_is 7
		[[ $stderr == *"it is frozen by its control group"* ]] || fail "$stderr"
	done
	probe stack "$victim_pid"
	status_is 0
	echo 0 >"$group/cgroup.freeze"
	settle
	victim_check
}
