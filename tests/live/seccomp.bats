#!/usr/bin/env bats
# Code is run in a filtered process only if its filters let all of it through.

load lib

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
	for variant in filtered filtered-32; do
		start_victim $variant strict
		refused strict call "$victim_pid" 'getpid()'
		refused strict trim "$victim_pid"
		refused strict mallinfo "$victim_pid" --method=call
	done
}

@test "a filter that kills on what the stub needs" {
	for variant in filtered filtered-32; do
		start_victim $variant sigprocmask
		refused "kills the process on rt_sigprocmask" call "$victim_pid" 'getpid()'
		refused "kills the process on rt_sigprocmask" trim "$victim_pid"
		stop_victim
		start_victim $variant two
		refused "kills the process on rt_sigprocmask" call "$victim_pid" 'getpid()'
	done
}

@test "a filter that kills on what malloc may do" {
	for variant in filtered filtered-32; do
		for call in mmap brk madvise; do
			start_victim $variant $call
			refused "kills the process on $call" trim "$victim_pid"
			refused "kills the process on" mallinfo "$victim_pid" --method=call
			stop_victim
		done
	done
}

@test "a container's list of allowed calls lets it through" {
	for variant in filtered filtered-32; do
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
