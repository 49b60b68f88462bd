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
