#!/usr/bin/env bats
# strings: what repeats most, counted as it was planted.

load lib

@test "the request that a server forgot 336,358 times, and the kind of it" {
	start_victim forgotten
	same=$(victim_truth same) numbered=$(victim_truth numbered)
	probe strings "$victim_pid" --in heap --top 20 --json
	status_is 0
	json '.strings[0] | .text == "Host: example.com" and .count == $n' --argjson n $((same + numbered))
	json '.strings[1] | .text == "GET /comm/itop?channelid=4099 HTTP/1.1" and .count == $n and .cut == false and .bytes == 38 * $n' \
		--argjson n "$same"
	# Each has a number of its own: none of them repeats, but all the rest does.
	json '.strings[2] | .text == "POST /comm/order?number=# HTTP/1.1" and .count == $n and .varies and (.cut | not)' \
		--argjson n "$numbered"
	json '.strings | all(.count == .count_max)'
	json '.unseen_max == 0 and .stopped_us == 0 and .warnings == [] and .missing == []'
	probe strings "$victim_pid" --in heap --prefix 0 --json
	json '.strings | any(.text | startswith("POST")) | not'
	victim_check
}

@test "the table; options; a whole process" {
	start_victim forgotten 1000
	probe strings "$victim_pid" --top 2
	status_is 0
	[[ ${lines[0]} = "strings: "*" strings ("*") in "*" of memory" ]]
	[[ ${lines[2]} = *1000*'Host: example.com' ]]
	[[ ${lines[3]} = *990*'GET /comm/itop?channelid=4099 HTTP/1.1' ]]
	[[ ${lines[4]} = and*more ]]
	probe strings "$victim_pid" --in heap --prefix 4 --min-length 18
	[[ $output = *'990 '*'GET /comm/itop'* ]]
	[[ $output = *'10 '*'POST /comm/order?number='*...* ]]
	[[ $output != *Host* ]]
	probe strings "$victim_pid" --in heap --top 0 --json
	json '.strings_left_out == 0'
	for wrong in "--top x" "--min-length 0" "--min-length 5000" "--prefix 5000" "--prefix -1" \
		"--in nonsense" "more"; do
		# shellcheck disable=SC2086
		probe strings "$victim_pid" $wrong
		status_is 2 || fail "$wrong"
	done
	victim_check
}

@test "a core says the same" {
	start_victim forgotten 5000
	memprobe core "$victim_pid" -o "$BATS_TEST_TMPDIR/core"
	probe strings "$victim_pid" --in heap --json
	of_process=$(json_get .strings)
	probe strings "$BATS_TEST_TMPDIR/core" --in heap --json
	status_is 0
	[ "$(json_get .strings)" = "$of_process" ]
	json '.strings[1].count == 4950'
	victim_check
}

@test "unreadable pages are exit 6, memory that comes and goes is none" {
	start_victim needles
	read -r start end <<<"$(victim_truth holes)"
	probe strings "$victim_pid" --in "$start-$end" --json
	status_is 6
	json '(.missing | length) == 1 and .searched == 7 * 4096'
	victim_say churn
	victim_wait churning
	victim_threads_vary=1
	for i in 1 2 3; do
		probe strings "$victim_pid" --top 5
		[ "$status" -eq 0 ] || status_is 6
	done
	victim_works
	victim_check
}
