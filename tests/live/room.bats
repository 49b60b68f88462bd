#!/usr/bin/env bats
# Processes that must not be forked: those that have little memory left, and one that would notice.

load lib

start_limited() { # MIB OF HEAP, MIB IN ALL
	make_group || skip "no memory cgroup can be made here"
	echo $(($2 << 20)) >"$limit_file"
	# shellcheck disable=SC2016
	start_command bash -c 'echo $$ >"$1/cgroup.procs" && exec "$2" "$3"' - "$group" \
		"$VICTIMS/dirtying" "$1"
}

teardown() {
	end_everything
	[ -z "${pool:-}" ] || echo "$pool" >/proc/sys/vm/nr_hugepages
	remove_group
}

@test "who has no memory for a copy is held" {
	start_limited 100 200
	for command in leaks heap; do
		probe $command "$victim_pid" --json
		status_is 0
		json '.warnings | any(contains("no memory left for a copy"))'
	done
	probe leaks "$victim_pid" --json
	json '.totals.leaked_count == 0 and .totals.live_count >= 1024'
	victim_check
	victim_works
}

@test "who writes so much that a copy takes the rest lives on" {
	start_limited 200 345
	for i in 1 2 3 4 5; do
		probe leaks "$victim_pid"
		# In time, or given up.
		[ "$status" -eq 0 ] || [[ $status -eq 1 && $stderr = *"was given up"* ]]
	done
	probe leaks "$victim_pid" --no-fork
	status_is 0
	victim_check
	victim_works
}

@test "rings of events leave room to a target in the same group" {
	skip_unless_root
	start_limited 100 200
	for command in syscalls faults 'allocs --engine=uprobe'; do
		# shellcheck disable=SC2016,SC2086
		run -0 timeout "$(patience 60)" bash -c 'echo $$ >"$1/cgroup.procs" && shift && exec "$@"' - "$group" \
			"$MEMPROBE" $command "$victim_pid" -d 300ms --json
	done
	peak=$(cat "${limit_file%/*}/memory.max_usage_in_bytes" 2>/dev/null ||
		cat "${limit_file%/*}/memory.peak")
	[ "$peak" -lt $((170 << 20)) ] || fail "$((peak >> 20)) MiB of 200 taken"
	victim_check
	victim_works
}

# memprobe is in the group, as by `kubectl exec`.
record_in_group() { # COMMAND ARG...
	printf '#!/bin/bash\necho $$ >%q/cgroup.procs && exec %q "$@"\n' "$group" "$MEMPROBE" \
		>"$BATS_TEST_TMPDIR/memprobe"
	chmod +x "$BATS_TEST_TMPDIR/memprobe"
	MEMPROBE=$BATS_TEST_TMPDIR/memprobe record_begin "$@"
}

# manyblocks, which has about 70 MiB in the end, and so has the recording of every block.
start_many() { # MIB OF THE GROUP
	skip_unless_root
	make_group || skip "no memory cgroup can be made here"
	echo $(($1 << 20)) >"$limit_file"
	# shellcheck disable=SC2016
	start_command bash -c 'echo $$ >"$1/cgroup.procs" && exec "$2"' - "$group" \
		"$VICTIMS/manyblocks"
}

nobody_was_killed() {
	! grep -qE '^oom_kill [1-9]' "$group/memory.oom_control" "$group/memory.events" 2>/dev/null ||
		fail "the group had to be relieved" "$stderr"
}

# Within ten standard deviations of @3 samples.
is_about() { # FUNCTION, LIVE, SAMPLES
	local got
	got=$(figures_of "$1")
	awk -v live="$2" -v samples="$3" '{
		exit !($1 > live * (1 - 10 / sqrt(samples)) &&
			$1 < live * (1 + 10 / sqrt(samples))) }' <<<"$got" ||
		fail "$got instead of about $2" "$stderr"
}

samples_in_little_room() { # ARG...
	local step
	start_many 100
	record_in_group allocs "$victim_pid" --json "$@"
	for step in {1..60}; do
		victim_say go
		victim_wait "^live $((step * 10000)) " >/dev/null
	done
	record_end
	status_is 0
	json '.rate >= 65536 and .lost == 0'
	# 28M in blocks of 47 bytes on average: some 430 samples.
	is_about keep 600000 400
	nobody_was_killed
	victim_check
}

@test "a recording at the default rate, in a group with little room" {
	samples_in_little_room
}

@test "a recording at the default rate, in a group with little room and --max-memory" {
	samples_in_little_room --max-memory 8M
}

@test "a recording of every block leaves room to a target in the same group" {
	local step
	start_many 128
	record_in_group allocs "$victim_pid" --sample 1 --max-memory 1G --json
	for step in {1..100}; do
		victim_say go
		victim_wait "^live $((step * 10000)) " >/dev/null
		sleep 0.05
	done
	record_end
	status_is 6
	[[ $stderr == *"the recording has reached "*"a sample is taken every "* ]] || fail "$stderr"
	json '.rate > 1 and (.lost < 2000)'
	is_about keep 1000000 10000
	nobody_was_killed
	victim_check
	victim_say go
	victim_wait "^live $(((step + 1) * 10000)) " >/dev/null
}

