#!/usr/bin/env bats
# The victims and the helpers themselves: a check that cannot fail would be worth nothing.

load lib

@test "every victim gets ready and stays as it was" {
	mkdir "$BATS_TEST_TMPDIR/files"
	for victim in $(runnable idle idle-32 idle-static idle-musl threads threads-32 \
		threads-static malloc_load malloc_load-32 malloc_load-static malloc_load-musl \
		manymaps=2000 "paths=$BATS_TEST_TMPDIR/files" heapshape heapshape-32 \
		exec_fork_exit exec_fork_exit-32); do
		# shellcheck disable=SC2086
		start_victim ${victim/=/ }
		victim_check
		stop_victim
	done
}

@test "victim_check sees a stopped victim" {
	start_victim idle
	freeze "$victim_pid"
	run victim_check
	[ "$status" -ne 0 ]
	kill -CONT "$victim_pid"
}

@test "victim_check sees a dead victim" {
	start_victim idle
	kill -KILL "$victim_pid"
	wait_until 60 is_gone "$victim_pid"
	run victim_check
	[ "$status" -ne 0 ]
}

@test "victim_check sees a changed byte of code" {
	start_victim idle
	address=$(awk '/r-xp/ && /victims/ { split($1, part, "-"); print part[1]; exit }' \
		"/proc/$victim_pid/maps")
	python3 - "$victim_pid" "$address" <<'PY'
import sys
with open(f"/proc/{sys.argv[1]}/mem", "r+b", buffering=0) as memory:
    memory.seek(int(sys.argv[2], 16) + 0xff0)
    memory.write(b"\xcc")
PY
	run victim_check
	[ "$status" -ne 0 ]
}

@test "victim_check sees another thread" {
	start_victim exec_fork_exit
	victim_say thread
	victim_wait '^thread '
	run victim_check
	[ "$status" -ne 0 ]
	# shellcheck disable=SC2034
	victim_threads_vary=1
	victim_check
}

@test "a returning wait is seen as harm" {
	start_victim threads 12
	tid=$(awk '$1 == "thread" && $3 == "sigtimedwait" { print $2 }' "$victim_out")
	python3 -c 'import ctypes, sys; ctypes.CDLL(None).syscall(234, int(sys.argv[1]), int(sys.argv[2]), 10)' \
		"$victim_pid" "$tid"
	victim_wait '^WRONG sigtimedwait'
	run victim_check
	[ "$status" -ne 0 ]
}

@test "the load of malloc_load goes on, and can be paused" {
	start_victim malloc_load 2
	victim_works
	victim_say pause
	victim_wait '^paused'
	before=$(ping)
	[ "$(ping)" -eq "$before" ]
	victim_say resume
	victim_works
	victim_check
}
