#!/usr/bin/env bats
# allocs on programs that allocate in odd ways: their own truth, and nothing left behind.

load lib

# Sizes that nothing else in the victim has.
SIZES='--min-size 5001 --max-size 5900'

nothing_is_left() {
	! grep -E '/memfd:memprobe|^[0-9a-f]+-[0-9a-f]+ r-xp 00000000 00:00 0 *$' \
		"/proc/$victim_pid/maps" >&2
}

# What the victim has left behind after `go` is what was recorded.
is_exact() {
	local truth
	# shellcheck disable=SC2086
	record_begin allocs "$victim_pid" --sample 1 --engine=agent --json $SIZES
	victim_say go
	wait_until 60 grep -q ^truth "$victim_out" || fail "$(tail -3 "$victim_out")"
	record_end
	status_is 0
	truth=$(victim_wait '^truth')
	json '.lost == 0 and .totals.count == ($truth | split(" ")[1] | tonumber) and
		.totals.bytes == ($truth | split(" ")[2] | tonumber)' --arg truth "$truth" ||
		fail "$truth" "$(jq -c '[.lost, .totals, .counters]' <<<"$output")"
	nothing_is_left
	! grep ^WRONG "$victim_out" >&2
	# shellcheck disable=SC2034
	victim_threads_vary=1
	victim_check
}

@test "threads that live for an instant, 10,000 of them" {
	start_victim alloc_odd threads 10000
	is_exact
}

@test "coroutines, with stacks in the heap and elsewhere" {
	start_victim alloc_odd coroutines
	is_exact
}

@test "a thread that waits in a hooked function" {
	start_victim alloc_odd blocked
	printf 'alloc odd_alloc size=arg0\nfree odd_free pointer=arg0\n' >"$BATS_TEST_TMPDIR/odd.pool"
	record_begin allocs "$victim_pid" --pool "$BATS_TEST_TMPDIR/odd.pool" --sample 1 --json \
		--timeout 1
	victim_say block
	victim_wait '^blocks'
	record_end
	[[ $stderr == *"is to return to a hooked function"* ]] || fail "$status" "$stderr"
	json '.remaining > 0'
	probe check "$victim_pid" --json
	json '.checks[] | select(.name == "agent") | .detail | contains(": idle,")'
	# It works on, passes through what is left, and comes out of it.
	victim_works
	victim_say unblock
	victim_wait '^unblocked'
	probe allocs "$victim_pid" --sample 1 --engine=agent -d 50ms --json
	status_is 0
	json '.remaining == 0'
	nothing_is_left
	victim_works
	! grep ^WRONG "$victim_out" >&2
	victim_threads_vary=1 victim_check
}

@test "code that was moved to anonymous memory" {
	start_victim alloc_odd remapped
	! grep -E 'r-xp .*(libc\.so|alloc_odd)' "/proc/$victim_pid/maps"
	record_begin allocs "$victim_pid" --sample 1 --engine=agent --json
	victim_works
	record_end
	status_is 0
	json '.counters.recorded > 0 and .counters.freed > 0'
	victim_works
	! grep ^WRONG "$victim_out" >&2
	victim_check
}

@test "a program that heaptrack records at the same time" {
	local library=/usr/lib/heaptrack/libheaptrack_preload.so
	[ -e "$library" ] || skip "heaptrack is not installed"
	start_command env "LD_PRELOAD=$library" "DUMP_HEAPTRACK_OUTPUT=$BATS_TEST_TMPDIR/raw" \
		"$VICTIMS/malloc_load" 2 4096 1000
	record_begin allocs "$victim_pid" --sample 1 --engine=agent --json
	victim_works
	record_end
	status_is 0
	json '.counters.recorded > 0 and .counters.freed > 0 and .lost == 0'
	json '[.sites[].frames[]] | any(. == "renew")'
	nothing_is_left
	victim_works
	! grep ^WRONG "$victim_out" >&2
	victim_check
	# What heaptrack writes goes on.
	[ "$(wc -c <"$BATS_TEST_TMPDIR/raw")" -gt 0 ]
}
