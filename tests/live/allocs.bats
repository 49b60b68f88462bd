#!/usr/bin/env bats
# allocs: what each function allocated, and has not freed, against victims that know it.

load lib

victim_go() {
	local times
	times=$(grep -c '^done' "$victim_out" || true)
	victim_say go
	victim_wait "^done $((times + 1))\$" >/dev/null
}

record_shape() { # VICTIM [OPTION...]
	start_victim "$1"
	shift
	record_begin allocs "$victim_pid" --json "$@"
	victim_go
	record_end
	victim_check
}

# Of every function that it names; $1: `all` if all that was allocated is there, too.
is_the_truth() {
	local function truth got
	[ "$(grep -c '^truth' "$victim_out")" -ge 5 ] || fail "no truth"
	while read -r _ function truth; do
		got=$(figures_of "$function")
		[ "${1:-}" = all ] || {
			truth=$(cut -d' ' -f1,2 <<<"$truth")
			got=$(cut -d' ' -f1,2 <<<"$got")
		}
		[ "$got" = "$truth" ] || fail "$function: $got instead of $truth" "$output"
	done < <(grep '^truth' "$victim_out")
}

@test "allocs --sample 1: what each function has not freed, exactly" {
	record_shape allocshape --sample 1
	status_is 0
	is_the_truth
	json '.rate == 1 and .lost == 0 and .net and .counters.truncated == 0 and .remaining == 0'
	json '.allocs == .events and .allocs - .frees == .totals.count'
	json 'all(.hooks[]; .hooked or .reason != null) and any(.hooks[]; .name == "malloc" and .hooked)'
	json '(.totals | has("all_bytes") | not) and .stopped_us > 0 and .duration > 0'
	json 'all(.sites[]; .bytes > 0)'
}

@test "allocs --all: also what was freed again, and sorted by it" {
	record_shape allocshape --sample 1 --all
	status_is 0
	is_the_truth all
	json '.net == false and ([.sites[].all_bytes] | . == (sort | reverse))'
}

@test "allocs --all of a static program, and of one with musl" {
	record_shape allocshape-static --sample 1 --all
	status_is 0
	is_the_truth all
	stop_victim
	record_shape allocshape-musl --sample 1 --all
	status_is 0
	is_the_truth all
}

@test "allocs: operators new, templates, and a new that throws" {
	record_shape allocnew --sample 1 --all
	status_is 0
	is_the_truth all
	stop_victim
	record_shape allocnew-static --sample 1 --all
	status_is 0
	is_the_truth all
}

# All blocks have room for some 8 of the steps; after those samples are taken. Ten standard deviations
# of some 100,000 of them are 4 %.
@test "allocs --max-memory: when it is reached samples are taken, which is said" {
	local step live bytes got
	start_victim manyblocks
	record_begin allocs "$victim_pid" --sample 1 --max-memory 12M --all --json
	for step in {1..40}; do
		victim_say go
		victim_wait "^live $((step * 10000)) " >/dev/null
		sleep 0.1
	done
	live=$((step * 10000))
	bytes=$(victim_truth "live $live")
	record_end
	status_is 6
	[[ $stderr == *"limit of memory (12.0M, --max-memory)"* ]] || fail "$stderr"
	json '.rate > 1 and .counters.table_memory <= 12 * 1048576 and .lost < 2000'
	got=$(figures_of keep)
	awk -v live="$live" -v bytes="$bytes" '{
		exit !($1 > live * 0.95 && $1 < live * 1.05 && $2 > bytes * 0.95 &&
			$2 < bytes * 1.05 && $3 > live * 1.9 && $3 < live * 2.1) }' <<<"$got" ||
		fail "$got instead of about $live $bytes $((2 * live))" "$stderr"
	victim_check
	stop_victim

	start_victim idle
	probe allocs "$victim_pid" --max-memory 1M -d 1
	status_is 1
	[[ $stderr == *"--max-memory be 8 MiB"* ]] || fail "$stderr"
	victim_check
}

@test "allocs: two copies of glibc in one process" {
	record_shape twolibcs --sample 1 --all
	status_is 0
	is_the_truth all
	json '[.hooks[] | select(.name == "malloc" and .hooked)] | length == 2'
}

