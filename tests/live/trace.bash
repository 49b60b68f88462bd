# Recordings by the library, with tests/torture/trace_loop.c: `load trace` after `load lib`.
#
#	trace_begin COMMAND...	on the victim, in the background, until it has attached; its output is
#				$trace_out
#	trace_go		has it go on from `wait`, and waits for its end; trace_wait: only that
#
#	tell COMMAND REGEX	a command for the victim, and its answer
#	runs_for_rounds COUNT	waits until the victim has worked that much longer

TRACE=$BUILD/tests/torture/trace_loop

trace_begin() {
	trace_out=$BATS_TEST_TMPDIR/trace.out
	trace_in=$BATS_TEST_TMPDIR/trace.in
	rm -f "$trace_in"
	# What a former one said is not to be taken for this one's.
	: >"$trace_out"
	mkfifo "$trace_in"
	exec {trace_fd}<>"$trace_in"
	"$TRACE" "$victim_pid" "$@" <"$trace_in" >"$trace_out" 2>&1 3>&- &
	trace_pid=$!
	ends_with "$trace_pid"
	wait_until 60 trace_has_begun || fail "$(cat "$trace_out")"
	grep -q ^attached "$trace_out" || fail "$(cat "$trace_out")"
}

trace_has_begun() {
	grep -qE '^(attached|error)' "$trace_out" || is_gone "$trace_pid"
}

trace_go() {
	echo >&"$trace_fd"
	trace_wait
}

trace_wait() {
	wait "$trace_pid" || fail "$(cat "$trace_out")"
}

victim_count_of() { # REGEX
	grep -cE "$1" "$victim_out" || true
}

more_than() { # REGEX COUNT
	[ "$(victim_count_of "$1")" -gt "$2" ]
}

tell() {
	local before
	before=$(victim_count_of "$2")
	victim_say "$1"
	wait_until 60 more_than "$2" "$before" || fail "no $2 after $1" "$(tail -3 "$victim_out")"
}

runs_for_rounds() {
	local rounds
	rounds=$(ping)
	wait_until 60 has_progressed $((rounds + $1))
}
