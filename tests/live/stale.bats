#!/usr/bin/env bats
# What a busy thread keeps on its stack from former calls is no reason to refuse it.

load lib

trims() { # VICTIM
	start_victim "$1"
	[ "$(victim_truth stale)" -gt 0 ] # else this would test nothing
	for _ in 1 2 3; do
		probe trim "$victim_pid" --json
		status_is 0
		probe mallinfo "$victim_pid" --method=call --json
		status_is 0
		json '.totals.system > 0'
	done
	victim_check
}

@test "stale return addresses into malloc, 64 bits" {
	trims stale
}

@test "stale return addresses into malloc, 32 bits" {
	trims stale-32
}