# Their operators new do not reach their malloc, and must not be replaced by it.
@test "allocs: operators new of sanitizers" {
	local sanitizer flags
	export ASAN_OPTIONS=detect_leaks=0 TSAN_OPTIONS=report_bugs=0
	for flags in address 'address -static-libasan' thread; do
		sanitizer=${flags%% *}
		# shellcheck disable=SC2086
		g++ -g -O1 -fomit-frame-pointer -fsanitize=$flags -o "$BATS_TEST_TMPDIR/sanitized" \
			tests/victims/allocnew.cc 2>/dev/null || skip "no libraries of sanitizers"
		start_command "$BATS_TEST_TMPDIR/sanitized"
		record_begin allocs "$victim_pid" --json --sample 1 --all
		victim_go
		record_end
		status_is 0
		is_the_truth all
		victim_check
		stop_victim
	done
}

# 64 K to a sample: about 600 of them. Six standard deviations are 25 %.
@test "allocs: samples give unbiased estimates" {
	record_shape allocshape --sample 64K
	status_is 0
	json '.rate == 65536 and .allocs < 10000'
	read -r _ bytes <<<"$(figures_of keep_)"
	bytes=${bytes%% *}
	truth=$(awk '/^truth keep_/ { sum += $4 } END { print sum }' "$victim_out")
	[ "$bytes" -gt $((truth * 3 / 4)) ] && [ "$bytes" -lt $((truth * 5 / 4)) ] ||
		fail "$bytes instead of about $truth"
	stop_victim
	record_shape allocshape --sample 1K --all
	for function in keep_malloc keep_realloc toss_malloc lose_malloc; do
		read -r _ _ _ truth < <(victim_truth "truth $function")
		read -r _ _ _ got < <(figures_of "$function")
		[ "$got" -gt $((truth * 3 / 4)) ] && [ "$got" -lt $((truth * 5 / 4)) ] ||
			fail "$function: $got instead of about $truth"
	done
}

@test "allocs: the default rate is sampled and said" {
	record_shape allocshape
	status_is 0
	json '.rate >= 65536'
	[ "$(figures_of keep_big | cut -d' ' -f2)" -gt 30000000 ]
	[[ $stderr != *'one sample every'* ]] || fail "no hints with --json: $stderr"
	record_begin allocs "$victim_pid"
	record_end
	[[ $output == *'estimated from '*'one sample every 64.0K'* && $stderr == *'--sample 1 records every block'* ]] || fail "$output" "$stderr"
}

# An estimate of BYTES out of samples, one every RATE bytes: six standard deviations at most.
is_about() { # ESTIMATE BYTES RATE
	awk -v got="$1" -v truth="$2" -v rate="$3" \
		'BEGIN { exit !((got - truth) ^ 2 <= 36 * truth * rate) }' ||
		fail "$1 instead of about $2 by a sample every $3"
}

# It is coarser while the target is busy; every block is weighed by the rate of its moment.
@test "allocs: the default rate follows the target" {
	start_victim allocload
	record_begin allocs "$victim_pid" --json --all
	pairs=0
	until grep -q 'a sample is taken every' "$record_out.err"; do
		[ "$pairs" -lt 50000000 ] || fail "the rate stays" "$(cat "$record_out.err")"
		victim_say "pairs 2000000"
		pairs=$((pairs + 2000000))
		wait_until 60 eval '[ "$(grep -c ^took "$victim_out")" = $((pairs / 2000000)) ]'
	done
	record_end
	status_is 0
	rate=$(json_get .rate)
	is_about "$(json_get '[.sites[].all_bytes] | add')" $((pairs * 520)) "$rate"
	is_about "$(json_get '[.sites[].bytes] | add')" $((100000 * 520)) "$rate"
	victim_check
}

