#!/usr/bin/env bats
# maps: types, sums, growth, names; without ever stopping the target.

load lib

# Each `region TYPE START END` of the victim lies in mappings of that type.
assert_regions() {
	local type start end
	while read -r _ type start end; do
		json 'def number: ltrimstr("0x") | explode | reduce .[] as $digit (0;
				. * 16 + (if $digit > 96 then $digit - 87 else $digit - 48 end));
			($start | number) as $at |
			[.mappings[] | select((.start | number) <= $at and (.end | number) > $at) | .type] == [$type]' \
			--arg type "$type" --arg start "$start" || fail "$type $start-$end"
	done < <(grep '^region ' "$victim_out")
}

@test "every mapping has its type: 64-bit, 32-bit, static" {
	for variant in $(runnable layout layout-32 layout-static); do
		start_victim $variant
		probe maps "$victim_pid" --json
		status_is 0
		assert_regions
		json '.stopped_us == 0 and .schema == "memprobe/1" and .warnings == []'
		json '[.mappings[] | select(.path == "[heap]")] | all(.type == "heap") and length > 0'
		json '[.mappings[] | select(.path == "[stack]") | .type] == ["stack"]'
		json '[.mappings[] | select(.path == "[vdso]") | .type] == ["kernel"]'
		json '[.mappings[] | select(.path == $exe)] | all(.type == "exe") and length >= 4' \
			--arg exe "$VICTIMS/$variant"
		victim_check
		stop_victim
	done
}

@test "arenas and stacks are tied to their threads" {
	for variant in $(runnable layout layout-32 layout-static); do
		start_victim $variant
		read -r tid heap <<<"$(victim_truth worker)"
		probe maps "$victim_pid" --json
		json '[.mappings[] | select(.start == $heap)] | length == 1 and
			.[0].type == "arena" and .[0].tid == $tid and .[0].label == "arena 1" and
			.[0].thread == $name' --arg heap "$heap" --argjson tid "$tid" \
			--arg name "$(cat "/proc/$victim_pid/task/$tid/comm")"
		json '[.mappings[] | select(.type == "arena" and .perms == "---p")] | length == 1'
		json '[.mappings[] | select(.type == "thread-stack")] | length == 1 and .[0].tid == $tid' \
			--argjson tid "$tid"
		# The whole 64 MiB, or 1 MiB, are the arena's.
		json '[.types[] | select(.type == "arena") | .size] == [$size]' \
			--argjson size "$( [[ $variant = *-32 ]] && echo 1048576 || echo 67108864)"
		stop_victim
	done
}

rss_of_victim() {
	awk '$1 == "Rss:" { print $2 * 1024 }' "/proc/$victim_pid/smaps_rollup"
}

@test "sums agree with the kernel's" {
	local before
	start_victim heapshape 3
	settle
	# The first look may map pages of files, the next one finds them; the kernel may take some back.
	for _ in 1 2 3 4 5; do
		before=$(rss_of_victim)
		probe maps "$victim_pid" --json
		status_is 0
		rss=$(rss_of_victim)
		[ "$before" != "$rss" ] || break
	done
	json '(.totals.rss == ([.mappings[].rss] | add)) and (.totals.rss == ([.types[].rss] | add))'
	json '(.totals.size == ([.types[].size] | add)) and (.totals.count == (.mappings | length))'
	pss=$(awk '$1 == "Pss:" { sum += $2 * 1024 } END { print sum }' "/proc/$victim_pid/smaps")
	# Shares in libc's pages change with every process that starts or ends.
	json '.totals.rss == $rss and .totals.pss / $pss > 0.98 and .totals.pss / $pss < 1.02' --argjson rss "$rss" --argjson pss "$pss"
	json '[.types[].rss] == ([.types[].rss] | sort | reverse)'
	[ "$(json_get '.mappings | length')" -eq "$(wc -l <"/proc/$victim_pid/maps")" ]
	json '[.types[] | select(.type == "mmap-chunk")] | length == 1 and .[0].size >= 6291456'
	victim_check
}

@test "tables: by mapping, type, size, file; and without usage" {
	start_victim layout 5 1024
	probe maps "$victim_pid"
	status_is 0
	[[ $output = *'PERM '*' RSS '*' NAME'* ]]
	[[ $output != *$'\033'* ]]
	probe maps "$victim_pid" --by-type
	status_is 0
	[[ ${lines[0]} = "maps: "*" in "*" mappings, "*" resident"* ]]
	[[ ${lines[1]} = TYPE*COUNT*SIZE*RSS* ]]
	[[ $output = *$'\n'total* ]]
	probe maps "$victim_pid" --json
	if ! has_merged_stacks; then
		probe maps "$victim_pid" --by-size
		status_is 0
		grep -qE '^ *[45] +1\.0M.*thread-stack$' <<<"$output"
	fi
	probe maps "$victim_pid" --by-file
	status_is 0
	grep -q 'libc.so.6 ' <<<"$output"
	probe maps "$victim_pid" --no-usage
	status_is 0
	[[ ${lines[1]} = *SIZE* && ${lines[1]} != *RSS* ]]
	probe maps "$victim_pid" --no-usage --json
	json '.totals.rss == null and .totals.size > 0 and .mappings[0].rss == null'
	assert_regions
	probe maps "$victim_pid" --color=always --by-type
	[[ $output = *$'\033[1m'* ]]
	victim_check
}

memory_of_its_own() {
	grep -E '^(Anonymous|Private_Dirty|Swap):' "/proc/$victim_pid/smaps_rollup"
}

