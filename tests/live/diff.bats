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

@test "diff of stacks: table, JSON, flame graph, standard input" {
	printf 'main;f 10\nmain;g 5\nmain;old 3\n' >old.folded
	printf 'main;f 30\nmain;g 5\nmain;new 7\n' >new.folded
	probe diff old.folded new.folded --json
	status_is 0
	json '[.rows[] | [.key, .old, .new, .delta]] == [["main;f", 10, 30, 20], ["main;new", 0, 7, 7],
		["main;old", 3, 0, -3]]'
	probe diff old.folded - <new.folded
	status_is 0
	[[ $output == *'+20'*'10'*'30'*'main;f'*'+24'*'total' ]]
	[[ $output != *'main;g'* ]]
	probe diff old.folded new.folded -o diff.svg
	status_is 0
	grep -q '<svg' diff.svg
	probe diff - -
	status_is 2
}

@test "diff: files that make no sense" {
	echo 'a;b 1' >good
	for garbage in '' '{' '[]' '{"command": "maps"}' '{"command": "maps", "mappings": 3}' \
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
	probe diff good missing
	status_is 1
	[[ $stderr == *missing* ]]
}
