#!/usr/bin/env bats
# Whatever happens to memprobe, the target goes on and computes the right things. In small by `make
# check`, in large by `make torture` (some 15 minutes), which sets TORTURE=long.

load lib

KILLER=$BUILD/tests/torture/killer
CALL_LOOP=$BUILD/tests/torture/call_loop

count() { # SHORT LONG
	if [ "${TORTURE:-}" = long ]; then
		echo "$2"
	else
		echo "$1"
	fi
}

note() {
	echo "$*" | sed 's/^/# /' >&3
}

lines_of() { # REGEX: how many the victim has printed
	grep -cE "$1" "$victim_out" || true
}

more_lines() { # REGEX COUNT
	[ "$(lines_of "$1")" -gt "$2" ] || is_gone "$victim_pid"
}

# Every thread of the target goes on; its report goes to $report.
ask_target() {
	local before
	before=$(lines_of '^(alive|stuck)')
	victim_say report
	victim_say alive
	wait_until 90 more_lines '^(alive|stuck)' "$before" || fail 'the target does not answer'
	is_gone "$victim_pid" && fail 'the target is dead' "$(tail -n 3 "$victim_out")"
	[ "$(grep -E '^(alive|stuck)' "$victim_out" | tail -n 1)" = alive ] ||
		fail "$(tail -n 1 "$victim_out")"
	report=$(awk '/^report / { text = text $0 "\n" } /^reported/ { last = text; text = "" }
		END { printf "%s", last }' "$victim_out")
	[ -n "$report" ]
}

no_wrong() { # [KINDS that may have seen an EINTR]
	local bad
	ask_target
	bad=$(grep -v 'wrong=0 ' <<<"$report" || true)
	[ -z "$bad" ] || fail "$bad" "$(grep ^WRONG "$victim_out")"
	bad=$(grep -vE "^report (${1:-none}) " <<<"$report" | grep -v ' eintr=0 ' || true)
	[ -z "$bad" ] || fail "ended by EINTR:" "$bad"
}

# As it was before any memprobe: threads, states, tracer, and the bytes of its code. Only the stub
# may stay: with a thread on an alternate stack nobody can tell that none will return into it.
cleaned_up() {
	run memprobe call "$victim_pid" 'getpid()'
	status_is 0
	victim_threads_vary=1 victim_stub_may_stay=1 victim_check
}

# Where no memprobe was killed, nothing stays.
as_before() {
	run memprobe call "$victim_pid" 'getpid()'
	status_is 0
	victim_threads_vary=1 victim_check
}

# kill_series KILLS COMMAND [ARG...]: half of them at system calls, half at random.
kill_series() {
	local kills=$1 kind command=$2 done
	shift 2
	for kind in at random; do
		done=$("$KILLER" $kind $(((kills + 1) / 2)) "$victim_pid" \
			"$MEMPROBE" "$command" "$victim_pid" "$@") || fail "$done"
		note "$command $kind: $(tail -n 1 <<<"$done")"
		# A run may fail only by not finding a safe point.
		[[ $done == *failed=0* ]] || fail "$done"
	done
}

kill_all_commands() { # KILLS for each, target and arguments
	local kills=$1
	shift
	start_victim "$@"
	kill_series "$kills" mallinfo --method=call
	kill_series "$kills" trim
	kill_series "$kills" call 'getpid()'
	kill_series "$kills" stack
}

@test "memprobe killed at any instant: every kind of thread" {
	kill_all_commands "$(count 6 250)" torture
	no_wrong
	cleaned_up
}

@test "memprobe killed at any instant: under an alarm of 1 kHz" {
	# A process-directed signal that finds its thread stopped goes to another one, and ends a wait
	# there: some EINTR come without a handler in that thread, with any tracer.
	kill_all_commands "$(count 4 150)" torture alarm=1000 cpu nanosleep poll epoll futex pipe \
		sigtimedwait sigsuspend accept vector red_zone malloc queue
	no_wrong 'nanosleep|poll|futex|pipe|accept|epoll|sigtimedwait'
	cleaned_up
}

@test "memprobe killed at any instant: all threads in malloc" {
	kill_all_commands "$(count 3 100)" torture malloc=2
	no_wrong
	cleaned_up
}

@test "memprobe killed at any instant: i386" {
	kill_all_commands "$(count 3 100)" torture-32
	no_wrong
	cleaned_up
}

@test "memprobe killed at any instant: a static program" {
	kill_all_commands "$(count 2 30)" torture-static
	no_wrong
	cleaned_up
}

# ---- the allocator is always at work ----

loop() { # COUNT WHAT [TIMEOUT_MS]: prints and keeps what it says in $looped
	looped=$("$CALL_LOOP" "$1" "$victim_pid" "${@:2}")
	note "$2: $(tr '\n' ' ' <<<"$looped")"
}

loop_count() { # ok, busy or failed
	sed -n "s/.*\\b$1=\\([0-9]*\\).*/\\1/p" <<<"$looped" | head -n 1
}

saturated() { # THREADS
	local what calls
	calls=$(count 25 1000)
	start_victim malloc_load "$1"
	for what in info trim; do
		loop "$calls" $what
		[ "$(loop_count failed)" -eq 0 ] || fail "$looped"
		[ $((100 * $(loop_count ok))) -ge $((99 * calls)) ] || fail "$looped"
	done
	victim_works
	victim_check
}

@test "malloc_info and malloc_trim while 1 thread is always in malloc" {
	saturated 1
}

@test "malloc_info and malloc_trim while 2 threads are always in malloc" {
	saturated 2
}

@test "malloc_info and malloc_trim while 4 threads are always in malloc" {
	saturated 4
}

@test "malloc_info and malloc_trim while 8 threads are always in malloc" {
	saturated 8
}

# ---- nothing that a living memprobe does is noticed ----

@test "no wait ends with EINTR" {
	local calls
	calls=$(count 100 1000)
	start_victim torture epoll=3 epoll_timeout=3 sigtimedwait=3 semtimedop=3 nanosleep=3 poll=2 \
		futex=2 futex_timeout=2
	for what in stack getpid getppid info; do
		loop "$calls" $what
		[ "$(loop_count ok)" -eq "$calls" ] || fail "$looped"
	done
	no_wrong
	victim_check
}

@test "vector, x87 and mask registers and the red zone are as they were" {
	local calls
	calls=$(count 100 1000)
	start_victim torture vector=2 red_zone=1 cpu=1
	for what in getppid info trim; do
		loop "$calls" $what
		[ $((100 * $(loop_count ok))) -ge $((99 * calls)) ] || fail "$looped"
	done
	no_wrong
	victim_threads_vary=1 victim_stub_may_stay=1 victim_check
}

@test "threads are cancelled, end and fork during calls" {
	start_victim torture cancel=3 create=2 fork=1 small_stack=2 signal_stack=1
	for what in info trim getppid stack; do
		loop "$(count 50 1000)" $what
		[ "$(loop_count failed)" -eq 0 ] || fail "$looped"
	done
	no_wrong
	victim_threads_vary=1 victim_stub_may_stay=1 victim_check
}

@test "a call that crashes is undone" {
	local n
	start_victim torture
	for ((n = $(count 20 100); n; n--)); do
		run memprobe call "$victim_pid" 'strlen(0)'
		[ "$status" -eq 1 ] || [ "$status" -eq 7 ] || fail "status $status" "$output"
	done
	no_wrong
	as_before
}

# ---- targets that are stopped, replaced, shared ----

@test "a stopped target stays stopped, also when memprobe is killed" {
	start_victim torture nanosleep=2 epoll=1 futex=1 malloc=1 poll=1
	freeze "$victim_pid"
	for command in 'call getpid()' 'mallinfo --method=call' stack trim; do
		# shellcheck disable=SC2086
		set -- $command
		run memprobe "$1" "$victim_pid" "${@:2}"
		[ "$status" -eq 0 ] || [ "$status" -eq 7 ] || fail "$command: status $status" "$output"
		wait_until 60 threads_are T "$victim_pid"
	done
	KILLER_STOPPED=1 "$KILLER" at "$(count 12 200)" "$victim_pid" \
		"$MEMPROBE" call "$victim_pid" 'getpid()' >"$BATS_TEST_TMPDIR/kills" ||
		fail "$(cat "$BATS_TEST_TMPDIR/kills")"
	wait_until 60 threads_are T "$victim_pid"
	kill -CONT "$victim_pid"
	# signal(7): by the kernel, when it is continued.
	no_wrong epoll
	cleaned_up
}

# While a thread executes something, the process' first thread is a zombie for an instant.
is_there_again() {
	! is_gone "$victim_pid"
}

other_image() { # MAPS: it runs at other addresses than these
	local now
	now=$(cat "/proc/$victim_pid/maps")
	[ -n "$now" ] && [ "$now" != "$1" ]
}

@test "a target that executes itself every 3 ms" {
	local n
	start_victim torture exec=3 nanosleep=2 malloc=1
	for ((n = $(count 40 300); n; n--)); do
		run memprobe call "$victim_pid" 'getpid()'
		case $status in
		0 | 1 | 3 | 4 | 5 | 7) ;;
		*) fail "status $status" "$output" ;;
		esac
		wait_until 60 is_there_again || fail "the target died in round $n" "$output"
	done
	if grep '^WRONG' "$victim_out"; then
		fail 'the target was harmed'
	fi
	wait_until 60 other_image "$(cat "/proc/$victim_pid/maps")"
	grep -q '^TracerPid:[[:space:]]*0$' "/proc/$victim_pid/status"
}

@test "two memprobes at a time" {
	local worker pids=() n
	n=$(count 5 20)
	start_victim torture
	for worker in 1 2 3; do
		for ((i = 0; i < n; i++)); do
			code=0
			timeout -k 5 "$(patience 60)" "$MEMPROBE" call "$victim_pid" 'getpid()' \
				>"$BATS_TEST_TMPDIR/$worker" 2>&1 || code=$?
			[ $code -eq 0 ] || [ $code -eq 7 ] || {
				echo "worker $worker: $code: $(cat "$BATS_TEST_TMPDIR/$worker")"
				exit 1
			}
		done &
		pids+=($!)
	done
	for worker in "${pids[@]}"; do
		wait "$worker"
	done
	no_wrong
	as_before
}
