#!/usr/bin/env bats
# heap, leaks, mallinfo, find: heaps of glibc's malloc that are not one piece, not where most are, or
# not set up yet, against what the victims say of their blocks.

load lib

setup() {
	cd "$BATS_TEST_TMPDIR" || return
}

mallinfo2() { # FIELD
	victim_truth mallinfo2 | tr ' ' '\n' | sed -n "s/^$1=//p"
}

# That a small program is held while it is read is no fault of its heap.
nothing_is_wrong() {
	json '.warnings | all(test("held|stopped"))'
}

# Every size that the victim keeps, with as many blocks.
sizes_are_true() {
	local expected
	probe heap "$victim_pid" --by size --json --top 0 "$@"
	status_is 0
	nothing_is_wrong
	expected=$(sed -n 's/^sized \(.*\) \(.*\)$/{"size":\1,"count":\2}/p' "$victim_out" |
		jq -cs 'group_by(.size) | map({size: .[0].size, count: map(.count) | add})')
	json '[.groups[] | {(.size | tostring): .count}] | add as $found |
		$expected | all($found[.size | tostring] == .count)' --argjson expected "$expected"
}

# Every odd block where it begins, and as large as the victim may use it.
blocks_are_true() {
	local expected
	probe find "$victim_pid" "odd block" --json
	status_is 0
	expected=$(sed -n 's/^block \(.*\) \(.*\)$/{"address":"\1","size":\2}/p' "$victim_out" |
		jq -cs .)
	[ "$(jq length <<<"$expected")" -ge "$1" ]
	json '[.matches[] | select(.chunk) | {address: .chunk, size: .chunk_size}] as $found |
		$expected | all(. as $one | $found | any(. == $one))' --argjson expected "$expected"
	probe heap "$victim_pid" --by size --json --top 0
	status_is 0
	json '[.groups[] | {(.size | tostring): .count}] | add as $found |
		$expected | all($found[.size | tostring] >= 1)' --argjson expected "$expected"
	nothing_is_wrong
}

figures_are_true() {
	probe mallinfo "$victim_pid" --method=walk --json
	status_is 0
	nothing_is_wrong
	json '.totals.in_use == $n' --argjson n "$(mallinfo2 uordblks)"
	json '.coverage | .rss == .walked + .unexplained and .walked <= .rss'
	json '.mmapped == {count: $n, bytes: $b}' --argjson n "$(mallinfo2 hblks)" \
		--argjson b "$(mallinfo2 hblkhd)"
	probe leaks "$victim_pid" --json
	status_is 0
	# A stale word may hide one.
	json '.totals.leaked_count | . <= $n and . >= $n - 1' \
		--argjson n "$(victim_truth leaked)"
}

@test "a main arena in pieces, from the first block on, later, and with the break moved" {
	for variant in $(runnable heapodd heapodd-32 heapodd-static); do
		for modes in "blocked fill fill" "fill blocked fill" "foreign fill foreign fill" \
			"fill foreign fill blocked merged" "fill foreign blocked fill"; do
			# shellcheck disable=SC2086
			start_victim $variant $modes
			sizes_are_true
			figures_are_true
			victim_check
			stop_victim
		done
	done
}

@test "mmapped blocks whose mapping is split, aligned, or merged with others" {
	for variant in $(runnable heapodd heapodd-32 heapodd-static); do
		start_victim $variant fill merged split aligned merged
		blocks_are_true 30
		sizes_are_true
		figures_are_true
		victim_check
		stop_victim
	done
}

