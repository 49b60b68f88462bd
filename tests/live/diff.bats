#!/usr/bin/env bats
# diff: what grew between two outputs.

load lib

setup() {
	cd "$BATS_TEST_TMPDIR"
}

@test "diff of maps: the mapping that grew, by as much as it grew" {
	start_victim faultshape
	memprobe maps "$victim_pid" --json -o old.json
	victim_say go
	victim_wait '^done$'
	memprobe maps "$victim_pid" --json -o new.json
	victim_check
	probe diff old.json new.json --json --exit-code
	status_is 10
	json '.compares == "maps" and .value == "rss"'
	json '.rows | all(.new - .old == .delta and .delta != 0)'
	json '.rows == (.rows | sort_by(-.delta, .key))'
	[ "$(json_get '[.rows[].delta] | add')" -eq \
		"$(jq -s '.[1].totals.rss - .[0].totals.rss' old.json new.json)" ]
	probe diff old.json new.json --value size --json
	status_is 0
	[ "$(json_get '[.rows[].delta] | add')" -eq \
		"$(jq -s '.[1].totals.size - .[0].totals.size' old.json new.json)" ]
	probe diff old.json new.json --value nonsense
	status_is 1
	[[ $stderr == *nonsense* ]]
	# Nothing has grown since itself.
	probe diff new.json new.json --exit-code --json
	status_is 0
	json '.rows == []'
}

@test "diff of heap, leaks and mallinfo" {
	start_victim leaks
	for command in heap leaks mallinfo; do
		memprobe "$command" "$victim_pid" --json -o "$command.json" -q
		jq 'walk(if type == "object" and has("bytes") and has("count") then .bytes += 5
			else . end) | walk(if type == "object" and has("address") then .in_use += 7
			else . end)' "$command.json" >"$command.new"
		probe diff "$command.json" "$command.new" --json
		status_is 0
		json '.rows | length >= 1'
		json '.rows | all(.delta % 5 == 0 or .delta % 7 == 0)'
	done
	victim_check
	probe diff heap.json leaks.json
	status_is 1
	[[ $stderr == *'different commands'* ]]
}

@test "diff of diagnose, top, threads and strings" {
	start_victim leaks
	memprobe diagnose "$victim_pid" --json -o diagnose.json -q
	memprobe top --once -i 0.05 --json -o top.json
	memprobe threads "$victim_pid" --json -o threads.json
	memprobe strings "$victim_pid" --json -o strings.json -q
	victim_check
	for command in diagnose top threads strings; do
		jq 'walk(if type == "object" and has("bytes") and (has("name") or has("text"))
				then .bytes += 5 else . end) |
			walk(if type == "object" and has("pid") and has("rss") then .rss += 5 else . end) |
			walk(if type == "object" and has("tid") then .stack_rss += 5 else . end)' \
			"$command.json" >"$command.new"
		probe diff "$command.json" "$command.new" --json
		status_is 0
		json '.compares == $c and (.rows | length >= 1) and (.rows | all(.delta % 5 == 0))' \
			--arg c "$command"
	done
	probe diff top.json top.new --json
	json '.rows | any(.key == "leaks \($pid)")' --argjson pid "$victim_pid"
}

@test "diff of recordings of watch: the last look at each process" {
	sample() { # NAME PID RSS SERIES
		echo "{\"time\":1,\"seconds\":1,\"series\":$4,\"pid\":$2,\"name\":\"$1\",\"rss\":$3,\"fds\":$2}"
	}
	{ sample a 1 500 0 && sample b 2 70 1 && sample a 1 100 0; } >old.jsonl
	{ sample a 7 400 0 && sample b 2 70 1 && echo '{"summary":{}}' && echo '{"time":'; } >new.jsonl
	probe diff old.jsonl new.jsonl --json
	status_is 0
	json '.compares == "watch" and [.rows[] | [.key, .old, .new]] == [["a", 100, 400]]'
	probe diff old.jsonl new.jsonl --value fds
	status_is 0
	[[ $output = *"+6"*a* ]] || fail "$output"
	start_victim idle
	memprobe watch "$victim_pid" -i 0.05 -d 0.2 -q -o real.jsonl
	probe diff old.jsonl real.jsonl --json
	status_is 0
	json '.rows | any(.key == "idle" and .old == 0 and .new > 100000)'
	victim_check
}

