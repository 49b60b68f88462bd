#!/usr/bin/env bats
# What happens to a thread during a call must have the effect that it has without one.

load lib

ended() {
	grep -q '^ended' "$victim_out"
}

# The call's stub is on its way as long as memprobe waits for slow().
in_call() {
	[ "$(awk '/^TracerPid:/ { print $2 }' "/proc/$victim_pid/status")" != 0 ]
}

@test "a signal during a call ends the wait that it interrupts" {
	local bits call
	for bits in "" -32; do
		for call in pause poll epoll read nanosleep; do
			start_victim interrupted$bits $call
			memprobe call "$victim_pid" 'slow()' >/dev/null 3>&- &
			wait_until 5 in_call
			kill -TERM "$victim_pid"
			wait $! || fail "$call: the call failed"
			wait_until 5 ended || fail "$call$bits goes on waiting"
			grep -q '^ended -1 errno 4 handled 1$' "$victim_out" || fail "$(cat "$victim_out")"
			victim_check
			stop_victim
		done
	done
}

@test "a signal from outside is not taken for a fault of the called function" {
	start_victim interrupted none
	memprobe call "$victim_pid" 'slow()' >/dev/null 2>&1 3>&- &
	wait_until 5 in_call
	kill -ABRT "$victim_pid"
	wait $! || true
	wait_until 5 is_gone "$victim_pid"
}

@test "the stub stays while a function with a large frame has yet to return to it" {
	local prober
	start_victim interrupted none
	memprobe call "$victim_pid" 'deep()' >/dev/null 2>&1 3>&- &
	prober=$!
	wait_until 5 in_call
	sleep 0.1
	kill -9 $prober
	wait $prober || true
	probe call "$victim_pid" 'quick()'
	sleep 1.2
	is_gone "$victim_pid" && fail "the victim is dead"
	probe call "$victim_pid" 'quick()'
	status_is 0
	victim_stub_may_stay=1 victim_check
}

@test "the stub stays while a call that took too long goes on" {
	start_victim interrupted none
	probe call "$victim_pid" 'deep()' --timeout 100ms
	status_is 7
	probe call "$victim_pid" 'quick()'
	sleep 1.2
	is_gone "$victim_pid" && fail "the victim is dead"
	victim_stub_may_stay=1 victim_check
}

@test "handlers with large frames run on top of a call" {
	local sender
	start_victim interrupted none
	(for _ in {1..150}; do kill -ALRM "$victim_pid" 2>/dev/null; sleep 0.007; done) 3>&- &
	sender=$!
	for _ in {1..15}; do
		probe call "$victim_pid" 'quick()'
		[ "$status" -eq 0 ] || [ "$status" -eq 7 ] || fail "status $status: $stderr"
	done
	wait $sender
	victim_stub_may_stay=1 victim_check
}

@test "another mount of /proc is no way around the lock" {
	skip_unless_root
	start_victim interrupted none
	memprobe call "$victim_pid" 'slow()' >/dev/null 2>&1 3>&- &
	wait_until 5 in_call
	run timeout 20 unshare -m sh -c "mount -t proc proc /proc && '$MEMPROBE' call $victim_pid 'quick()' --timeout 100ms"
	[ "$status" -eq 7 ] || [ "$status" -eq 4 ] || fail "status $status: $output"
	wait $!
	victim_check
}

@test "malloc_stats is refused where its output would raise SIGXFSZ" {
	start_command "$VICTIMS/interrupted" none
	prlimit --pid "$victim_pid" --fsize=0:0
	probe mallinfo "$victim_pid" --stats
	status_is 5
	[[ $stderr == *RLIMIT_FSIZE* ]]
	victim_check
}
