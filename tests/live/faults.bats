#!/usr/bin/env bats
# faults: what stays in memory, by function, against a victim that knows it.

load lib

setup_file() {
	# Where nobody may watch, only the refusal can be tested.
	"${BUILD:-$BATS_TEST_DIRNAME/../../build}"/memprobe faults $$ -d 1ms >/dev/null 2>&1 ||
		export FAULTS_FORBIDDEN=1
}

setup() {
	[ -z "${FAULTS_FORBIDDEN:-}" ] || skip 'perf events are not permitted here'
}

# Bytes of all sites below FUNCTION.
bytes_of() {
	json_get '[.sites[] | select(.frames | index($f)) | .bytes] | add // 0' --arg f "$1"
}

# Of so little stack with each, the rings take all faults of the victim, though memprobe may get no CPU
# meanwhile.
SMALL=--stack-size=1K

record_shape() { # VARIANT [OPTION...]
	start_victim "$1"
	shift
	record_begin faults "$victim_pid" --json $SMALL "$@"
	victim_say go
	victim_wait '^done$'
	record_end
	victim_check
}

@test "faults: what each function brought and is still there, to the page" {
	record_shape faultshape
	status_is 0
	# It needs more stack to read its commands.
	json '.lost == 0 and .net and .truncated < 50'
	while read -r _ function bytes; do
		got=$(bytes_of "$function")
		# A page of its stack or of libc may be new, too.
		[ $((got - bytes)) -ge 0 ] && [ $((got - bytes)) -le 65536 ] ||
			fail "$function: $got instead of $bytes" "$output"
	done < <(grep '^stays' "$victim_out")
}

@test "faults: the sites and what is gone are the change of RSS" {
	record_shape faultshape
	status_is 0
	json '.rss_after - .rss_before == .new - .gone'
	json '([.sites[].bytes] | add) == .new and .totals.bytes == .new'
	json '.gone >= 16777216 and .gone < 18000000'	# mremap has moved so much
	json '.unattributed * 100 <= .new'
	json '.child_events >= 2048 and .events >= 20000'
	rss=$(awk '/^Rss:/ { print $2 * 1024 }' "/proc/$victim_pid/smaps_rollup")
	json '.rss_after - $rss | fabs <= 65536' --argjson rss "$rss"
}

@test "faults --all: every fault, also of what was given back" {
	record_shape faultshape --all
	status_is 0
	json '.net == false and .totals.count == .events'
	[ "$(bytes_of toss_pages)" -ge $((32 << 20)) ]
	# Twice, where what is only read is a page of zeros.
	[ "$(bytes_of read_then_write)" -ge \
		$(($(victim_truth 'stays only_read') ? 8 << 20 : 16 << 20)) ]
	[ "$(bytes_of only_read)" -ge $((8 << 20)) ]
	[ "$(bytes_of fork_pages)" -le $((1 << 20)) ]
}

@test "faults of a 32-bit process" {
	record_shape faultshape-32
	status_is 0
	json '.rss_after - .rss_before == .new - .gone'
	for function in keep_pages drop_half read_then_write thread_pages; do
		bytes=$(victim_truth "stays $function")
		got=$(bytes_of "$function")
		[ $((got - bytes)) -ge 0 ] && [ $((got - bytes)) -le 65536 ] ||
			fail "$function: $got instead of $bytes" "$output"
	done
}

@test "faults in code without call frame information: the function, and no advice that cannot help" {
	start_victim allocshape-musl 200
	record_begin faults "$victim_pid" --all
	victim_say go
	victim_wait '^done 1$'
	record_end
	victim_check
	status_is 0
	[[ $stderr == *'no unwind information'* && $stderr != *--stack-size* ]] || fail "$stderr"
	# musl's own functions are what is known of these stacks.
	grep -qE 'alloc[a-z_]* +\[truncated\]' <<<"$output" || fail "$output"
	! grep -qE '% +[0-9]+ +[0-9]+ +\[truncated\]' <<<"$output" || fail "$output"
}

@test "faults writes folded stacks and a table" {
	start_victim faultshape
	record_begin faults "$victim_pid" -f $SMALL
	victim_say go
	victim_wait '^done$'
	record_end
	status_is 0
	# Of one loop or of two, as the compiler has it.
	[ "$(awk '/;keep_pages[; ]/ { sum += $NF } END { print sum }' <<<"$output")" = 33554432 ] ||
		fail "$output"
	probe faults "$victim_pid" -d 10ms
	status_is 0
	victim_check
}

# Where memprobe gets too little of the CPUs the rings run over, which it says.
@test "faults with as much stack as is usual: whole, and lost only if that is said" {
	start_victim faultshape
	record_begin faults "$victim_pid" --json
	victim_say go
	victim_wait '^done$'
	record_end
	json '.truncated == 0 and .rss_after - .rss_before == .new - .gone'
	if [ "$status" -eq 0 ]; then
		json '.lost == 0 and .events >= 20000'
	else
		status_is 6
		json '.lost > 0 and .lost + .events >= 20000'
		[[ $stderr == *' were lost'* ]] || fail "$stderr"
	fi
	victim_check
}

@test "faults: the target ends midway" {
	start_victim faultshape
	record_begin faults "$victim_pid" --json $SMALL
	victim_say go
	victim_wait '^done$'
	stop_victim
	record_wait
	status_is 0
	json '.rss_after == null and .events >= 20000'
	[[ $stderr == *'has ended'* ]] || fail "$stderr"
}

@test "faults: killed, it leaves nothing behind" {
	start_victim faultshape
	record_begin faults "$victim_pid" --json
	victim_say go
	record_kill
	victim_wait '^done$'
	victim_check
}

@test "faults: a core file, and times and sizes that make no sense" {
	start_victim faultshape
	probe faults "$victim_pid" -d 0
	status_is 2
	probe faults "$victim_pid" -d 1s --stack-size 1
	status_is 2
	probe faults "$victim_pid" -o x.svg --format=nonsense
	status_is 2
	memprobe core "$victim_pid" -o "$BATS_TEST_TMPDIR/core" -q
	probe faults "$BATS_TEST_TMPDIR/core"
	status_is 5
	victim_check
}

@test "faults as an ordinary user: what the kernel took is unattributed, and said so" {
	skip_unless_root
	start_victim_as_user faultshape
	user_memprobe_record faults "$victim_pid" --json --stack-size 1K
	victim_say go
	victim_wait '^done$'
	record_end
	victim_check
	[ "$status" -eq 0 ] || [ "$status" -eq 6 ] || fail "$status" "$stderr"
	json '.rss_after - .rss_before == .new - .gone and ([.sites[].bytes] | add) == .new'
	json '.lost == 0' || [[ $stderr == *CAP_IPC_LOCK*perf_event_mlock_kb* ]]
	if [ "$(cat /proc/sys/kernel/perf_event_paranoid)" -ge 2 ]; then
		[[ $stderr == *CAP_PERFMON* ]]
		json '.unattributed >= 16777216'
	fi
}
