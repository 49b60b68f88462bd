#!/usr/bin/env bats
# diagnose: the parts of a process's memory, and the verdicts, on programs with a known trouble and on
# healthy ones.

load lib

teardown() {
	end_everything
	remove_group
}

# The parts and what is unexplained are all that is resident, and little is unexplained.
adds_up() {
	json '([.parts[].bytes] | add) + .unexplained == .rss'
	json '.unexplained <= 2097152 or .unexplained * 50 <= .rss'
}

is_found() { # DISEASE ID...
	local id
	start_victim diseases "$1"
	probe diagnose "$victim_pid" --json
	status_is 0
	adds_up
	json '[.verdicts[].id] == $ids' --argjson ids "$(printf '%s\n' "${@:2}" | jq -R . | jq -s .)"
	json '.verdicts | all(.bytes > 0 and .share > 0 and .text != "" and (.next | length) > 0)'
	victim_check
	stop_victim
}

@test "troubles of the heap" {
	is_found leak leak
	is_found free allocator-free
	is_found fragmented fragmentation
	is_found arenas allocator-free arenas
}

@test "memory that is no heap" {
	is_found stacks thread-stacks
	is_found files mapped-files
	is_found shared shmem
}

@test "huge pages with little in them" {
	[[ $(cat /sys/kernel/mm/transparent_hugepage/enabled) != *"[never]"* ]] ||
		skip "no huge pages here"
	is_found huge huge-pages
}

@test "many mappings" {
	[ "$(cat /proc/sys/vm/max_map_count)" -le 65530 ] || skip "more mappings are allowed here"
	is_found mapped map-count
}

@test "a healthy program has no trouble" {
	for health in idle cache untouched; do
		is_found $health steady
	done
}

@test "every leak is counted" {
	start_victim leaks 1000 0
	probe diagnose "$victim_pid" --json
	status_is 0
	adds_up
	# A stale word may hide one.
	json '.verdicts[0] | .id == "leak" and .bytes <= $n and .bytes >= $n * 0.99' \
		--argjson n "$(victim_truth planted | cut -d' ' -f2)"
	victim_check
}

@test "a target alone is diagnosed: a process id, a name, a core" {
	start_victim diseases leak
	ln -s "$VICTIMS/diseases" "$BATS_TEST_TMPDIR/ill$$"
	probe "$victim_pid"
	status_is 0
	[[ ${lines[0]} = *"% of "*" is leaked: nothing points to these 8,"*" blocks (8.0M) any more" ]] ||
		fail "$output"
	[[ $output = *"memprobe leaks $victim_pid"* ]]
	probe -q "$victim_pid" --json
	json '.command == "diagnose" and .verdicts[0].id == "leak"'
	memprobe core "$victim_pid" -o "$BATS_TEST_TMPDIR/core" -q
	probe "$BATS_TEST_TMPDIR/core" --json
	status_is 0
	json '.rss == null and .verdicts[0].id == "leak" and .verdicts[0].bytes > 8000000'
	start_command "$BATS_TEST_TMPDIR/ill$$" free
	probe "ill$$" --json
	status_is 0
	json '.verdicts[0].id == "allocator-free"'
	victim_check
}

@test "the limit of its control group" {
	make_group || skip "no memory cgroup can be made here"
	echo $((64 << 20)) >"$limit_file"
	# shellcheck disable=SC2016
	start_command bash -c 'echo $$ >"$1/cgroup.procs" && exec "$2" cache' - "$group" \
		"$VICTIMS/diseases"
	probe diagnose "$victim_pid" --json
	status_is 0
	adds_up
	json '[.verdicts[].id] == ["steady"]'
	echo $((46 << 20)) >"$limit_file"
	probe diagnose "$victim_pid" --json
	json '.verdicts[0] | .id == "limit" and .share > 0.8 and .share <= 1'
	victim_check
}

@test "a ulimit that is nearly reached" {
	local size
	start_victim diseases idle
	probe diagnose "$victim_pid" --json
	json '[.verdicts[].id] == ["steady"]'
	size=$(sed -nE 's/^VmSize:\s*([0-9]+) kB/\1/p' "/proc/$victim_pid/status")
	prlimit --pid "$victim_pid" --as=$((size * 1024 / 90 * 100)):
	probe diagnose "$victim_pid" --json
	status_is 0
	json '.verdicts[0] | .id == "limit" and .share > 0.88 and .share < 0.92 and
		(.text | contains("ulimit -v"))'
	victim_check
}

@test "a program whose heap cannot be read says so" {
	start_victim idle-musl
	probe diagnose "$victim_pid"
	status_is 0
	[[ $output = *"not searched for leaks: "* ]] || fail "$output"
	victim_check
}

@test "diagnose runs nothing in the target and holds no thread for long" {
	start_victim malloc_load 4
	probe diagnose "$victim_pid" --json
	status_is 0
	adds_up
	victim_works
	victim_check
}
