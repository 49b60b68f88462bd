#!/usr/bin/env bats
# Shared memory: nothing comes into being there by being read, and what others wrote is seen.

load lib

blocks_now() { # COUNT: the process's answer of that number
	victim_say blocks
	wait_until 60 said_blocks "$1"
	grep '^blocks' "$victim_out" | tail -n 1
}

said_blocks() {
	[ "$(grep -c '^blocks' "$victim_out")" -eq "$1" ]
}

rss() {
	sed -n 's/^VmRSS:[^0-9]*\([0-9]*\) kB/\1/p' "/proc/$victim_pid/status"
}

unharmed() {
	probe "$@"
	status_is 0
	count=$((count + 1))
	[ "$(blocks_now $count)" = "$before" ] || fail "$* made $(tail -n 1 "$victim_out") of $before"
	# A page or two of a library may have been looked at.
	[ $(($(rss) - rss_before)) -lt 4096 ] || fail "$*: $rss_before KiB became $(rss)"
}

@test "no command makes pages of shared memory" {
	start_victim shmholes
	count=1
	before=$(blocks_now 1)
	rss_before=$(rss)
	core=$BATS_TEST_TMPDIR/core
	read -r start end _ <<<"$(victim_truth file)"
	unharmed leaks "$victim_pid"
	unharmed leaks "$victim_pid" --no-fork
	unharmed leaks "$victim_pid" --retain "$(victim_truth block)"
	unharmed heap "$victim_pid"
	unharmed mallinfo "$victim_pid"
	unharmed maps "$victim_pid"
	unharmed stack "$victim_pid"
	unharmed find "$victim_pid" needle
	unharmed strings "$victim_pid"
	unharmed core "$victim_pid" -o "$core"
	unharmed core "$victim_pid" -o "$core" --full
	unharmed core "$victim_pid" -o "$core" --no-fork
	unharmed dump "$victim_pid" shm -o "$BATS_TEST_TMPDIR/dump"
	unharmed dump "$victim_pid" "$start" "$end" -o "$BATS_TEST_TMPDIR/dump"
	# shellcheck disable=SC2046
	unharmed dump "$victim_pid" $(victim_truth private) -o "$BATS_TEST_TMPDIR/dump"
	victim_check
}

@test "what others wrote into shared memory is in dumps and cores, and keeps blocks" {
	skip_unless_root
	start_victim shmholes
	read -r start end other <<<"$(victim_truth file)"
	probe dump "$victim_pid" "$start" "$end" -o "$BATS_TEST_TMPDIR/dump"
	status_is 0
	[ "$(grep -abo written-by-others "$BATS_TEST_TMPDIR/dump")" = \
		"$((other - start)):written-by-others" ]
	[ "$(stat -c %s "$BATS_TEST_TMPDIR/dump")" -eq $((end - start)) ]
	for option in '' --no-fork; do
		# shellcheck disable=SC2086
		probe core "$victim_pid" -o "$BATS_TEST_TMPDIR/core" $option
		status_is 0
		probe find "$BATS_TEST_TMPDIR/core" written-by-others --in "$start-$end" --json
		json '.count == 1 and .matches[0].address == $a' --arg a "$other"
		# shellcheck disable=SC2086
		probe leaks "$victim_pid" --json $option
		status_is 0
		json '.totals.leaked_count == 0'
	done
	probe leaks "$victim_pid" --retain "$(victim_truth block)" --json
	[[ $output = *"$(printf '0x%x' $((other + 64)))"* ]]
	victim_check
}

@test "who may not open the file says what is left out, and makes nothing" {
	skip_unless_root
	start_victim_as_user shmholes
	before=$(blocks_now 1)
	read -r start end _ <<<"$(victim_truth file)"
	run as_user bash -c "'$user_memprobe' dump $victim_pid $start $end -o - | wc -c
		exit \${PIPESTATUS[0]}"
	status_is 6
	[[ $output = *$((end - start)) ]]
	run as_user "$user_memprobe" leaks "$victim_pid"
	status_is 0
	[ "$(blocks_now 2)" = "$before" ]
	victim_check
}

@test "guard pages are nothing that is missing" {
	start_victim shmholes
	# shellcheck disable=SC2046
	probe find "$victim_pid" ggggggggggggggg --in $(victim_truth guarded | tr ' ' -) --count
	status_is 0
	probe core "$victim_pid" -o "$BATS_TEST_TMPDIR/core" --json
	status_is 0
	json '.missing == []'
	victim_check
}
