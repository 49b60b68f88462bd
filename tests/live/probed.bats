#!/usr/bin/env bats
# Other tools' uprobes at the functions that are recorded, set and removed at any time: nobody is
# harmed, and both see all. They are set on files of the test's own, which nobody else has mapped.

load lib
load trace

FUNCTIONS='malloc calloc realloc reallocarray free memalign posix_memalign valloc'

setup_file() {
	[ -e /sys/bus/event_source/devices/uprobe/type ] && [ "$(id -u)" -eq 0 ] ||
		export UPROBES_FORBIDDEN=1
}

setup() {
	[ -z "${UPROBES_FORBIDDEN:-}" ] || skip 'uprobes are not permitted here'
}

# own_copy NAME: of a library; sets $own.
own_copy() {
	local found
	found=$(ldconfig -p | awk -v name="$1" '$1 == name && /x86-64/ { print $NF; exit }')
	[ -n "$found" ] || return 1
	mkdir -p "$BATS_TEST_TMPDIR/own"
	own=$BATS_TEST_TMPDIR/own/$1
	cp -L "$found" "$own"
}

probes_begin() { # FUNCTION...
	probes_out=$BATS_TEST_TMPDIR/probes.out
	: >"$probes_out"
	rm -f "$BATS_TEST_TMPDIR/probes.in"
	mkfifo "$BATS_TEST_TMPDIR/probes.in"
	exec {probes_fd}<>"$BATS_TEST_TMPDIR/probes.in"
	"$ROOT/tests/live/foreign_probe.py" "$own" "$@" <"$BATS_TEST_TMPDIR/probes.in" \
		>>"$probes_out" 2>&1 3>&- &
	probes_pid=$!
	ends_with "$probes_pid"
}

probes_have_answered() {
	[ "$(wc -l <"$probes_out")" -gt "$1" ] || is_gone "$probes_pid"
}

probes_turn() { # on|off
	local before
	before=$(wc -l <"$probes_out")
	echo >&"$probes_fd"
	wait_until 60 probes_have_answered "$before"
	tail -1 "$probes_out" | grep -q "^$1" || fail "$(cat "$probes_out")"
}

hits_of() { # FUNCTION...: when they were turned off last, together
	local function sum=0
	for function; do
		sum=$((sum + $(tail -1 "$probes_out" | grep -o " $function=[0-9]*" | cut -d= -f2)))
	done
	echo $sum
}

is_exact() {
	"$ROOT/tests/live/truth.py" "$victim_out" "$trace_out" ||
		fail "$(grep -v ^site "$trace_out")" "$(cat "$probes_out")"
}

# The recording's calls are those that the probes have counted. It counts the calls of each of the
# two threads by 16, in advance.
is_agreed() { # FUNCTION...
	local calls more
	calls=$(grep -o '^counters calls=[0-9]*' "$trace_out" | tail -1 | cut -d= -f2)
	more=$((calls - $(hits_of "$@")))
	((calls > 1000 && more >= 0 && more <= 32)) ||
		fail "$calls calls recorded" "$(cat "$probes_out")"
}

# With the victim at work: from before the recording, during it, and not to its end.
comes_and_goes() {
	probes_turn on
	trace_begin agent attach wait pause read detach
	tell go '^going'
	runs_for_rounds 5
	probes_turn off
	for _ in 1 2; do
		runs_for_rounds 5
		probes_turn on
		runs_for_rounds 5
		probes_turn off
		[ "$(hits_of malloc)" -gt 0 ] || fail "$(cat "$probes_out")"
	done
	tell stop '^stopped'
	trace_go
	is_exact
	victim_check
}

# From before the recording to after it.
sees_all() {
	probes_turn on
	trace_begin agent attach wait pause read detach
	tell go '^going'
	runs_for_rounds 10
	tell stop '^stopped'
	trace_go
	probes_turn off
	is_exact
	is_agreed "$@"
	victim_check
}

@test "probed: glibc" {
	own_copy libc.so.6
	start_command env LD_LIBRARY_PATH="${own%/*}" "$VICTIMS/alloc_truth" 2
	grep -q "$own" "/proc/$victim_pid/maps"
	# shellcheck disable=SC2086
	probes_begin $FUNCTIONS
	comes_and_goes
}

@test "probed: both see every call" {
	own_copy libc.so.6
	start_command env LD_LIBRARY_PATH="${own%/*}" "$VICTIMS/alloc_truth" 2
	# shellcheck disable=SC2086
	probes_begin $FUNCTIONS
	# shellcheck disable=SC2086
	sees_all $FUNCTIONS
}

@test "probed: where functions return, too" {
	local function returns=()
	own_copy libc.so.6
	start_command env LD_LIBRARY_PATH="${own%/*}" "$VICTIMS/alloc_truth" 2
	for function in malloc calloc realloc reallocarray free; do
		returns+=("$function" "$function%return")
	done
	probes_begin "${returns[@]}"
	probes_turn on
	trace_begin agent attach wait pause read detach
	tell go '^going'
	for _ in 1 2; do
		runs_for_rounds 5
		probes_turn off
		[ "$(hits_of malloc%return)" -gt 0 ] || fail "$(cat "$probes_out")"
		runs_for_rounds 5
		probes_turn on
	done
	tell stop '^stopped'
	trace_go
	probes_turn off
	# Who called is hidden; how much is not.
	truth=$(awk '$1 == "path" { n[NR] = $4; b[NR] = $5 } $1 == "stopped" { last = NR }
		END { for (i = last - 64; i < last; i++) { count += n[i]; bytes += b[i] }
		      print count, bytes }' "$victim_out")
	grep -q "^live $truth$" "$trace_out" || fail "$truth" "$(grep -v ^site "$trace_out")"
	grep -q ' lost=0 lost_frees=0 ' "$trace_out" || fail "$(grep -v ^site "$trace_out")"
	victim_check
}

@test "probed: jemalloc, tcmalloc and mimalloc" {
	local library count=0
	for library in libjemalloc.so.2 libtcmalloc_minimal.so.4 libmimalloc.so.2; do
		own_copy "$library" || continue
		count=$((count + 1))
		start_command env LD_PRELOAD="$own" "$VICTIMS/alloc_truth" 2
		probes_begin malloc calloc realloc free
		comes_and_goes
		stop_victim
		kill "$probes_pid"
	done
	[ $count -gt 0 ] || skip 'none is installed'
}

@test "probed: sampled, and with memprobe killed meanwhile" {
	own_copy libc.so.6
	start_command env LD_LIBRARY_PATH="${own%/*}" "$VICTIMS/malloc_load" 2 2048 100
	probes_begin malloc calloc realloc free malloc%return free%return
	for round in 1 2 3; do
		[ $round -ne 2 ] || probes_turn on
		record_begin allocs "$victim_pid" --engine=agent --json
		[ $round -eq 2 ] || probes_turn on
		victim_works
		if [ $round -lt 3 ]; then
			probes_turn off
			victim_works
			record_end
			status_is 0
			json '.lost == 0 and .remaining == 0 and .engine == "agent"'
			victim_check
		fi
	done
	kill_recording
	victim_works
	probes_turn off
	victim_works
	probes_turn on
	probe allocs "$victim_pid" --engine=agent -d 50ms --json
	status_is 0
	json '.remaining == 0'
	probes_turn off
	victim_works
	victim_check
}

# The recording that record_begin has begun, by SIGKILL.
kill_recording() {
	local pid
	for pid in $(children_of "$record_pid"); do
		kill -KILL "$pid"
	done
	record_wait
	[ "$status" -eq 137 ] || fail "$status" "$stderr"
}
