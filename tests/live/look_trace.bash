# trace_at PID [quiet]: records a server under load, twice and then in cycles; nothing may be left in
# it. quiet: its load allocates nothing. With TORTURE=long in large.

trace_at() {
	local cycles=2 loop=$BUILD/tests/torture/trace_loop some=(some)
	[[ ${2:-} != quiet ]] || some=()
	[ "${TORTURE:-}" != long ] || cycles=100
	# All that is allocated: a load may leave nothing of a third of a second.
	run timeout -k 5 "$(patience 600)" "$loop" "$1" rate=4096 all attach run=300 "${some[@]}" pause detach read \
		rate=0 attach run=100 detach "cycle=$cycles" leftovers
	status_is 0
	[[ $output == *" lost=0 lost_frees=0 "* && $output == *"cycles $cycles remaining=0 "* &&
		$output == *"leftovers 0"* ]] || fail "$(grep -v ^site <<<"$output")"
	[[ ${2:-} == quiet || $output == *$'\n'"site "* ]] || fail "nothing was allocated"
	! grep -q /memfd:memprobe "/proc/$1/maps" || fail "tables are left"
}