@test "diff of stacks: table, JSON, flame graph, standard input" {
	printf 'main;f 10\nmain;g 5\nmain;old 3\n' >old.folded
	printf 'main;f 30\nmain;g 5\nmain;new 7\n' >new.folded
	probe diff old.folded new.folded --json
	status_is 0
	json '[.rows[] | [.key, .old, .new, .delta]] == [["main;f", 10, 30, 20], ["main;new", 0, 7, 7],
		["main;old", 3, 0, -3]]'
	probe diff old.folded - <new.folded
	status_is 0
	[[ $output == *'+20'*'10'*'30'*'f < main'*'+24   18   42  total' ]] || fail "$output"
	[[ $output != *'g < main'* ]]
	# As a table of sites has them: from the function that matters, alike ones in one row.
	printf 'main;f;malloc 10\nmain;f;calloc 10\nmain;g 5\nmain;h 1\n' >old.folded
	printf 'main;f;malloc 15\nmain;f;calloc 30\nmain;g 6\nmain;h 1\n' >new.folded
	probe diff old.folded new.folded --top 1
	status_is 0
	[[ $output == *'+25   20   45  f < main'*'+26   26   52  total'*'and 1 more' ]] || fail "$output"
	probe diff old.folded new.folded --json
	json '.totals == {"old": 26, "new": 52, "delta": 26} and .rows[0].key == "main;f;calloc"'
	probe diff old.folded new.folded -o diff.svg
	status_is 0
	grep -q '<svg' diff.svg
	probe diff - -
	status_is 2
}

@test "diff reads pipes, with whatever is in them" {
	start_victim leaks 100
	memprobe maps "$victim_pid" --json -o maps.json
	run -0 memprobe diff maps.json - --json <maps.json
	json '.compares == "maps" and .rows == []'
	printf 'main;f 10\n' >old.folded
	run -0 memprobe diff <(cat old.folded) <(echo 'main;f 12') --json
	json '[.rows[].delta] == [2]'
	victim_check
}

@test "diff knows a group again, and says what it cannot know" {
	group='"size": 8, "count": 1, "bytes":'
	echo '{"command": "leaks", "leaks": [{"type": null, "preview": "one", '"$group"' 8}]}' >one
	echo '{"command": "leaks", "leaks": [{"type": null, "preview": "two", '"$group"' 9}]}' >two
	probe diff one two --json
	json '[.rows[] | [.key, .old, .new]] == [["8 one", 8, 9]]'
	heap() { # BY LEFT_OUT BYTES
		echo '{"command": "heap", "by": "'"$1"'", "groups_left_out": '"$2"',
			"groups": [{"key": "(untyped) 8", '"$group $3"'}]}'
	}
	heap type 0 8 >one
	heap type 0 9 >two
	probe diff one two --json
	status_is 0
	json '[.rows[] | [.key, .delta]] == [["(untyped) 8", 1]]'
	heap type 3 9 >two
	probe diff one two --json
	status_is 6
	json '.warnings | length == 1'
	heap size 0 9 >two
	probe diff one two
	status_is 1
	# Arenas of other allocators have no address.
	for bytes in 5 7; do
		echo '{"command": "mallinfo", "arenas": [{"index": 0, "address": null, "in_use": '$bytes'},
			{"index": 1, "address": null, "in_use": 1}]}' >$bytes
	done
	probe diff 5 7 --json
	json '[.rows[] | [.key, .delta]] == [["arena 0", 2]]'
}

@test "diff: files that make no sense" {
	echo 'a;b 1' >good
	for garbage in '{' '[]' '{"command": "maps"}' '{"command": "maps", "mappings": 3}' \
		'{"command": 5, "sites": 1}' 'garbage'; do
		printf '%s' "$garbage" >bad
		probe diff good bad
		status_is 1
		probe diff bad good
		status_is 1
		probe diff bad bad
		status_is 1
	done
	echo '{"command": "maps", "mappings": [1, null, {"rss": "x"}, {"rss": 5}, {"rss": 1e300},
		{"start": {}, "rss": 9223372036854775807}, {"rss": 9223372036854775807}]}' >odd
	probe diff odd odd
	status_is 0
	# A recording of nothing: what is new is new.
	for nothing in '' '{"command": "allocs", "sites": []}'; do
		printf '%s' "$nothing" >none
		probe diff none good --json
		status_is 0
		json '[.rows[] | [.key, .old, .new]] == [["a;b", 0, 1]]'
		probe diff good none --json
		json '[.rows[] | [.key, .old, .new]] == [["a;b", 1, 0]]'
		probe diff none none --json
		status_is 0
		json '.rows == []'
		probe diff none good -o diff.svg
		status_is 0
		probe flame good --diff none -o diff.svg
		status_is 0
	done
	probe diff good missing
	status_is 1
	[[ $stderr == *missing* ]]
}
