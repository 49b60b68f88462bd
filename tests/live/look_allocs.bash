# allocs_at PID [reachable]: records a server under load, sampled; then, exactly, a leak that is
# planted by calls of malloc(). reachable: its heap can be walked, and the leak is told as one.

PLANTED=123457 # bytes; nobody else asks for so many

allocs_at() {
	local reachable=()
	[ -z "${2:-}" ] || reachable=(--reachable)
	probe allocs "$1" -d 500ms --all "${reachable[@]}" --json
	status_is 0
	json '.lost == 0 and .remaining == 0 and .rate >= 65536 and .counters.calls >= 0'
	record_begin allocs "$1" --sample 1 --min-size $PLANTED --max-size $PLANTED --json "${reachable[@]}"
	for _ in 1 2 3; do
		memprobe call "$1" "malloc($PLANTED)" >/dev/null
	done
	record_end
	status_is 0
	json '.totals.count == 3 and .totals.bytes == 3 * $size and .lost == 0 and .remaining == 0' \
		--argjson size $PLANTED
	# A stale word may hide one.
	[ -z "${2:-}" ] || json '.totals.unreachable_count | . == 2 or . == 3'
}
