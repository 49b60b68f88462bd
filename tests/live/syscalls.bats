#!/usr/bin/env bats
# syscalls: who maps how much, against a victim that knows it.

load lib

setup_file() {
	# Where nobody may watch, only the refusal can be tested.
	local pid=$$ status=0
	"${BUILD:-$BATS_TEST_DIRNAME/../../build}"/memprobe syscalls $pid -d 1ms >/dev/null 2>&1 || status=$?
	[ $status -eq 0 ] || export SYSCALLS_FORBIDDEN=1
}

setup() {
	[ -z "${SYSCALLS_FORBIDDEN:-}" ] || skip 'tracepoints are not permitted here'
}

# The sum of KEY over all sites of FUNCTION whose leaf is SYSCALL.
sum_of() {
	json_get '[.sites[] | select((.frames | index($f)) and (.frames[-1] | startswith($c + "("))) |
		.[$k]] | add // 0' --arg f "$1" --arg c "$2" --arg k "$3"
}

record_calls() { # [OPTION...]
	start_victim mapcalls
	record_begin syscalls "$victim_pid" --json "$@"
	victim_say go
	victim_wait '^done$'
	record_end
	victim_check
}

@test "syscalls: count, bytes and what is still mapped, by function" {
	record_calls
	status_is 0
	json '.lost == 0 and .truncated == 0'
	while read -r _ function call count bytes net; do
		[ "$(sum_of "$function" "$call" count)" -eq "$count" ] || fail "$function $call" "$output"
		[ "$(sum_of "$function" "$call" bytes)" -eq "$bytes" ] || fail "$function $call" "$output"
		[ "$(sum_of "$function" "$call" net_bytes)" -eq "$net" ] || fail "$function $call" "$output"
	done < <(grep '^call' "$victim_out")
	json '.calls.mmap.failed == 1 and .calls.munmap.count >= 8 and .child_events >= 1'
	json '[.sites[].frames[-1]] | index("madvise(MADV_DONTNEED)") and
		index("mmap(PROT_READ|PROT_WRITE, MAP_PRIVATE|MAP_ANONYMOUS)") and
		index("mprotect(PROT_READ)") and index("mremap(MREMAP_MAYMOVE|MREMAP_FIXED)")'
	[ "$(sum_of large_malloc mmap count)" -eq 1 ]
}

@test "syscalls --min-size leaves small calls out, not their effect" {
	record_calls --min-size 8M
	status_is 0
	[ "$(sum_of map_and_keep mmap count)" -eq 0 ]
	[ "$(sum_of map_with_hole mmap bytes)" -eq $((8 << 20)) ]
	[ "$(sum_of map_with_hole mmap net_bytes)" -eq $((6 << 20)) ]
	[ "$(sum_of grow_and_move mremap net_bytes)" -eq $((6 << 20)) ]
}

@test "syscalls: 20,000 pairs are all there and leave nothing mapped" {
	start_victim mapcalls
	record_begin syscalls "$victim_pid" --json
	victim_say pairs 20000
	victim_wait '^paired'
	record_end
	status_is 0
	victim_check
	json '.lost == 0 and .calls.mmap.count >= 20000 and .calls.munmap.count >= 20000'
	[ "$(sum_of command mmap net_bytes)" -eq 0 ]
}

@test "syscalls: the table shows the call, and folded stacks end with it" {
	start_victim mapcalls
	record_begin syscalls "$victim_pid"
	victim_say go
	victim_wait '^done$'
	record_end
	status_is 0
	[[ $output == *CALL*FUNCTION* ]]
	[[ $output == *'madvise(MADV_DONTNEED)'*advise* ]]
	record_begin syscalls "$victim_pid" -f
	victim_say pairs 10
	victim_wait '^paired'
	record_end
	grep -qE '^.*;munmap\(\) 10485760$' <<<"$output" || fail "$output"
	victim_check
}

@test "syscalls: the target ends or is killed with us" {
	start_victim mapcalls
	record_begin syscalls "$victim_pid" --json
	victim_say go
	victim_wait '^done$'
	stop_victim
	record_wait
	status_is 0
	json '.calls.mmap.count > 10'
	start_victim mapcalls
	record_begin syscalls "$victim_pid" --json
	victim_say go
	kill -KILL "$record_pid"
	victim_wait '^done$'
	victim_check
}

@test "syscalls: no 32-bit process, and nobody without the right" {
	start_victim mapcalls-32
	probe syscalls "$victim_pid" -d 1s
	status_is 5
	[[ $stderr == *'32-bit'* ]]
	victim_check
	skip_unless_root
	start_victim_as_user mapcalls
	run as_user timeout 60 "$user_memprobe" syscalls "$victim_pid" -d 1s
	[ "$status" -eq 4 ] || [ "$(cat /proc/sys/kernel/perf_event_paranoid)" -lt 0 ]
	victim_check
}
