#!/usr/bin/env bats
# Waits that a stop ends with EINTR (epoll_wait) go on as if nothing had been.

load lib

@test "a single-threaded epoll server sees no EINTR over 100 calls" {
	for victim in $(runnable epoll_only epoll_only-32); do
		start_victim $victim
		for _ in {1..100}; do
			memprobe call "$victim_pid" 'getppid()' >/dev/null
		done
		! grep WRONG "$victim_out"
		victim_check
		stop_victim
	done
}

@test "no signal is missed that comes while a wait is put back" {
	local victim i
	for victim in $(runnable masked_wait masked_wait-32); do
		start_victim "$victim"
		for i in {1..40}; do
			probe stack "$victim_pid"
			status_is 0
			probe call "$victim_pid" 'getppid()'
			status_is 0
		done
		probe syscalls "$victim_pid" --engine=ptrace -d 200ms
		status_is 0
		victim_check
		stop_victim
	done
}

# At every system call from the first stop on: those between a stop and its repair are among them.
@test "no wait ends with EINTR when memprobe is killed" {
	local victim kind killed
	for victim in $(runnable epoll_only epoll_only-32); do
		start_victim "$victim"
		for kind in "at 120" "random 40"; do
			# shellcheck disable=SC2086
			killed=$("$BUILD/tests/torture/killer" $kind "$victim_pid" \
				"$MEMPROBE" stack "$victim_pid") || fail "$kind: $killed"
			[[ $killed != *kills=0* ]] || fail "$killed"
			! grep WRONG "$victim_out" || fail "$kind: $killed"
		done
		victim_check
		stop_victim
	done
}
