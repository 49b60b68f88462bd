#!/usr/bin/env bats
# mallinfo and trim against what the allocators say of themselves.

load lib

# What mallinfo2() printed last: field arena, fordblks, ...
truth() {
	grep '^mallinfo2 ' "$victim_out" | tail -1 | tr ' ' '\n' | sed -n "s/^$1=//p"
}

ask_again() {
	local lines
	lines=$(grep -c '^mallinfo2' "$victim_out")
	victim_say again
	wait_until 60 truths_at_least $((lines + 1))
}

truths_at_least() {
	[ "$(grep -c '^mallinfo2' "$victim_out")" -ge "$1" ]
}

figures_are_true() {
	json '.totals.system == $n' --argjson n "$(truth arena)"
	json '.totals.in_use == $n' --argjson n "$(truth uordblks)"
	json '.totals.free == $n' --argjson n "$(truth fordblks)"
	json '.totals.fast == $n' --argjson n "$(truth fsmblks)"
	json '.mmapped.count == $n' --argjson n "$(truth hblks)"
	json '.mmapped.bytes == $n' --argjson n "$(truth hblkhd)"
	json '(.arenas | map(.system) | add) == .totals.system'
	json '(.arenas | map(.in_use) | add) == .totals.in_use'
	json '.arenas | all(.in_use + .free == .system and .system <= .system_max)'
	case $(json_get .method) in
	call) json '.arenas | all(.tcache == null and .top != null and .in_use_chunks == null)' ;;
	walk)
		json '.arenas | all(.tcache <= .in_use and .fast + .top <= .free)'
		json '.arenas | all(.tcache_chunks <= .in_use_chunks)'
		json '.arenas | all(.tcache > 0 and .top > 0 and .in_use_chunks > 1000)'
		json '.warnings == [] and .stopped_us == 0'
		json '.totals.free_chunks == $n + $fast' --argjson n "$(truth ordblks)" \
			--argjson fast "$(truth smblks)"
		# What the program asked for fits into what it has.
		json '.totals.in_use + .mmapped.bytes - .totals.tcache >= $kept' \
			--argjson kept "$(victim_truth kept | cut -d' ' -f2)"
		;;
	esac
}

walk_is_call() {
	local walked same='[.arenas[] | del(.in_use_chunks, .tcache, .tcache_chunks, .top)], .mmapped'
	probe mallinfo "$victim_pid" --method=walk --json
	status_is 0
	walked=$(json_get -S "$same")
	probe mallinfo "$victim_pid" --method=call --json
	# A static program has the room to call from only by chance.
	[[ $status != 5 || $stderr != *'bytes of padding'* || $(readlink "/proc/$victim_pid/exe") != *-static ]] ||
		return 0
	status_is 0
	diff <(echo "$walked") <(json_get -S "$same")
}

figures_of() { # VARIANT THREADS [METHOD]
	start_victim "$1" "$2"
	probe mallinfo "$victim_pid" --json ${3:+--method=$3}
	status_is 0
	json ".method == \"${3:-walk}\" and (.arenas | length) == \$n" --argjson n $(($2 + 1))
	figures_are_true
	json '.arenas[0].main and (.arenas[1:] | all(.main | not))'
	json '.arenas | all(.address | startswith("0x"))'
	# Each thread in the arena that it told, main in the main one.
	json '.arenas[0].threads == [$pid]' --argjson pid "$victim_pid"
	json '[.arenas[].threads[]] | sort == $tids' --argjson tids \
		"$(ls "/proc/$victim_pid/task" | jq -cs 'sort')"
	victim_check
}

@test "the figures are those of mallinfo2, 64 bit, 3 threads" {
	figures_of heapshape 3
}

@test "the figures are those of mallinfo2, 64 bit, 8 threads" {
	figures_of heapshape 8
}

@test "the figures are those of mallinfo2, 32 bit" {
	figures_of heapshape-32 3
}

@test "the figures are those of mallinfo2, by a call" {
	figures_of heapshape 3 call
	! runs_32_bit || figures_of heapshape-32 2 call
}

@test "the figures are those of mallinfo2, static" {
	figures_of heapshape-static 2
}

@test "a walk gives what a call does" {
	for variant in $(runnable heapshape heapshape-32 heapshape-static); do
		for threads in 0 4; do
			start_victim $variant $threads
			walk_is_call
			victim_check
			stop_victim
		done
	done
}

@test "a main arena of several pieces is walked in whole" {
	for variant in $(runnable brokenbrk brokenbrk-32 brokenbrk-static); do
		for how in foreign blocked; do
			start_victim $variant $how
			walk_is_call
			probe mallinfo "$victim_pid" --method=walk --json
			json '.warnings == [] and .totals.tcache_chunks > 100'
			json '.totals.in_use == $n' --argjson n "$(truth uordblks)"
			probe leaks "$victim_pid" --json
			status_is 0
			# A stale word may hide one in 200.
			json '.totals.leaked_count | . <= $n and . >= $n * 0.995' \
				--argjson n "$(victim_truth leaked)"
			victim_check
			stop_victim
		done
	done
}

