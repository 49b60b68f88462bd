#!/usr/bin/env bats
# While the fork of a snapshot is there: the target can do all that it could do without, and the fork
# ends with it. `core` into a pipe that nobody reads keeps the fork for as long as a test wants it.

load lib

has_fork() {
	[ -n "$(cat "/proc/$victim_pid/task/"*/children 2>/dev/null)" ]
}

fork_begin() { # [PID]
	mkfifo "$BATS_TEST_TMPDIR/pipe"
	exec {pipe}<>"$BATS_TEST_TMPDIR/pipe"
	timeout -k 5 "$(patience 120)" "$MEMPROBE" core "${1:-$victim_pid}" -o - >"$BATS_TEST_TMPDIR/pipe" \
		2>"$BATS_TEST_TMPDIR/core.err" {pipe}>&- 3>&- &
	reader=$!
	wait_until 60 has_fork || fail "no fork" "$(cat "$BATS_TEST_TMPDIR/core.err")"
	fork_pid=$(cat "/proc/$victim_pid/task/"*/children)
	fork_pid=${fork_pid%% *}
}

# Reads what core writes until it has ended; its status.
fork_end() {
	cat <&"$pipe" >/dev/null 3>&- &
	local drain=$!
	status=0
	wait "$reader" || status=$?
	kill "$drain"
	wait "$drain" 2>/dev/null || true
	exec {pipe}>&-
}

fork_is_gone() {
	[ ! -e "/proc/$fork_pid" ] || [ "$(sed 's/.*) //; s/ .*//' "/proc/$fork_pid/stat")" = Z ]
}

@test "what the target closes and unlocks is free, and its record lock stays" {
	start_victim sharing "$BATS_TEST_TMPDIR"
	fork_begin
	[ -z "$(ls "/proc/$fork_pid/fd")" ]
	victim_say close
	[ "$(victim_wait '^free')" = "free 1 1 1" ]
	has_fork
	fork_end
	[ "$status" -eq 0 ]
	victim_check
	victim_say children
	[ "$(victim_wait '^children')" = "children 0" ]
}

@test "a process with one thread enters a mount namespace" {
	skip_unless_root
	start_victim sharing "$BATS_TEST_TMPDIR"
	fork_begin
	victim_say setns
	[ "$(victim_wait '^setns')" = "setns 0" ]
	has_fork
	[ "$(readlink "/proc/$fork_pid/cwd")" = / ]
	fork_end
	[ "$status" -eq 0 ]
	victim_check
}

@test "the fork ends with the target" {
	start_victim sharing "$BATS_TEST_TMPDIR"
	fork_begin
	kill -KILL "$victim_pid"
	wait_until 30 fork_is_gone
	fork_end
	[ "$status" -eq 1 ]
	[[ $(cat "$BATS_TEST_TMPDIR/core.err") = *"$victim_pid has exited"* ]]
}

@test "a process that runs another program keeps its record lock, and no child" {
	start_victim sharing "$BATS_TEST_TMPDIR"
	fork_begin
	victim_say exec
	[ "$(victim_wait '^lock')" = "lock 1" ]
	wait_until 30 fork_is_gone
	fork_end
	[ "$status" -eq 1 ]
	[[ $(cat "$BATS_TEST_TMPDIR/core.err") = *"run another program"* ]]
	victim_say children
	[ "$(victim_wait '^children')" = "children 0" ]
}

@test "killed with its fork there, memprobe leaves no child" {
	start_victim sharing "$BATS_TEST_TMPDIR"
	fork_begin
	kill -KILL "$(children_of "$reader")"
	wait "$reader" || true
	wait_until 30 test ! -e "/proc/$fork_pid"
	victim_say close
	[ "$(victim_wait '^free')" = "free 1 1 1" ]
	victim_say children
	[ "$(victim_wait '^children')" = "children 0" ]
	run memprobe leaks "$victim_pid"
	[ "$status" -eq 0 ]
	victim_stub_may_stay=1 victim_check
}

@test "a signal ends what reads the fork, and nothing is left" {
	start_victim sharing "$BATS_TEST_TMPDIR"
	for signal in INT:130 TERM:143 HUP:129; do
		rm -f "$BATS_TEST_TMPDIR/pipe"
		fork_begin
		kill -"${signal%:*}" "$(children_of "$reader")"
		wait_until 30 is_gone "$reader"
		status=0
		wait "$reader" || status=$?
		[ "$status" -eq "${signal#*:}" ] || fail "$signal: exit status $status"
		[ ! -s "$BATS_TEST_TMPDIR/core.err" ] || fail "$(cat "$BATS_TEST_TMPDIR/core.err")"
		exec {pipe}>&-
		fork_is_gone
		victim_check
	done
	victim_say children
	[ "$(victim_wait '^children')" = "children 0" ]
}

# Whenever the signal comes: all of the result, or nothing and the signal's status.
ends_by_signal() { # SECONDS COMMAND ARG...
	local delay=$1 out=$BATS_TEST_TMPDIR/out child
	shift
	rm -rf "$BATS_TEST_TMPDIR/files"
	mkdir "$BATS_TEST_TMPDIR/files"
	(cd "$BATS_TEST_TMPDIR/files" && exec "$MEMPROBE" "$@" >"$out" 2>"$out.err" 3>&-) &
	child=$!
	sleep "$delay"
	kill -TERM "$child" 2>/dev/null || true
	status=0
	wait "$child" || status=$?
	if [ "$status" -eq 143 ]; then
		[ ! -s "$out" ] || fail "$1: $(head -c 200 "$out")"
		[ -z "$(ls -A "$BATS_TEST_TMPDIR/files")" ] || fail "$1 leaves a file"
	else
		[ "$status" -eq 0 ] || fail "$1: exit status $status" "$(cat "$out.err")"
	fi
}

@test "a signal at any time gives all of a result or nothing" {
	start_victim sharing "$BATS_TEST_TMPDIR"
	for delay in 0.005 0.02 0.05; do
		ends_by_signal $delay leaks "$victim_pid" --json
		ends_by_signal $delay leaks "$victim_pid" --no-fork
		ends_by_signal $delay heap "$victim_pid" --by content
		ends_by_signal $delay heap "$victim_pid" -o x.svg
		ends_by_signal $delay mallinfo "$victim_pid"
		ends_by_signal $delay strings "$victim_pid"
		ends_by_signal $delay core "$victim_pid" -o x
		ends_by_signal $delay dump "$victim_pid" heap -o x
		ends_by_signal $delay trim "$victim_pid" --dry-run
		ends_by_signal $delay stack "$victim_pid"
	done
	victim_stub_may_stay=1 victim_check
}
