#!/usr/bin/env bats
# tests/run.sh: what it counts, and that it can fail.

load lib

program() { # NAME, its output, its exit status
	printf '#!/bin/sh\ncat <<"EOF"\n%s\nEOF\nexit %s\n' "$2" "$3" >"$BATS_TEST_TMPDIR/$1"
	chmod +x "$BATS_TEST_TMPDIR/$1"
}

suite() {
	run "$ROOT/tests/run.sh" "${@/#/$BATS_TEST_TMPDIR/}"
}

@test "sums up passes and failures of several programs" {
	program good $'1..2\nok 1 - a\nok 2 - b\n# ok - group' 0
	program bad $'1..2\nok 1 - a\nnot ok 2 - b\n# why' 1
	suite good bad
	[ "$status" -ne 0 ]
	[ "${lines[-1]}" = "3 passed, 1 failed" ]
	[[ $output = *"# why"* ]]
	suite good
	[ "$status" -eq 0 ]
	[ "${lines[-1]}" = "2 passed, 0 failed" ]
}

@test "tests that were planned but did not report have failed" {
	program crash $'1..3\nok 1 - a' 139
	suite crash
	[ "$status" -ne 0 ]
	[ "${lines[-1]}" = "1 passed, 2 failed" ]
}

@test "a program that fails after its last test has failed" {
	program leaky $'1..1\nok 1 - a' 23
	suite leaky
	[ "$status" -ne 0 ]
	[ "${lines[-1]}" = "1 passed, 1 failed" ]
}

@test "skipped tests are neither" {
	program skips $'1..3\nok 1 - a\nok 2 - b # skip no root\nnot ok 3 # SKIP c' 0
	suite skips
	[ "$status" -eq 0 ]
	[ "${lines[-1]}" = "1 passed, 0 failed" ]
}

@test "nothing run is a failure" {
	suite
	[ "$status" -ne 0 ]
	[ "${lines[-1]}" = "0 passed, 0 failed" ]
}

@test "a test that hangs is ended and has failed" {
	printf '#!/bin/sh\necho 1..2; echo "ok 1 - a"; exec sleep 1000\n' >"$BATS_TEST_TMPDIR/hangs"
	chmod +x "$BATS_TEST_TMPDIR/hangs"
	CHECK_TIMEOUT=4 suite hangs
	[ "$status" -ne 0 ]
	[ "${lines[-1]}" = "1 passed, 1 failed" ]
	[[ $output = *'stopped after '*' s, in:'* ]]
}

@test "of a file that hangs, the test that does is named, and the others have failed" {
	printf '@test "%s" {\n\ttrue\n}\n' good 'one that hangs' never >"$BATS_TEST_TMPDIR/hangs.bats"
	printf '#!/bin/sh\necho 1..3; echo "ok 1 good"; exec sleep 1000\n' >"$BATS_TEST_TMPDIR/bats"
	chmod +x "$BATS_TEST_TMPDIR/bats"
	PATH=$BATS_TEST_TMPDIR:$PATH CHECK_TIMEOUT=4 suite hangs.bats
	[ "$status" -ne 0 ]
	[ "${lines[-1]}" = "1 passed, 2 failed" ]
	[[ $output = *'stopped after '*' s, in: "one that hangs"'* ]]
}