@test "a walk sees a stripped program" {
	strip -s -o "$BATS_TEST_TMPDIR/stripped" "$VICTIMS/heapshape-static"
	start_command "$BATS_TEST_TMPDIR/stripped" 2
	probe mallinfo "$victim_pid" --method=walk --json
	status_is 0
	figures_are_true
	victim_check
}

@test "--xml is what malloc_info writes" {
	start_victim heapshape 2 "$BATS_TEST_TMPDIR/truth.xml"
	probe mallinfo "$victim_pid" --xml
	status_is 0
	diff <(printf '%s\n' "$output") "$BATS_TEST_TMPDIR/truth.xml"
	victim_check
}

@test "--stats is what malloc_stats writes, and the target's stderr gets none of it" {
	start_victim heapshape 2
	probe mallinfo "$victim_pid" --stats
	status_is 0
	[[ $output = *"Arena 2:"* ]]
	[[ $output = *"max mmap regions ="*" 3"* ]]
	[ "$(sed -n 's/^system bytes *= *//p' <<<"$output" | tail -1)" -eq \
		$(($(truth arena) + $(truth hblkhd))) ]
	[ ! -s "$victim_out.err" ]
	victim_check
}

@test "--stats in a single thread puts stderr back" {
	start_victim heapshape 0
	before=$(readlink "/proc/$victim_pid/fd/2")
	count=$(ls "/proc/$victim_pid/fd" | wc -l)
	probe mallinfo "$victim_pid" --stats
	status_is 0
	[[ $output = *"in use bytes"* ]]
	[ ! -s "$victim_out.err" ]
	[ "$(readlink "/proc/$victim_pid/fd/2")" = "$before" ]
	[ "$(ls "/proc/$victim_pid/fd" | wc -l)" -eq "$count" ]
	victim_check
}

@test "trim gives back what malloc_trim can, once" {
	for variant in $(runnable heapshape heapshape-32); do
		start_victim $variant 3
		free=$(truth fordblks)
		probe trim "$victim_pid" --json
		status_is 0
		json '.returned == 1'
		json '.released == .rss_before - .rss_after'
		# Nearly all of it is in whole pages.
		json '.released > $free * 8 / 10 and .released <= $free' --argjson free "$free"
		probe trim "$victim_pid" --json
		json '.released < 1048576'
		ask_again
		probe mallinfo "$victim_pid" --json
		figures_are_true
		victim_check
	done
}

@test "--dry-run foretells what trim gives back" {
	local foretold
	for variant in $(runnable heapshape heapshape-32 heapshape-static); do
		for pad in 0 64K; do
			start_victim $variant 2
			probe trim "$victim_pid" --dry-run --pad $pad --json
			status_is 0
			json '.dry_run and .rss_after == .rss_before - .released'
			json '(.arenas | map(.released) | add) == .released'
			json '.arenas | all(.pinned <= .free and .released <= .free + .released_top)'
			json '.arenas[1:] | all(.released_top == 0 and .top_kept > 0)'
			json '.pinned_by | length > 0 and all(.pins > 0)'
			foretold=$(json_get .released)
			victim_check
			probe trim "$victim_pid" --pad $pad --json
			status_is 0
			# Other pages may come and go meanwhile: the call itself touches some.
			json '.released - $n | . <= 65536 and . >= -65536' --argjson n "$foretold"
			probe trim "$victim_pid" --dry-run --pad $pad --json
			json '.released == 0'
			victim_check
			stop_victim
		done
	done
}

@test "the hint to trim says what would come back, and when hardly anything would" {
	start_victim heapshape 2
	probe mallinfo "$victim_pid"
	[[ $stderr = "hint: much of it is free: \`memprobe trim $victim_pid\` would give back "[1-9]*M ]] ||
		fail "$stderr"
	probe trim "$victim_pid"
	status_is 0
	probe mallinfo "$victim_pid"
	[[ $stderr = "hint: "*" has left memory already or lies between blocks: "*"trim $victim_pid --dry-run\`"* ]] ||
		fail "$stderr"
	memprobe core "$victim_pid" -o "$BATS_TEST_TMPDIR/core"
	probe mallinfo "$BATS_TEST_TMPDIR/core"
	[[ $stderr = "hint: "*"core --dry-run\`"* ]] || fail "$stderr"
	probe mallinfo "$victim_pid" -q
	[ -z "$stderr" ]
	victim_check
}

@test "trim leaves --pad at the top of the heap" {
	start_victim heapshape 1
	probe trim "$victim_pid" --pad 64K --json
	status_is 0
	ask_again
	[ "$(truth keepcost)" -ge 65536 ]
	probe trim "$victim_pid" --json
	ask_again
	[ "$(truth keepcost)" -lt 65536 ]
	victim_check
}

