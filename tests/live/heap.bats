#!/usr/bin/env bats
# heap: the census, and the types that leaks shows, against what a victim says of itself.

load lib

setup() {
	cd "$BATS_TEST_TMPDIR" || return
}

types_are_true() { # TARGET
	local count name
	probe heap "$1" --json --top 0
	status_is 0
	json '.by == "type" and .groups_left_out == 0 and .unread.count == 0'
	while read -r count name; do
		json '.groups | any(.type == $name and .key == $name and .count == $count)' \
			--arg name "$name" --argjson count "$count"
	done < <(sed -n 's/^type //p' "$victim_out")
	json '.groups[0].type == "CommItopReq"'
	json '.groups | any(.type == null and (.key | startswith("(untyped) ")) and .size > 0)'
	json '.groups | any((.type // "") | test("^std::_Sp_counted_ptr_inplace<Session,"))'
	adds_up
}

adds_up() {
	json '([.groups[].count] | add) + (.single.count // 0) == .totals.count'
	json '([.groups[].bytes] | add) + (.single.bytes // 0) == .totals.bytes'
	json '.totals | .count == .in_use_chunks - .tcache_chunks - .own.count + .mmapped.count'
	json '.groups | all(.size == null or .bytes == .size * .count)'
}

contents_are_true() { # TARGET
	probe heap "$1" --by content --json
	status_is 0
	json '.groups | any(.key == "\"GET /comm HTTP/1.1\"" and .count == $n and .type == null)' \
		--argjson n "$(victim_truth texts)"
	json '.groups | any((.key | test("^CommItopReq \\+[0-9]+ \"itop request #\"$")) and
		.count == $n and .type == "CommItopReq")' --argjson n "$(victim_truth texts)"
	json '.missed_max == 0'
	adds_up
}

leaks_are_typed() { # TARGET, TOLERANCE of leaks that a stale word hides
	probe leaks "$1" --json
	status_is 0
	json '.leaks[0] | .type == "CommItopReq" and .count <= $n and .count >= $n * (1 - $some) and
		(.preview | test("\"itop request [0-9]+\""))' \
		--argjson n "$(victim_truth leaked)" --argjson some "$2"
}

@test "the forgotten delete: from maps to the class, and the same from a core" {
	start_victim requests
	probe maps "$victim_pid" --by-type --json
	json '(.types | max_by(.rss)).type == "heap"'
	types_are_true "$victim_pid"
	json '.stopped_us > 0 and .warnings == []'
	contents_are_true "$victim_pid"
	leaks_are_typed "$victim_pid" 0
	memprobe core "$victim_pid" -o core -q
	types_are_true core
	contents_are_true core
	leaks_are_typed core 0
	victim_check
}

@test "the classes of a stripped program, and of its core without the program" {
	strip -s -o requests "$VICTIMS/requests"
	start_command ./requests 20000
	types_are_true "$victim_pid"
	leaks_are_typed "$victim_pid" 0
	memprobe core "$victim_pid" -o core -q
	types_are_true core
	mv requests elsewhere
	for command in heap leaks; do
		probe $command core --json
		status_is 0
		json '.warnings | length == 1 and (.[0] | contains("classes of objects"))'
	done
	mv elsewhere requests
	victim_check
}

@test "the classes of a 32-bit program, stripped, too, and of its core" {
	strip -s -o requests "$VICTIMS/requests-32"
	start_victim requests-32 20000
	types_are_true "$victim_pid"
	contents_are_true "$victim_pid"
	start_command ./requests 20000
	types_are_true "$victim_pid"
	leaks_are_typed "$victim_pid" 0.005
	memprobe core "$victim_pid" -o core -q
	types_are_true core
	victim_check
}

@test "the classes of a static program, stripped, too" {
	strip -s -o requests "$VICTIMS/requests-static"
	start_victim requests-static 20000
	types_are_true "$victim_pid"
	start_command ./requests 20000
	types_are_true "$victim_pid"
	victim_check
}

@test "the classes of a program without type information, by its symbols" {
	start_victim requests_no_rtti 20000
	types_are_true "$victim_pid"
	victim_check
}

@test "the totals are those of mallinfo" {
	start_victim leaks
	for by in size type content; do
		probe heap "$victim_pid" --by $by --top 0 --json
		status_is 0
		adds_up
		totals=$(jq -c '.totals | [.system, .in_use, .in_use_chunks, .tcache, .free] +
			[.mmapped.count, .mmapped.bytes]' <<<"$output")
		probe mallinfo "$victim_pid" --json
		json '[.totals.system, .totals.in_use, .totals.in_use_chunks, .totals.tcache,
			.totals.free, .mmapped.count, .mmapped.bytes] == $totals' --argjson totals "$totals"
	done
	probe heap "$victim_pid" --by size --json --top 0
	json '.groups | all(.type == null and .size > 0 and .key == (.size | tostring))'
	json '.groups | any(.size == 264 and .count >= 3000)'
	victim_check
}