# Pages of files may get mapped (ELF headers are read through the target); memory of its own never.
@test "looking changes nothing: no page is faulted in" {
	start_victim layout
	before=$(memory_of_its_own)
	for how in "maps" "maps --by-type" "threads" "dump heap -o $BATS_TEST_TMPDIR/x"; do
		# shellcheck disable=SC2086
		set -- $how
		command=$1
		shift
		memprobe "$command" "$victim_pid" "$@" >/dev/null
	done
	diff <(echo "$before") <(memory_of_its_own)
}

@test "--every shows what grew, and what is new" {
	start_victim layout
	read -r start _ <<<"$(victim_truth grow)"
	"$MEMPROBE" maps "$victim_pid" --every 0.2 --json >"$BATS_TEST_TMPDIR/changes" 3>&- &
	watcher=$!
	# Its first look at the target is over once the first document is there.
	wait_until 60 test -s "$BATS_TEST_TMPDIR/changes"
	victim_say grow
	victim_wait '^grown'
	new=$(awk '$1 == "region" && $2 == "new" { print $3 }' "$victim_out")
	has_grown() {
		jq -es --arg start "$start" '[.[].changes[] | select(.start == $start) | .rss] | add >= 1048576' \
			"$BATS_TEST_TMPDIR/changes" >/dev/null 2>&1
	}
	wait_until 60 has_grown
	# Ctrl-C is no failure.
	kill -INT $watcher
	wait $watcher
	output=$(jq -s . "$BATS_TEST_TMPDIR/changes")
	json 'all(.command == "maps" and .schema == "memprobe/1" and .totals.rss > 0)'
	json '[.[].time] | . == sort and .[0] > now - 600 and .[-1] <= now'
	json '[.[].changes[] | select(.start == $start)] | all(.change == "grew" and .type == "anon")' \
		--arg start "$start"
	json '[.[].changes[] | select(.type == "shm" and .size == 2097152 and .change != "gone")] | length == 1'
	[ -n "$new" ]
	victim_check
}

@test "--every ends by itself: after --count, and with the target" {
	start_victim layout
	probe maps "$victim_pid" --every 10ms --count 3 --json
	status_is 0
	[ "$(jq -s length <<<"$output")" -eq 3 ]
	"$MEMPROBE" maps "$victim_pid" --every 50ms >"$BATS_TEST_TMPDIR/changes" 3>&- &
	watcher=$!
	wait_until 60 test -s "$BATS_TEST_TMPDIR/changes"
	victim_say exit
	wait $watcher
}

@test "names: blanks, newlines, UTF-8 and what is none" {
	mkdir "$BATS_TEST_TMPDIR/files"
	start_victim paths "$BATS_TEST_TMPDIR/files"
	probe maps "$victim_pid" --json
	status_is 0
	while read -r _ key start end; do
		json '[.mappings[] | select(.start == $start and .end == $stop and .type == "file")] | length == 1' \
			--arg start "$start" --arg stop "$end" || fail "$key"
	done < <(grep '^file ' "$victim_out")
	json '[.mappings[].path] | any(endswith("/two words")) and any(endswith("/first\nsecond")) and any(endswith("/grün 日本"))'
	probe maps "$victim_pid"
	status_is 0
	[[ $output = *'first\x0asecond'* ]]
	[[ $output != *$'\033'* ]]
	probe maps "$victim_pid" --by-file
	status_is 0
	[[ $output != *$'\033'* ]]
	victim_check
}

@test "22,000 mappings" {
	start_victim manymaps
	probe maps "$victim_pid" --json
	status_is 0
	read -r start end count <<<"$(victim_truth region)"
	json '[.mappings[] | select(.start >= $start and .start < $stop)] | length == $count and (map(.rss) | add) >= 2048 * $count' \
		--arg start "$start" --arg stop "$end" --argjson count "$count"
	victim_check
}

@test "what is wrong is said" {
	start_victim idle
	for wrong in "--every 0" "--every x" "--count 3" "--every 1 --count 0" "--by-type --by-size" "extra"; do
		# shellcheck disable=SC2086
		probe maps "$victim_pid" $wrong
		status_is 2
	done
	probe maps 999999999
	status_is 3
	probe maps "$victim_pid" --by-type -o /dev/full
	status_is 1
	probe maps "$victim_pid" --by-type -o "$BATS_TEST_TMPDIR/table"
	status_is 0
	grep -q ^total "$BATS_TEST_TMPDIR/table"
}

@test "another user's process is exit 4, with the reason" {
	skip_unless_root
	prepare_user
	start_victim idle
	run --separate-stderr as_user timeout "$(patience 60)" "$user_memprobe" maps "$victim_pid"
	status_is 4
	[[ $stderr = *hint:* ]]
	run --separate-stderr as_user timeout "$(patience 60)" "$user_memprobe" dump "$victim_pid" stack
	status_is 4
	start_victim_as_user idle
	run --separate-stderr as_user timeout "$(patience 60)" "$user_memprobe" maps "$victim_pid" --by-type
	status_is 0
}

@test "--every says when it looked, and whether nothing changed" {
	local moment='^20[0-9]{2}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2}'
	start_victim layout
	"$MEMPROBE" maps "$victim_pid" --every 0.1 >"$BATS_TEST_TMPDIR/changes" 3>&- &
	watcher=$!
	wait_until 60 grep -qE "$moment  no change\$" "$BATS_TEST_TMPDIR/changes"
	victim_say grow
	wait_until 60 grep -q ' grew ' "$BATS_TEST_TMPDIR/changes"
	kill -INT $watcher
	wait $watcher
	grep -B4 ' grew ' "$BATS_TEST_TMPDIR/changes" | grep -qE "$moment  [0-9]+ changes?\$" ||
		fail "$(cat "$BATS_TEST_TMPDIR/changes")"
	victim_check
}
