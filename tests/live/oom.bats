#!/usr/bin/env bats
# oom: the kernel's out-of-memory kills, from logs and from this machine.

load lib

LOGS=$ROOT/tests/unit/oom

# A memory cgroup of our own; version 1 and 2.
make_group() { # BYTES
	local base
	for base in /sys/fs/cgroup/memory /sys/fs/cgroup; do
		[ -e "$base/cgroup.procs" ] || continue
		group=$base/memprobe-oom-$BASHPID
		mkdir "$group" 2>/dev/null || continue
		if echo "$1" 2>/dev/null >"$group/memory.limit_in_bytes"; then
			return
		elif echo "$1" 2>/dev/null >"$group/memory.max"; then
			echo 0 2>/dev/null >"$group/memory.swap.max" || true
			return
		fi
		rmdir "$group"
	done
	return 1
}

teardown() {
	end_everything
	[ -z "${group:-}" ] || rmdir "$group" || true
}

@test "the article's log, as it was and without a blank, says the same" {
	probe oom "$LOGS/4.4-article.log" --bytes
	[ "$status" -eq 0 ]
	[ "${lines[0]}" = "oom: main (PID 11344, RSS 189161472 bytes) was killed 14808.083306 s after boot: its cgroup reached its limit of 209715200 bytes" ]
	grep -qF '7137099fca1cab6 limit 209715200 bytes, usage 209715200 bytes, failed 4,563 times' <<<"$output"
	grep -qF 'mostly anonymous memory, 96% of the usage' <<<"$output"
	grep -qE '^11344  main \(killed\)  189173760 ' <<<"$output"
	[[ $stderr == hint:*memprobe*heap\ main* ]]
	head -n 6 <<<"$output" >"$BATS_TEST_TMPDIR/spaced"
	run -0 memprobe oom - --bytes -q <"$LOGS/4.4-squeezed.log"
	head -n 6 <<<"$output" | diff "$BATS_TEST_TMPDIR/spaced" -
	grep -qF '2 rows of the table cannot be read' <<<"$output"
}

@test "JSON has the kills, in bytes" {
	run -0 memprobe oom "$LOGS/4.4-article.log" --json
	json '.schema == "memprobe/1" and .command == "oom" and (.kills | length) == 1'
	json '.kills[0] | .time == "14808.083306" and .victim_pid == 11344 and .victim == "main" and
		.rss == (183712 + 1016) * 1024 and .limit == 204800 * 1024 and .failures == 4563 and
		(.cgroup | startswith("/docker/34186d9bd077")) and .constraint == "memcg"'
	json '.kills[0].processes == [
		{pid: 11344, name: "main", uid: 0, rss: (46185 * 4096), total_vm: (97590 * 4096),
		 swap: 0, page_tables: (118 * 4096), oom_score_adj: 0},
		{pid: 10517, name: "go", uid: 0, rss: (4784 * 4096), total_vm: (74852 * 4096),
		 swap: 0, page_tables: (37 * 4096), oom_score_adj: 0}]'
	run -0 memprobe oom "$LOGS/2.6.18-syslog.log" --json
	json '.kills[0] | .rss == null and (has("limit") or has("cgroup") | not) and .processes == []'
}

