#!/usr/bin/env bats
# top: all processes by their memory.

load lib

@test "top: the largest come first, with what /proc says of them" {
	start_victim idle
	start_victim diseases idle
	probe top --once -i 0.05 --json
	status_is 0
	json '.processes | length == ([.[].pid] | unique | length) and length >= 2'
	json '[.processes[].rss] as $rss | $rss == ($rss | sort | reverse)'
	json '.processes[] | select(.name == "diseases") | .rss > 30000000 and .growth == 0 and .swap == 0'
	json '.count == (.processes | length) and .rss >= ([.processes[].rss] | max)'
	# No kernel threads.
	json '.processes | all(.name != "kthreadd")'
	probe top -n 3
	status_is 0
	[[ ${lines[0]} = "top: "*" processes, RSS "*" together; the largest by rss" ]] || fail "$output"
	victim_check
}

shows_growth() {
	probe top --by growth --once --json -i 0.5
	status_is 0 &&
		jq -e '.processes[] | select(.pid == $pid) | .growth > 100000' --argjson pid "$victim_pid" \
			<<<"$output" >/dev/null
}

@test "top: by growth, by proportional size, by swap" {
	start_command python3 -c 'import sys, time
kept = []
print("ready", flush=True)
while True:
    kept.append(bytearray(b"x" * 100000))
    time.sleep(0.01)'
	# It may get no CPU meanwhile.
	wait_until 60 shows_growth
	json '[.processes[].growth] as $all | $all == ($all | sort | reverse)'
	start_victim diseases idle
	probe top --by pss --once --json -i 0.05
	json '.processes[] | select(.name == "diseases") | .pss > 30000000 and .pss <= .rss'
	probe top --by swap --once --json -i 0.05 -n 5
	status_is 0
	json '(.processes | length) <= 5'
	victim_check
}

@test "top: a screen that is drawn again, and ended by Ctrl-C or SIGTERM" {
	command -v script >/dev/null || skip "no script"
	for signal in INT TERM; do
		run -0 timeout "$(patience 60)" script -qec "stty rows 10 cols 20
			timeout --preserve-status -s $signal 2 $MEMPROBE top -i 0.1; echo status \$?" \
			/dev/null
		[[ $output = *$'\033[H\033[J'*$'\033[H\033[J'*"status 0"* ]] || fail "$signal: $output"
		# What was there before is still there, and so is the last table.
		[[ $output != *$'\033[?1049'* ]] || fail "$signal: a screen of its own"
	done
}

@test "top: what makes no sense" {
	for wrong in "--by size" "-i 0" "-n x" "1"; do
		# shellcheck disable=SC2086
		probe top --once $wrong
		status_is 2
	done
}