@test "how much of RSS is malloc's, and who may have the rest" {
	local coverage
	start_victim heapodd fill
	for command in heap leaks mallinfo; do
		probe $command "$victim_pid" --json
		status_is 0
		# All of it was written to, but for what glibc never handed out.
		json '.coverage | .walked >= $n * 0.9 and .walked < $n * 1.1' \
			--argjson n "$(mallinfo2 arena)"
		json '.coverage | .rss > .walked and .rss == .walked + .unexplained'
		probe $command "$victim_pid"
		[[ $output =~ malloc\ [0-9.]+M\ of\ [0-9.]+M\ RSS ]]
	done
	memprobe core "$victim_pid" -o core -q
	probe heap core --json
	json '.coverage == null'
	victim_check
	stop_victim
	command -v python3 >/dev/null || skip "python3 is not installed"
	start_command python3 -c 'import sys
kept = [b"%d" % i for i in range(200000)]
print("ready", flush=True)
sys.stdin.read()'
	probe mallinfo "$victim_pid"
	status_is 0
	[[ $output =~ \;\ [0-9.]+M\ anonymous\ memory\ is\ not\ malloc\'s\ \(python:\ pymalloc\) ]]
	victim_check
}

@test "a program that maps all its blocks" {
	start_victim heapodd merged split
	blocks_are_true 10
	figures_are_true
	victim_check
}

@test "a block that no fork gets is read from the process itself" {
	start_victim heapodd fill wiped
	probe heap "$victim_pid" --by content --json --top 0
	status_is 0
	nothing_is_wrong
	json '.groups | any(.key == "\"no fork gets this\"" and .count == 2)'
	sizes_are_true
	victim_check
}

@test "malloc's tunables" {
	for tunables in glibc.malloc.mmap_threshold=4096 glibc.malloc.tcache_count=0 \
		glibc.malloc.mxfast=0:glibc.malloc.arena_max=1 glibc.malloc.hugetlb=1 \
		glibc.malloc.hugetlb=2 glibc.malloc.top_pad=16777216 glibc.malloc.perturb=85; do
		start_command env "GLIBC_TUNABLES=$tunables" "$VICTIMS/heapodd" fill merged aligned
		sizes_are_true
		blocks_are_true 20
		figures_are_true
		victim_check
		stop_victim
	done
}

leaked_is_true() {
	probe leaks "$victim_pid" --json
	status_is 0
	nothing_is_wrong
	# A stale word may hide one.
	json '.totals.leaked_count | . <= $n and . >= $n - 1' \
		--argjson n "$(victim_truth leaked)"
}

@test "two libcs: the arenas of both, and malloc_trim of each" {
	local foretold
	for variant in $(runnable libcs libcs-32); do
		start_victim $variant
		sizes_are_true
		leaked_is_true
		probe mallinfo "$victim_pid" --json
		status_is 0
		nothing_is_wrong
		json '.arenas | length == 2 and .[0].main and .[1].main and .[0].index == 0'
		json '.arenas | all(.libc | endswith("/libc.so.6"))'
		json '.arenas | all(.threads == [$pid])' --argjson pid "$victim_pid"
		json '.totals | .system == $s and .in_use == $u' \
			--argjson s "$(victim_truth system)" --argjson u "$(victim_truth in_use)"
		probe mallinfo "$victim_pid" --method=call --json
		status_is 0
		nothing_is_wrong
		json '[.arenas[] | [.index, .main, .threads]] == [[0, true, [$pid]], [1, true, [$pid]]]' \
			--argjson pid "$victim_pid"
		json '.arenas | all(.address and (.libc | endswith("/libc.so.6")))'
		json '.totals | .system == $s and .in_use == $u' \
			--argjson s "$(victim_truth system)" --argjson u "$(victim_truth in_use)"
		# It prints one document: of one libc.
		probe mallinfo "$victim_pid" --xml
		status_is 6
		[[ $stderr == *" bytes) of further copies of malloc in the process are missing"* ]]
		probe trim "$victim_pid" --dry-run --json
		foretold=$(json_get .released)
		json '.arenas | all(.released > 4000000)'
		probe trim "$victim_pid" --json
		status_is 0
		json '.returned == 1 and .released >= $n * 0.95' --argjson n "$foretold"
		victim_check
		stop_victim
	done
}

@test "a program that has not called malloc() yet has no blocks" {
	for variant in $(runnable nomalloc nomalloc-32); do
		start_victim $variant
		probe heap "$victim_pid" --json
		status_is 0
		json '.totals.count == 0'
		nothing_is_wrong
		probe leaks "$victim_pid" --json
		status_is 0
		json '.totals | .leaked_count == 0 and .live_count == 0'
		probe mallinfo "$victim_pid" --json
		status_is 0
		json '.totals.system == 0 and .mmapped.count == 0'
		victim_check
		stop_victim
	done
}

@test "musl before its first malloc() stays musl" {
	[ -x "$VICTIMS/nomalloc-musl" ] || skip "musl-gcc is not installed"
	start_victim nomalloc-musl
	probe heap "$victim_pid"
	status_is 5
	[[ $stderr == *musl* ]]
	victim_check
}

@test "MALLOC_CHECK_: blocks have the sizes that the program asked for" {
	ldconfig -p | grep -q libc_malloc_debug.so.0 || skip "libc_malloc_debug.so.0 is missing"
	for variant in $(runnable asked asked-32); do
		start_command env LD_PRELOAD=libc_malloc_debug.so.0 MALLOC_CHECK_=3 \
			"$VICTIMS/$variant"
		grep -q "^sized 1234567 1" "$victim_out"
		sizes_are_true
		leaked_is_true
		probe heap "$victim_pid" --by size --json
		json '.groups | any(.size == 5001 and .count == 40)'
		victim_check
		stop_victim
	done
}

@test "mcheck: its headers point to all blocks, which hides no leak" {
	local preload=libc_malloc_debug.so.0
	ldconfig -p | grep -q $preload || preload=
	start_command env LD_PRELOAD=$preload "$VICTIMS/mchecked"
	grep -q "^mcheck 0" "$victim_out"
	probe leaks "$victim_pid" --json
	status_is 0
	nothing_is_wrong
	# A stale word may hide one.
	json '.totals.leaked_count | . <= $n and . >= $n - 1' --argjson n "$(victim_truth leaked)"
	json '.leaks | any(.count == 1 and .indirect_count == $n - 1)' \
		--argjson n "$(victim_truth chain)"
	probe leaks "$victim_pid" --no-fork --json
	json '.totals.leaked_count | . <= $n and . >= $n - 1' --argjson n "$(victim_truth leaked)"
	victim_check
}

@test "libc_malloc_debug.so.0 without a check: the blocks are libc's" {
	ldconfig -p | grep -q libc_malloc_debug.so.0 || skip "libc_malloc_debug.so.0 is missing"
	start_command env LD_PRELOAD=libc_malloc_debug.so.0 "$VICTIMS/asked"
	sizes_are_true
	leaked_is_true
	victim_check
}
