# look_at PID: every command on a process that is at work, with what must be true of any process.
# Set allocator=other for those whose allocator is not glibc's, look_dir to a directory that memprobe
# may write into.

refused_with_hint() {
	status_is 5
	[[ $stderr = *hint:* ]] || fail "no hint: $stderr"
}

look_at() {
	local pid=$1 threads

	probe maps "$pid" --by-type --json
	status_is 0
	json '.command == "maps" and .target.pid == $pid' --argjson pid "$pid"
	json '[.types[].type] | index("exe") != null'
	json '[.types[].rss] | add > 0'
	json '.stopped_us == 0'

	probe threads "$pid" --json
	status_is 0
	threads=$(find "/proc/$pid/task" -mindepth 1 -maxdepth 1 | wc -l)
	[ -n "${victim_threads_vary:-}" ] || json '.threads | length == $count' --argjson count "$threads"
	json '.threads | map(select(.tid == $pid)) | length == 1' --argjson pid "$pid"
	json '[.threads[] | select(.stack_size != null)] | length > 0'

	probe stack "$pid" --json
	status_is 0
	json '[.threads[].frames | length] | min > 0'
	json '[.threads[].frames[].function // empty] | length > 0'

	probe check "$pid"
	status_is 0

	probe mallinfo "$pid" --json
	if [ "${allocator:-glibc}" = glibc ]; then
		status_is 0
		json '.arenas | length > 0'
		json '.totals.in_use > 0 and .totals.system >= .totals.in_use'
		probe trim "$pid" --json
		status_is 0
		json '.rss_before > 0 and .rss_after > 0 and (.returned | tostring | test("^[01]$"))'
	else
		# Its figures and the trim are had through its own functions, or refused with a hint.
		[ "$status" -eq 0 ] || refused_with_hint
		probe trim "$pid" --json
		[ "$status" -eq 0 ] || refused_with_hint
	fi
	if grep -qF '[heap]' "/proc/$pid/maps"; then
		probe dump "$pid" heap -o "${look_dir:-$BATS_TEST_TMPDIR}/heap.bin"
		status_is 0
		[ "$(stat -c %a "${look_dir:-$BATS_TEST_TMPDIR}/heap.bin")" = 600 ]
		[ "$(stat -c %s "${look_dir:-$BATS_TEST_TMPDIR}/heap.bin")" -ge 4096 ]
	fi
}