@test "whatever the log, its JSON is whole" {
	for log in "$LOGS"/*.log; do
		memprobe oom "$log" --json -q || fail "$log"
	done >"$BATS_TEST_TMPDIR/all"
	output=$(cat "$BATS_TEST_TMPDIR/all")
	json 'length > 60 and all(.[].kills[]; has("time") and has("victim_pid") and
		has("victim") and has("rss") and (.processes | type) == "array" and
		all(.processes[]; has("pid") and has("name") and has("rss") and has("total_vm")))' -s
}

@test "several kills are listed; the details are of the last, or of all" {
	run -0 memprobe oom "$LOGS/6.x-rate-limited.log" -q
	[[ ${lines[0]} == "oom: 3 kills; the last: c (PID 103, "*"the machine was out of memory" ]]
	[ "$(grep -c '^killed:' <<<"$output")" -eq 1 ]
	run -0 memprobe oom "$LOGS/6.x-rate-limited.log" -q --all
	[ "$(grep -c '^killed:' <<<"$output")" -eq 3 ]
	run -0 memprobe oom "$LOGS/6.x-rate-limited.log" -q --top 1
	grep -qx '2 earlier kills are not shown' <<<"$output"
	# Of a group, the one that the kernel chose.
	run -0 memprobe oom "$LOGS/6.x-group.log" -q
	[[ ${lines[0]} == "oom: 2 kills; the last: node (PID 22609, "* ]]
	[ "$(grep -c '(killed)' <<<"$output")" -eq 2 ]
}

@test "a log without a kill, a cut one, and none at all" {
	run -0 memprobe oom "$LOGS/none.log"
	[ "$output" = "oom: no out-of-memory kill in $LOGS/none.log" ]
	run -0 memprobe oom /dev/null --json
	json '.kills == [] and .without_kill == 0'
	probe oom "$LOGS/4.4-end-cut.log"
	[ "$status" -eq 0 ]
	[[ $output == "oom: main (PID 11344, RSS 180M) was chosen to be killed "* ]]
	[[ $stderr == *"warning: the log is cut"* ]]
	probe oom "$BATS_TEST_TMPDIR/missing"
	[ "$status" -eq 1 ]
	probe oom a b
	[ "$status" -eq 2 ]
	gzip <"$LOGS/4.4-article.log" >"$BATS_TEST_TMPDIR/log.gz"
	probe oom "$BATS_TEST_TMPDIR/log.gz"
	[ "$status" -eq 1 ]
	[[ $stderr == *"is compressed"*"hint: zcat $BATS_TEST_TMPDIR/log.gz | memprobe oom -"* ]]
}

@test "foreign bytes do not reach the terminal" {
	log=$BATS_TEST_TMPDIR/log
	printf 'Killed process 7 (a\x1b]0;b\xff) total-vm:4kB, anon-rss:4kB, file-rss:0kB\n' >"$log"
	run -0 memprobe oom "$log" -q
	[[ $output != *$'\x1b'* && $output == *'\xff (PID 7, '* ]]
	run -0 memprobe oom "$log" --json
	json '.kills[0].victim_pid == 7'
}

@test "a kill by a cgroup's limit here is found in /dev/kmsg, with the kernel's figures" {
	skip_unless_root
	dd if=/dev/kmsg iflag=nonblock of=/dev/null bs=16k count=1 2>/dev/null ||
		skip "no /dev/kmsg can be read here"
	make_group $((24 << 20)) || skip "no memory cgroup can be made here"
	# It fills its memory until it is killed.
	run bash -c 'echo $$ >"$1/cgroup.procs" && exec python3 -c "
import os
print(os.getpid(), flush=True)
hog = bytearray(256 << 20)"' - "$group"
	pid=${lines[0]}
	[ "$status" -eq 137 ] || skip "the kernel did not kill it"
	probe oom --json
	[ "$status" -eq 0 ]
	json '.source == "/dev/kmsg"'
	output=$(json_get '.kills | map(select(.victim_pid == $pid)) | last' --argjson pid "$pid")
	json '.victim == "python3" and .certain and .rss > 8 * 1048576 and .rss < 64 * 1048576 and
		.rss == .anon_rss + .file_rss + .shmem_rss'
	# Where messages come too fast, the kernel leaves out all but the kill.
	json '.trigger' || skip "the kernel limited the rate of its messages"
	json '.limit == 24 * 1048576 and .cgroup == $group' --arg group "/${group##*/}"
	json '.processes[0] | .pid == $pid and .name == "python3"' --argjson pid "$pid"
}

# ---- without the right to read /dev/kmsg ----

# /dev/kmsg is root's alone, and PATH has a journalctl or none.
private_kmsg() { # ARG...: of memprobe
	touch "$dir/kmsg"
	chmod 600 "$dir/kmsg"
	run --separate-stderr timeout "$(patience 60)" unshare -m bash -c '
		mount --make-rprivate / && mount --bind "$0/kmsg" /dev/kmsg &&
		exec env PATH="$0" "$(command -v setpriv)" --reuid=65534 --regid=65534 --clear-groups \
			-- "$0/memprobe" oom "$@"' "$dir" "$@"
}

prepare() {
	skip_unless_root
	unshare -m true || skip "no mount namespaces"
	[ -e /dev/kmsg ] || skip "no /dev/kmsg here"
	make_public_dir
	dir=$public_dir
	cp "$MEMPROBE" "$dir/memprobe"
	chmod 755 "$dir/memprobe"
}

@test "who may not read the log is told so, and how to: exit 4" {
	prepare
	private_kmsg
	[ "$status" -eq 4 ]
	[ -z "$output" ]
	[[ $stderr == "memprobe: cannot open /dev/kmsg: permission denied"*"hint: "*"dmesg -T | memprobe oom -"* ]] ||
		fail "$stderr"
}

@test "the journal is read where /dev/kmsg cannot be" {
	prepare
	printf '#!/bin/sh\n[ "$*" = "-k -q --no-pager -o short-iso" ] || exit 1\nexec /bin/cat %q\n' \
		"$dir/log" >"$dir/journalctl"
	chmod 755 "$dir/journalctl"
	cp "$LOGS/5.10-journal-iso.log" "$dir/log"
	chmod 644 "$dir/log"
	private_kmsg --json
	[ "$status" -eq 0 ] || fail "$stderr"
	json '.source == "the journal" and .kills[0].time == "2021-04-01T16:45:10+0200"'
	# One that is empty is one that this user may not read.
	: >"$dir/log"
	private_kmsg
	[ "$status" -eq 4 ]
}
