#!/usr/bin/env bats
# watch --guard: what is left of a process that ran out of memory.

load lib

teardown() {
	end_everything
	remove_group
}

# In the group: grows by 100 KB at a time when it is told to, until it is killed.
start_grower() {
	# shellcheck disable=SC2016
	start_command bash -c 'echo $$ >"$1/cgroup.procs" && exec python3 -c "import sys, time
print(\"ready\", flush=True)
sys.stdin.readline()
kept = []
while True:
    kept.append(b\"x\" * 100000 + bytes(str(len(kept)), \"ascii\"))
    time.sleep(0.01)"' - "$group"
}

recorded() { # The agent is in it.
	grep -q 'memprobe' "/proc/$victim_pid/maps"
}

@test "a process that is killed for want of memory leaves a report" {
	make_group || skip "no memory cgroup can be made here"
	echo $((96 << 20)) >"$limit_file"
	start_grower
	ends_with "$victim_pid" KILL
	record_begin watch "$victim_pid" -i 0.1 --guard "$BATS_TEST_TMPDIR/guard"
	wait_until 60 recorded
	victim_say go
	record_wait
	status_is 0
	[[ $stderr = *"was killed for want of memory: writing "* ]] || fail "$stderr"
	cd "$BATS_TEST_TMPDIR/guard"
	# What was there while it was alive, and after that.
	jq -e '.reason == "killed for want of memory" and .last.rss > 30000000' report-*/event.json |
		grep -q true
	grep -q "was killed" report-*/oom.txt
	grep -q "^maps: exit status 0" report-*/messages.txt
	grep -q "heap" report-*/maps.txt
	jq -e '.command == "mallinfo"' report-*/mallinfo.json
	grep -q "resident" report-*/diagnose.txt
	grep -q "PyBytes\|_PyEval\|bytes_" report-*/stacks.txt
	[ "$(cat report-*/rss.csv | wc -l)" -gt 3 ]
	for report in report-*; do
		[ "$(stat -c %a "$report")" = 700 ]
		[ "$(du -s --apparent-size -B1 "$report" | cut -f1)" -lt 1000000 ]
	done
	[ -z "$(find . -name 'recording-*')" ]
}

@test "a process that ends by itself, and one that is well, leave none" {
	start_victim idle
	first=$victim_pid
	start_victim idle
	record_begin watch "$first" "$victim_pid" -i 0.1 --guard "$BATS_TEST_TMPDIR/guard"
	wait_until 60 recorded
	ends_with "$first" TERM
	kill "$first"
	wait_until 60 grep -q 'has ended' "$record_out.err"
	record_end
	status_is 0
	[ -z "$(ls -A "$BATS_TEST_TMPDIR/guard")" ]
	run -1 recorded
	victim_check
}

@test "killed itself, it takes its recording with it" {
	start_victim idle
	record_begin watch "$victim_pid" -i 0.1 --guard "$BATS_TEST_TMPDIR/guard"
	wait_until 60 recorded
	record_kill
	gone() { ! recorded; }
	wait_until 60 gone
	victim_check
}

@test "guard: what makes no sense" {
	start_victim idle
	probe watch "$victim_pid" --guard /proc/none
	status_is 1
	probe watch "$victim_pid" --guard /etc/passwd
	status_is 1
	probe watch "$victim_pid" --guard "$BATS_TEST_TMPDIR" --when 'rss>1' --run true
	status_is 2
	victim_check
}