@test "a recording stops growing when others take the group's memory" {
	local step pid in out
	start_many 200
	record_in_group allocs "$victim_pid" --sample 1 --json
	for step in {1..20}; do
		victim_say go
		victim_wait "^live $((step * 10000)) " >/dev/null
		sleep 0.05
	done
	pid=$victim_pid in=$victim_in out=$victim_out
	# shellcheck disable=SC2016
	start_command bash -c 'echo $$ >"$1/cgroup.procs" && exec "$2" 80' - "$group" \
		"$VICTIMS/dirtying"
	victim_pid=$pid victim_in=$in victim_out=$out
	for step in {21..60}; do
		victim_say go
		victim_wait "^live $((step * 10000)) " >/dev/null
		sleep 0.05
	done
	record_end
	status_is 6
	nobody_was_killed
	victim_check
	victim_say go
	victim_wait "^live $(((step + 1) * 10000)) " >/dev/null
}

@test "recordings of faults and system calls end in time" {
	local command
	start_many 256
	for command in faults 'faults --all' 'syscalls' 'allocs --engine=uprobe'; do
		# The victim goes on until the recording takes more than nothing.
		# shellcheck disable=SC2086
		record_in_group $command "$victim_pid" --max-memory 4K --json
		wait_until 60 goes_until_recorded
		record_wait
		status_is 6
		[[ $stderr == *"ends: it has reached its limit of memory (4.0K, --max-memory)"* ]] ||
			fail "$command: $stderr"
		# On a slow machine that may be before the first event has been looked at.
		json '.sites | type == "array"'
	done
	for command in faults syscalls 'allocs --engine=uprobe' 'allocs --sample 1'; do
		# shellcheck disable=SC2086
		record_in_group $command "$victim_pid" --json
		leave_of_group 8
		record_wait
		echo $((256 << 20)) >"$limit_file"
		status_is 6
		[[ $stderr == *" ends: its memory cgroups, or memprobe's, leave only "* ]] ||
			fail "$command: $stderr"
	done
	nobody_was_killed
	victim_check
}

goes_until_recorded() {
	! grep -q ' ends: ' "$record_out.err" || return 0
	victim_say go
	sleep 0.1
	is_gone "$record_pid"
}

leave_of_group() { # MIB
	local used idle
	used=$(cat "$group/memory.usage_in_bytes" 2>/dev/null || cat "$group/memory.current")
	idle=$(awk '/^(total_)?inactive_file / { idle = $2 } END { print idle + 0 }' \
		"$group/memory.stat")
	echo $((used - idle + ($1 << 20))) >"$limit_file"
}

@test "who would be told of a fork is held instead" {
	start_victim forktold
	! grep -q '^refused' "$victim_out" || skip "no userfaultfd here"
	for command in leaks heap; do
		probe $command "$victim_pid" --json
		status_is 0
		json '.warnings | any(contains("told of forks"))'
	done
	victim_check
}

# A pool of two free huge pages, for a victim that takes both.
start_with_pool() { # private|shared
	local free
	skip_unless_root
	[ -w /proc/sys/vm/nr_hugepages ] || skip "there are no huge pages here"
	pool=$(cat /proc/sys/vm/nr_hugepages)
	free=$(awk '/HugePages_Free/ { print $2 }' /proc/meminfo)
	[ "$free" -eq 0 ] || skip "somebody else has a pool of huge pages"
	echo $((pool + 2)) >/proc/sys/vm/nr_hugepages
	[ "$(awk '/HugePages_Free/ { print $2 }' /proc/meminfo)" -eq 2 ] || skip "no huge pages left"
	start_victim hugepages "$1" 2
	! grep -q '^refused' "$victim_out" || skip "the huge pages are gone"
}

@test "who has private huge pages of the pool is held" {
	start_with_pool private
	for command in leaks heap "core -o $BATS_TEST_TMPDIR/core"; do
		# shellcheck disable=SC2086
		probe $command "$victim_pid" --json
		status_is 0
		json '.warnings | any(contains("private huge pages of the pool"))'
		victim_works
	done
	victim_check
}

@test "who shares its huge pages is forked" {
	start_with_pool shared
	probe leaks "$victim_pid" --json
	status_is 0
	json '.warnings == []'
	victim_works
	victim_check
}

@test "who may have hardly any more tasks is held" {
	skip_unless_root
	local base
	for base in /sys/fs/cgroup/pids /sys/fs/cgroup; do
		[ -e "$base/cgroup.procs" ] || continue
		group=$base/memprobe-test-$$-$BATS_TEST_NUMBER
		mkdir "$group" 2>/dev/null || continue
		[ ! -e "$group/pids.max" ] || break
		rmdir "$group"
		group=
	done
	[ -n "${group:-}" ] || skip "no group with pids.max can be made here"
	# shellcheck disable=SC2016
	start_command bash -c 'echo $$ >"$1/cgroup.procs" && exec "$2"' - "$group" "$VICTIMS/leaks"
	probe leaks "$victim_pid" --json
	status_is 0
	json '.warnings == []'
	echo 6 >"$group/pids.max"
	probe leaks "$victim_pid" --json
	status_is 0
	json '.warnings | any(contains("pids.max"))'
	victim_check
}

@test "whose user may have hardly any more processes is held" {
	skip_unless_root
	prepare_user
	install -m 755 "$VICTIMS/sharing" "${user_memprobe%/*}/sharing"
	install -d -o 65534 "${user_memprobe%/*}/locks"
	# shellcheck disable=SC2016
	start_command setpriv --reuid=65534 --regid=65534 --clear-groups -- \
		bash -c 'ulimit -u 2 && exec "$0" "$1"' "${user_memprobe%/*}/sharing" \
		"${user_memprobe%/*}/locks"
	probe leaks "$victim_pid" --json
	status_is 0
	json '.warnings | any(contains("ulimit -u"))'
	victim_check
}