@test "allocs --reachable: what is lost is told from what is kept, in several arenas" {
	record_shape allocshape --sample 1 --reachable
	status_is 0
	for function in keep_malloc keep_calloc keep_realloc keep_memalign keep_big; do
		[ "$(unreachable_of "$function")" -eq 0 ] || fail "$function" "$output"
	done
	# A stale word of a stack may hide a block, and a list of 500 with it.
	[ "$(unreachable_of lose_malloc)" -ge 7960 ] || fail "$output"
	[ "$(unreachable_of lose_list)" -ge 5960 ] || fail "$output"
	json '.freed_meanwhile >= 0 and .totals.unreachable_bytes > 0'
	# Freed blocks are none of it.
	record_begin allocs "$victim_pid" --sample 1 --reachable -o "$BATS_TEST_TMPDIR/out.svg"
	record_end
	status_is 0
	grep -q 'unreachable' "$BATS_TEST_TMPDIR/out.svg"
	victim_check
}

# Its tables have the address of each block.
@test "leaks of a process that is being recorded" {
	start_victim allocshape
	record_begin allocs "$victim_pid" --sample 1
	victim_say go
	victim_wait '^done 1$' >/dev/null
	probe leaks "$victim_pid" --json
	status_is 0
	# Of 16000; see above.
	json '.totals.leaked_count >= 13900'
	record_end
	status_is 0
	victim_check
}

# Their heaps are not walked: what nothing points to is told by the record alone.
what_is_lost_is_told() { # LOST_MALLOC LOST_LIST; at the least
	record_begin allocs "$victim_pid" --json --sample 1 --reachable "${@:3}"
	victim_go
	record_end
	status_is 0
	for function in keep_malloc keep_calloc keep_realloc keep_memalign keep_big; do
		[ "$(unreachable_of "$function")" -eq 0 ] || fail "$function" "$output"
	done
	[ "$(unreachable_of lose_malloc)" -ge "$1" ] || fail "$output"
	[ "$(unreachable_of lose_list)" -ge "$2" ] || fail "$output"
	is_the_truth
	victim_check
	stop_victim
}

# mimalloc's own words hide some twenty blocks of a thread, or none, as the threads take turns.
@test "allocs --reachable: tcmalloc, mimalloc and musl" {
	start_victim allocshape-musl
	what_is_lost_is_told 7800 5960
	for library in libtcmalloc.so.4 libmimalloc.so.2; do
		start_preloaded $library allocshape
		what_is_lost_is_told 7800 5960
	done
	start_preloaded libmimalloc.so.2 allocshape
	what_is_lost_is_told 7800 5960 --engine=uprobe
}

# The caches of threads that have ended keep some.
@test "allocs --reachable: jemalloc" {
	start_preloaded libjemalloc.so.2 allocshape
	what_is_lost_is_told 6000 0
}

@test "allocs --min-size, --max-size and --older" {
	record_shape allocshape --sample 1 --min-size 8K --max-size 24K
	status_is 0
	# 8 K and 24 K of sixteen sizes, of a hundred blocks in four threads.
	json '.totals.count > 0 and ([.sites[] | select(.bytes / .count > 24576 or .bytes / .count < 8192)] == [])'
	json 'all(.sites[]; any(.frames[]; . == "keep_big")) and .counters.filtered > 90000'
	record_begin allocs "$victim_pid" --json --sample 1 --older 1h
	victim_go
	record_end
	json '.totals.count == 0 and .allocs > 90000 and .older == 3600'
	record_begin allocs "$victim_pid" --sample 1 --older 1h
	victim_go
	record_end
	[[ $output$stderr == *'no live block is 3600.0 s old'* ]] || fail "$output$stderr"
	probe allocs "$victim_pid" --min-size 2K --max-size 1K
	status_is 2
	victim_check
}

@test "allocs: what is freed by the main thread, and of before the recording" {
	start_victim allocshape
	victim_go
	record_begin allocs "$victim_pid" --json --sample 1
	victim_say free
	victim_wait '^freed$'
	record_end
	status_is 0
	json '.totals.count == 0 and .allocs == 0 and .frees == 0'
	victim_check
}

