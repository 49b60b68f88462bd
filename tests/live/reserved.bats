#!/usr/bin/env bats
# Processes that have reserved terabytes: what was never touched costs nothing. Asking for it page by
# page would take tens of seconds of processor time, which is limited here.

load lib

setup() {
	local release
	release=$(uname -r)
	[[ $release =~ ^([0-9]+)\.([0-9]+) ]]
	((BASH_REMATCH[1] > 6 || (BASH_REMATCH[1] == 6 && BASH_REMATCH[2] >= 7))) ||
		skip "the kernel has no PAGEMAP_SCAN"
	start_victim reserved
}

cheap() { # COMMAND ARG...
	# shellcheck disable=SC2016
	run --separate-stderr timeout -k 5 120 bash -c 'ulimit -t 5; exec "$0" "$@"' "$MEMPROBE" "$@"
	[ "$status" -eq 0 ] || fail "exit status $status" "$stderr"
}

@test "leaks and heap of a process with large reserves" {
	for option in -q --no-fork; do
		cheap leaks "$victim_pid" --json $option
		json '.totals.leaked_count == $n' --argjson n "$(victim_truth leaked)"
		cheap heap "$victim_pid" --json $option
	done
	cheap mallinfo "$victim_pid" --json
	victim_check
}

@test "find, strings and maps of a process with large reserves" {
	cheap find "$victim_pid" 'a needle in the reserve' --in anon,shm --json
	json '.count == $n' --argjson n "$(victim_truth needles)"
	cheap strings "$victim_pid" --json
	cheap maps "$victim_pid" --json
	cheap threads "$victim_pid" --json
	victim_check
}

# No file can be as large as the address space: ext4 has 16 TiB.
@test "a core of a process with large reserves" {
	local core=$BATS_TEST_TMPDIR/core
	for option in -q --compress --no-fork; do
		rm -f "$core"
		cheap core "$victim_pid" -o "$core" --json $option
		json '.bytes < 200 * 1024 * 1024 * 1024 and .missing == []'
		cheap find "$core" 'a needle in the reserve' --in anon,shm --json
		json '.count == $n' --argjson n "$(victim_truth needles)"
		cheap leaks "$core" --json
		json '.totals.leaked_count == $n' --argjson n "$(victim_truth leaked)"
	done
	cheap mallinfo "$victim_pid" --json
	live=$(jq -S .totals <<<"$output")
	cheap mallinfo "$core" --json
	[ "$(jq -S .totals <<<"$output")" = "$live" ]
	[[ $live == *in_use* ]]
	timeout "$(patience 120)" gdb -nx --batch "$(readlink "/proc/$victim_pid/exe")" "$core" -ex bt >"$core.gdb" 2>&1
	grep -q '#[0-9]* .*main ' "$core.gdb" || fail "no stack" "$(cat "$core.gdb")"
	victim_check
}