@test "tables, --top, --no-fork, and what is refused" {
	start_victim requests 1000
	probe heap "$victim_pid" --top 1 --no-fork
	status_is 0
	[[ $output = *"heap: "*" blocks ("*") in use, by type"*CommItopReq*" more groups)"* ]]
	[[ $stderr = *hint:* ]]
	probe heap "$victim_pid" --by content -o out -q
	status_is 0
	[ -z "$output$stderr" ]
	grep -q '"GET /comm HTTP/1.1"$' out
	probe heap "$victim_pid" --max-pause 1ms
	status_is 7
	[[ $stderr = *"cannot stop $victim_pid for "*"--max-pause is 1.0 ms"*hint:*"--max-pause "* ]]
	probe heap "$victim_pid" --no-fork --max-pause 1ms
	status_is 7
	probe heap "$victim_pid" --max-pause 0
	status_is 2
	probe heap "$victim_pid" --by nonsense
	status_is 2
	victim_check
	start_victim idle-musl
	probe heap "$victim_pid"
	status_is 5
	victim_check
}

@test "groups of blocks in the formats of stacks, which add up to the totals" {
	start_victim requests 1000 100
	probe heap "$victim_pid" --json
	status_is 0
	json '.groups_left_out == 0 and ([.groups[].bytes] | add) == .totals.bytes'
	total=$(json_get .totals.bytes)
	for by in type size content; do
		probe heap "$victim_pid" --by $by -f
		status_is 0
		[ -z "$stderr" ]
		! grep -vE '^[^;]+(;[^;]+)* [1-9][0-9]*$' <<<"$output" || fail "$output"
		[ "$(awk '{ sum += $NF } END { print sum }' <<<"$output")" -eq "$total" ]
	done
	grep -q '^CommItopReq;+[0-9]* "itop request #" [0-9]*$' <<<"$output" || fail "$output"
	probe heap "$victim_pid" -o out.folded
	status_is 0
	[ -z "$output" ] && [ "$(stat -c %a out.folded)" = 600 ]
	grep -q '^CommItopReq [0-9]*$' out.folded && grep -q '^(untyped);40 bytes [0-9]*$' out.folded
	probe heap "$victim_pid" -o out.svg
	status_is 0
	python3 -c 'import sys, xml.dom.minidom; xml.dom.minidom.parse(sys.argv[1])' out.svg
	grep -q '>CommItopReq$' out.svg && grep -q 'blocks in use, by type' out.svg
	probe heap "$victim_pid" -o out.pb.gz
	status_is 0
	run -0 "$ROOT/tests/live/pprof.py" out.pb.gz
	json '[.sample_types[].type] == ["inuse_objects", "inuse_space"]'
	json '([.samples[].values[1]] | add) == $n' --argjson n "$total"
	probe heap "$victim_pid" --format=json
	json '.totals.bytes == $n' --argjson n "$total"
	probe heap "$victim_pid" --json --top 1
	json '.groups_left_out > 0'
	probe heap "$victim_pid" -o out.bogus
	status_is 2
	[ ! -e out.bogus ]
	victim_check
}

@test "leaks in the formats of stacks, which add up to what leaked" {
	start_victim requests 1000 100
	probe leaks "$victim_pid" --json
	total=$(json_get .totals.leaked_bytes)
	[ "$total" -gt 0 ]
	probe leaks "$victim_pid" --format folded
	status_is 0
	grep -q '^CommItopReq;(indirect) [0-9]*$' <<<"$output" || fail "$output"
	[ "$(awk '{ sum += $NF } END { print sum }' <<<"$output")" -eq "$total" ]
	[ "$output" = "$(memprobe leaks "$victim_pid" -f)" ]
	probe leaks "$victim_pid" -o out.pb.gz
	status_is 0
	run -0 "$ROOT/tests/live/pprof.py" out.pb.gz
	json '([.samples[].values[1]] | add) == $n' --argjson n "$total"
	probe leaks "$victim_pid" -o out.svg
	status_is 0
	python3 -c 'import sys, xml.dom.minidom; xml.dom.minidom.parse(sys.argv[1])' out.svg
	probe leaks "$victim_pid" --retain 1000 -f
	status_is 2
	victim_check
	stop_victim
	# Nothing has leaked.
	start_victim threads 1
	for format in folded svg pprof json; do
		probe leaks "$victim_pid" --format $format -o out
		status_is 0
	done
}

@test "leaks are suppressed by their type" {
	start_victim requests 1000
	echo 'type:Comm*Req' >known
	probe leaks "$victim_pid" --suppressions known --exit-code --json
	status_is 0
	json '.totals.suppressed_count == 2000 and .leaks == []'
	victim_check
}