@test "allocs writes folded stacks, pprof and a table" {
	start_victim allocshape
	record_begin allocs "$victim_pid" --sample 1 --all -o "$BATS_TEST_TMPDIR/out.pb.gz"
	victim_go
	record_end
	status_is 0
	[ "$(stat -c %a "$BATS_TEST_TMPDIR/out.pb.gz")" = 600 ]
	if command -v go >/dev/null; then
		go tool pprof -top "$BATS_TEST_TMPDIR/out.pb.gz" >"$BATS_TEST_TMPDIR/top"
		grep -q 'Type: alloc_space' "$BATS_TEST_TMPDIR/top"
		go tool pprof -top -inuse_objects "$BATS_TEST_TMPDIR/out.pb.gz" >"$BATS_TEST_TMPDIR/top"
		grep -qE '8000 .* keep_calloc$' "$BATS_TEST_TMPDIR/top" || fail "$(cat "$BATS_TEST_TMPDIR/top")"
	fi
	record_begin allocs "$victim_pid" --sample 1 -f
	victim_go
	record_end
	status_is 0
	grep -qE '^[^ ]*;work;keep_calloc(;[^ ]*)? 756000$' <<<"$output" || fail "$output"
	record_begin allocs "$victim_pid" --sample 1 --all --reachable
	victim_go
	record_end
	status_is 0
	[[ $output == *'LIVE'*'UNREACHABLE'*'keep_big'* ]] || fail "$output"
	[[ $output == 'allocs: '*' recorded, '*' is unreachable: leaked'* ]] || fail "$output"
	victim_check
}

@test "allocs on a terminal: a table that follows the recording" {
	command -v script >/dev/null || skip 'needs script(1)'
	start_victim allocshape
	TERM=xterm timeout "$(patience 60)" script -qfec \
		"stty rows 12 cols 90; $MEMPROBE allocs $victim_pid --sample 1 --color=never" \
		"$BATS_TEST_TMPDIR/typed" </dev/null >/dev/null 2>&1 3>&- &
	record_pid=$!
	wait_until 60 grep -q 'recording until' "$BATS_TEST_TMPDIR/typed"
	victim_say go
	wait_until 60 grep -q 'keep_big' "$BATS_TEST_TMPDIR/typed"
	# Of the two processes the first one.
	pid=$(pgrep -of "^$MEMPROBE allocs $victim_pid")
	kill -INT "$pid"
	wait "$record_pid"
	grep -q 'recording [0-9]*: [0-9]* s' "$BATS_TEST_TMPDIR/typed"
	# Cursor up over all lines of a screen, which had at most eleven.
	grep -qaE $'\033\\[([2-9]|1[01])A' "$BATS_TEST_TMPDIR/typed"
	! grep -qaE $'\033\\[(1[2-9]|[2-9][0-9])A' "$BATS_TEST_TMPDIR/typed"
	tail -n 8 "$BATS_TEST_TMPDIR/typed" | grep -q 'total'
	victim_check
}

@test "allocs: the target ends midway" {
	start_victim allocshape
	record_begin allocs "$victim_pid" --json --sample 1 --all
	victim_go
	stop_victim
	record_wait
	status_is 0
	is_the_truth all
	[[ $stderr == *'has ended'* ]] || fail "$stderr"
}

@test "allocs: the target replaces its program midway" {
	start_victim exec_fork_exit
	record_begin allocs "$victim_pid" --json --sample 1
	victim_say exec
	record_wait
	status_is 0
	[[ $stderr == *'called exec(): the recording covers the old program'* ]] || fail "$stderr"
}

# The kernel's signal for that would end memprobe with its agent in the target.
@test "allocs: files that may not be large" {
	start_victim allocshape
	ulimit -S -f 64
	probe allocs "$victim_pid" -d 10ms
	ulimit -S -f unlimited
	status_is 1
	[[ $stderr == *'tables: file too large'* ]] || fail "$stderr"
	probe check "$victim_pid" --json
	json '.checks[] | select(.name == "agent") | .detail | contains("none")'
	victim_check
}

@test "allocs: no agent for 32-bit programs" {
	start_victim allocshape-32
	probe allocs "$victim_pid" --engine=agent -d 1s
	status_is 5
	victim_check
}

@test "allocs: what cannot be recorded, and what makes no sense" {
	start_victim idle
	for wrong in '-d 0' '--sample 0' '--sample many' '--older soon' '--engine=steam' '--max-size 0'; do
		# shellcheck disable=SC2086
		probe allocs "$victim_pid" $wrong
		status_is 2
	done
	memprobe core "$victim_pid" -o "$BATS_TEST_TMPDIR/core" -q
	probe allocs "$BATS_TEST_TMPDIR/core"
	status_is 5
	victim_check
}
