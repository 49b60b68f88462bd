#!/usr/bin/env bats
# Threads that had better not be stopped, or cannot be.

load lib

in_vfork() {
	grep -q '^State:[[:space:]]*D' "/proc/$victim_pid/status"
}

@test "who sleeps uninterruptibly has not exited: 7, and where it sleeps" {
	for victim in in_vfork in_vfork-32; do
		start_victim $victim
		wait_until 60 in_vfork
		for command in stack "mallinfo --method=call" trim "allocs -d 1" leaks heap \
			"core -o $BATS_TEST_TMPDIR/core" "call getppid()"; do
			# shellcheck disable=SC2086
			set -- $command
			# Uprobes, which stop nobody.
			[ "$victim $1" = "in_vfork-32 allocs" ] && continue
			[ "$1" = call ] && set -- call "$victim_pid" 'getppid()' ||
				set -- "$1" "$victim_pid" "${@:2}"
			probe "$@" --timeout 300ms
			status_is 7
			[[ $stderr == *"sleeps uninterruptibly in vfork()"* ]] || fail "$stderr"
			in_vfork || fail "$*: it does not sleep any more"
		done
		[ ! -e "$BATS_TEST_TMPDIR/core" ]
		victim_say go
		victim_wait 'vfork over'
		victim_check
		probe stack "$victim_pid"
		status_is 0
		stop_victim
	done
}

@test "one thread of many that sleeps uninterruptibly is left out, with a word" {
	start_victim in_vfork threads
	wait_until 60 in_vfork
	probe stack "$victim_pid" --json
	status_is 6
	[[ $stderr == *"thread $victim_pid is left out: it sleeps uninterruptibly in vfork()"* ]] ||
		fail "$stderr"
	json '.threads | length == 1'
	victim_say go
	victim_wait 'vfork over'
	victim_check
}
