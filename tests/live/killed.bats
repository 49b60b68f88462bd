#!/usr/bin/env bats
# memprobe killed in the midst of a snapshot: no child stays, neither frozen nor as a zombie, no
# thread, no memory, and the target goes on. In large by `make torture`, which sets TORTURE=long.

load lib
load kill_series

maps_of() {
	sed 's/ .*//' "/proc/$1/maps"
}

maps_are() { # PID MAPS
	[ "$(maps_of "$1")" = "$2" ]
}

# A target that allocates nothing has the very same mappings afterwards.
check_quiet() { # VICTIM [ARG...]
	local maps
	start_victim "$@"
	maps=$(maps_of "$victim_pid")
	kill_snapshots "$victim_pid" "$(count 16 300)"
	wait_until 60 maps_are "$victim_pid" "$maps" ||
		fail "$(diff <(echo "$maps") <(maps_of "$victim_pid"))"
	probe call "$victim_pid" 'getpid()'
	status_is 0
	victim_check
}

@test "a snapshot's end: a quiet process" {
	check_quiet leaks 20000 3
}

@test "a snapshot's end: of 32 bit" {
	check_quiet leaks-32 20000 3
}

@test "a snapshot's end: threads that are always in malloc" {
	start_victim malloc_load 2
	kill_snapshots "$victim_pid" "$(count 12 300)"
	victim_works
	victim_threads_vary=1 victim_stub_may_stay=1 victim_check
}

# Nobody but itself would reap what is handed to it.
@test "a snapshot's end: PID 1 of a container" {
	local inner
	skip_unless_root
	unshare --pid --fork --mount-proc true || skip "cannot unshare the PID namespace"
	start_command unshare --pid --fork --kill-child --mount-proc "$VICTIMS/malloc_load" 2
	inner=$(cat "/proc/$victim_pid/task/$victim_pid/children")
	inner=${inner%% *}
	grep -qE '^NSpid:.*[[:space:]]1$' "/proc/$inner/status"
	kill_snapshots "$inner" "$(count 12 300)"
	victim_works
	[ "$(cat "/proc/$victim_pid/task/$victim_pid/children")" = "$inner " ]
}
