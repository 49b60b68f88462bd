#!/usr/bin/env bats
# watch: memory over time, of processes that do as they are told.

load lib

teardown() {
	end_everything
	remove_group
}

# Grows by 200 KB in each step, at its own pace; then it goes on without.
growing() { # STEPS
	start_command python3 -c 'import sys, time
kept = []
print("ready", flush=True)
for i in range(int(sys.argv[1])):
    kept.append(bytearray(b"x" * 200000))
    time.sleep(0.02)
sys.stdin.read()' "$1"
}

summary() { # JQ-EXPRESSION...
	tail -n 1 <<<"$output" | jq -e "$@" >/dev/null || fail "$(tail -n 1 <<<"$output")" "not so: $1"
}

@test "a process that grows" {
	growing 1000000
	probe watch "$victim_pid" -i 0.1 -d 3 --json
	status_is 0
	[ "$(wc -l <<<"$output")" -ge 8 ]
	head -1 <<<"$output" | jq -e '.pid == $pid and .rss > 1000000 and .anon <= .rss and
		.threads == 1 and .fds >= 3 and .pss > 0 and .minor_faults > 0 and
		.time > 1700000000' --argjson pid "$victim_pid"
	# On a busy machine it may have grown more slowly at the end.
	summary '.summary | (.verdict == "growing" or .verdict == "warming-up") and .slope > 0 and
		.slope_low <= .slope and .slope <= .slope_high and .restarts == 0 and (.ended | not)'
	summary '.summary.moves_with | any(.what == "page faults" and .correlation > 0.5)'
	probe watch "$victim_pid" -i 0.1 -d 2
	status_is 0
	[[ ${lines[0]} = TIME*RSS*NAME ]]
	[[ $output = *"watch: python3 ($victim_pid) "*"grows by "*"/s"* ]] || fail "$output"
	victim_check
}

@test "a process that does nothing" {
	start_victim idle
	probe watch "$victim_pid" -i 0.05 -d 1 --json
	status_is 0
	summary '.summary.verdict == "steady"'
	probe watch "$victim_pid" -i 0.05 -d 0.5 -q
	[[ $output = "watch: idle ($victim_pid) is steady at "* ]] || fail "$output"
	victim_check
}

@test "a recording is shown again, and as CSV" {
	growing 1000000
	probe watch "$victim_pid" -i 0.1 -d 2 -o "$BATS_TEST_TMPDIR/record" --json
	status_is 0
	recorded=$(tail -n 1 "$BATS_TEST_TMPDIR/record")
	[ "$(stat -c %a "$BATS_TEST_TMPDIR/record")" = 600 ]
	probe watch "$BATS_TEST_TMPDIR/record" --json
	status_is 0
	[ "$(tail -n 1 <<<"$output" | jq .summary.slope)" = "$(jq .summary.slope <<<"$recorded")" ]
	probe watch "$BATS_TEST_TMPDIR/record" --csv
	[[ ${lines[0]} = time,pid,name,rss,anon,* ]]
	[[ ${lines[1]} = *,"$victim_pid",'"python3"',* ]]
	# Half a line, and others that are none.
	printf '{"time": 1, \nnull\n[]\n{"time": "x"}\n\0\377\n' >>"$BATS_TEST_TMPDIR/record"
	probe watch "$BATS_TEST_TMPDIR/record" -q
	status_is 0
	[[ $output = "watch: python3"* ]]
	probe watch /etc/passwd
	status_is 3
	victim_check
}

@test "the target ends, and comes again under its name" {
	cp "$VICTIMS/idle" "$BATS_TEST_TMPDIR/again$$"
	start_command "$BATS_TEST_TMPDIR/again$$"
	record_begin watch "$victim_pid" "again$$" -i 0.05 --json
	stop_victim
	wait_until 60 grep -q 'has ended' "$record_out.err"
	start_command "$BATS_TEST_TMPDIR/again$$"
	wait_until 60 grep -q "runs again, as $victim_pid" "$record_out.err"
	wait_until 60 grep -q "\"pid\":$victim_pid" "$record_out"
	record_end
	status_is 0
	grep '"summary"' <<<"$output" | jq -se 'any(.summary.restarts == 1) and any(.summary.ended)'
	victim_check
}

@test "a condition runs a command once, with its words filled in" {
	growing 200
	probe watch "$victim_pid" -i 0.1 -d 1 -q --when 'rss>1M' \
		--run "echo {pid} {name} >>$BATS_TEST_TMPDIR/ran"
	status_is 0
	[ "$(cat "$BATS_TEST_TMPDIR/ran")" = "$victim_pid python3" ]
	probe watch "$victim_pid" -i 0.1 -d 0.5 --when 'rss>1T' --run "touch $BATS_TEST_TMPDIR/not"
	[ ! -e "$BATS_TEST_TMPDIR/not" ]
	probe watch "$victim_pid" -i 0.1 -d 0.5 --when 'threads<10' --run 'exit 3'
	[[ $stderr = *"ended with exit status 3"* ]] || fail "$stderr"
	victim_check
}

@test "a process that the kernel kills for want of memory is told from others" {
	make_group || skip "no memory cgroup can be made here"
	echo $((64 << 20)) >"$limit_file"
	# shellcheck disable=SC2016
	start_command bash -c 'echo $$ >"$1/cgroup.procs" && exec python3 -c "import sys
print(\"ready\", flush=True)
sys.stdin.readline()
kept = []
while True:
    kept.append(bytearray(b\"x\" * 1000000))"' - "$group"
	ends_with "$victim_pid" KILL
	record_begin watch "$victim_pid" -i 0.05
	victim_say go
	record_wait
	status_is 0
	[[ $stderr = *"has ended, and its control group had a process killed for want of memory"* ]] ||
		fail "$stderr"
	[[ $output = *"limit"* || $output = *"watch: python3"* ]]
}

@test "Ctrl-C does not wait for a command" {
	start_victim idle
	record_begin watch "$victim_pid" -i 0.05 --when 'rss>1K' --run "echo \$\$ >$BATS_TEST_TMPDIR/child; exec sleep 1000"
	wait_until 60 test -s "$BATS_TEST_TMPDIR/child"
	record_end
	status_is 0
	kill "$(cat "$BATS_TEST_TMPDIR/child")"
	victim_check
}

@test "a process is watched, not a file of its name" {
	cp "$VICTIMS/idle" "$BATS_TEST_TMPDIR/file$$"
	cd "$BATS_TEST_TMPDIR"
	start_command "./file$$"
	probe watch "file$$" -i 0.05 -d 0.2 -q
	status_is 0
	[[ $output = "watch: file$$ ($victim_pid) is steady"* ]] || fail "$output"
	victim_check
}

@test "watch: what makes no sense" {
	start_victim idle
	for wrong in "--when x --run y" "--when rss>1" "-i 0" "-d 0" "--csv --json" "--every x"; do
		# shellcheck disable=SC2086
		probe watch "$victim_pid" $wrong
		status_is 2
	done
	probe watch
	status_is 2
	probe watch 999999999
	status_is 3
	probe watch "no such process"
	status_is 3
	probe watch "$victim_pid" -d 1 -o /dev/full -i 0.05
	status_is 1
	victim_check
}
