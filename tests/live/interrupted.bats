#!/usr/bin/env bats
# What happens to a thread during a call must have the effect that it has without one.

load lib

ended() {
	grep -q '^ended' "$victim_out"
}

# slow() or deep() is called, and at work. It ends when it is sent SIGUSR1, or another signal.
call_begins() { # FUNCTION
	timeout -k 5 "$(patience 120)" "$MEMPROBE" call "$victim_pid" "$1()" --timeout 60 >/dev/null 2>&1 3>&- &
	caller=$!
	victim_wait "^in $1\$" >/dev/null
}

# Its handler runs as soon as the thread has come out of the stub.
has_returned() {
	kill -USR1 "$victim_pid"
	victim_wait '^told'
}

@test "a signal during a call ends the wait that it interrupts" {
	local victim call
	for victim in $(runnable interrupted interrupted-32); do
		for call in pause poll epoll read nanosleep; do
			start_victim "$victim" $call
			call_begins slow
			kill -TERM "$victim_pid"
			wait $caller || fail "$call: the call failed"
			wait_until 60 ended || fail "$victim $call goes on waiting"
			grep -q '^ended -1 errno 4 handled 1$' "$victim_out" || fail "$(cat "$victim_out")"
			victim_check
			stop_victim
		done
	done
}

@test "a signal from outside is not taken for a fault of the called function" {
	start_victim interrupted none
	call_begins slow
	kill -ABRT "$victim_pid"
	wait $caller || true
	wait_until 60 is_gone "$victim_pid"
}

@test "the stub stays while a function with a large frame has yet to return to it" {
	start_victim interrupted none
	call_begins deep
	# memprobe, not timeout.
	kill -9 "$(children_of $caller)"
	wait $caller || true
	probe call "$victim_pid" 'quick()'
	has_returned
	is_gone "$victim_pid" && fail "the victim is dead"
	probe call "$victim_pid" 'quick()'
	status_is 0
	victim_stub_may_stay=1 victim_check
}

@test "the stub stays while a call that took too long goes on" {
	local ms
	start_victim interrupted none
	# A call that has not begun in so short a time is called off.
	for ms in 100 3000 30000; do
		probe call "$victim_pid" 'deep()' --timeout ${ms}ms
		status_is 7
		! grep -q '^in deep' "$victim_out" || break
	done
	probe call "$victim_pid" 'quick()'
	has_returned
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
	call_begins slow
	run timeout "$(patience 60)" unshare -m sh -c "mount -t proc proc /proc && '$MEMPROBE' call $victim_pid 'quick()' --timeout 100ms"
	[ "$status" -eq 7 ] || [ "$status" -eq 4 ] || fail "status $status: $output"
	kill -USR1 "$victim_pid"
	wait $caller
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

@test "a shell that has handled signals is used, whatever they left on its stack" {
	command -v bash python3 >/dev/null || skip "no bash or no python3"
	run timeout "$(patience 300)" python3 "$BATS_TEST_DIRNAME/shell.py" "$MEMPROBE"
	status_is 0
}
