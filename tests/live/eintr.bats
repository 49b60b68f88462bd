#!/usr/bin/env bats
# Waits that a stop ends with EINTR (epoll_wait) go on as if nothing had been.

load lib

@test "a single-threaded epoll server sees no EINTR over 100 calls" {
	for victim in epoll_only epoll_only-32; do
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
	for victim in masked_wait masked_wait-32; do
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