@test "what is not there is refused" {
	start_victim heapshape 0
	probe mallinfo "$victim_pid" --method=walk --stats
	status_is 2
	probe mallinfo "$victim_pid" --method=guess
	status_is 2
	probe mallinfo "$victim_pid" --xml --stats
	status_is 2
	probe mallinfo "$victim_pid" --xml --json
	status_is 2
	probe trim "$victim_pid" --pad much
	status_is 2
	victim_check
	start_victim idle-musl
	probe trim "$victim_pid"
	status_is 5
	[[ $stderr = *musl*hint:* ]]
	probe mallinfo "$victim_pid"
	status_is 5
	[[ $stderr = *musl*hint:* ]]
	victim_check
}

preload() { # LIBRARY
	local library=/usr/lib/x86_64-linux-gnu/$1
	[ -e "$library" ] || skip "no $1"
	# With one CPU, jemalloc has one arena.
	start_command env LD_PRELOAD="$library" MALLOC_CONF=narenas:4 "$VICTIMS/heapshape" 3
}

@test "jemalloc's own figures, and its purge" {
	preload libjemalloc.so.2
	probe mallinfo "$victim_pid" --json
	status_is 0
	json '.target.allocator == "jemalloc" and (.arenas | length) >= 2'
	json '.totals.in_use >= $kept and .totals.in_use < $kept * 1.4' \
		--argjson kept "$(victim_truth kept | cut -d' ' -f2)"
	json '.totals.system == .totals.in_use + .totals.free'
	json '.totals | .mapped > 0 and .active >= .in_use'
	probe mallinfo "$victim_pid" --method=walk
	status_is 5
	[[ $stderr = *hint:* ]]
	probe mallinfo "$victim_pid" --stats
	[[ $output = *"Begin jemalloc statistics"*"End jemalloc statistics"* ]]
	probe mallinfo "$victim_pid" --xml
	status_is 5
	probe trim "$victim_pid" --json
	status_is 0
	json '.returned == 0 and .released > 20 * 1048576'
	victim_check
}

@test "jemalloc: no call in a thread that never allocated" {
	local tasks
	command -v redis-server >/dev/null || skip "redis-server is not installed"
	redis-server --port 0 --unixsocket "$BATS_TEST_TMPDIR/redis" --save '' \
		--dir "$BATS_TEST_TMPDIR" >/dev/null 2>&1 </dev/null 3>&- &
	adopt $!
	ends_with $!
	wait_until 60 test -S "$BATS_TEST_TMPDIR/redis"
	wait_until 60 threads_are_many
	victim_remember
	# With an arena of its own, a thread would start one of jemalloc's.
	tasks=$(ls "/proc/$victim_pid/task")
	local arenas=
	for i in 1 2 3; do
		probe mallinfo "$victim_pid" --json
		status_is 0
		json '.target.allocator == "jemalloc"'
		# Redis 8 has more than one.
		arenas=${arenas:-$(json_get '.arenas | length')}
		json '.arenas | length == $n' --argjson n "$arenas"
		json '.totals | .dirty >= 0 and .muzzy >= 0 and .dirty + .active <= .mapped'
		probe trim "$victim_pid" --json
		status_is 0
		[ "$(ls "/proc/$victim_pid/task")" = "$tasks" ]
	done
	victim_check
}

threads_are_many() {
	[ "$(ls "/proc/$victim_pid/task" | wc -l)" -ge 5 ]
}

@test "tcmalloc's own figures, and its release" {
	preload libtcmalloc_minimal.so.4
	probe mallinfo "$victim_pid" --json
	status_is 0
	json '.target.allocator == "tcmalloc" and .arenas == []'
	json '.totals.in_use >= $kept and .totals.in_use < $kept * 1.4' \
		--argjson kept "$(victim_truth kept | cut -d' ' -f2)"
	probe mallinfo "$victim_pid" --stats
	[[ $output = *"Bytes in use by application"* ]]
	probe trim "$victim_pid" --json
	status_is 0
	json '.returned == null and .released > 10 * 1048576'
	victim_check
}

@test "mimalloc's own report, and its collection" {
	preload libmimalloc.so.2.0
	probe mallinfo "$victim_pid" --json
	status_is 0
	json '.target.allocator == "mimalloc" and .totals.in_use == null'
	json '.text | contains("heap stats")'
	probe trim "$victim_pid" --json
	status_is 0
	victim_check
}

@test "a heap too busy to be read is asked by a call, which is said" {
	start_victim malloc_load 4
	for i in 1 2 3 4 5; do
		probe mallinfo "$victim_pid" --json
		status_is 0
		json '.arenas | all(.top != null)'
		json '.method == "walk" or (.warnings | any(test("changed too fast")))'
		# No cache that was not found is shown as none.
		json '.method == "walk" or ([.arenas[1:][].tcache] | all(. != 0))'
		json '.method == "walk" and .warnings == [] or .method == "call" or
			(.warnings | any(test("approximate")))'
	done
	victim_check
}
