#!/usr/bin/env bats
# find: every kind of pattern, what it says about matches, and everything that can be in its way.

load lib

file() {
	echo "$BATS_TEST_TMPDIR/$1"
}

text_at() { # NAME: address and block
	sed -n "s/^text $1 //p" "$victim_out"
}

# Counts by other means: Python's, over /proc/PID/mem.
count_by_other_means() { # START END REGEX
	python3 - "$victim_pid" "$@" <<'PY'
import re, sys
pid, start, end, pattern = sys.argv[1], int(sys.argv[2], 0), int(sys.argv[3], 0), sys.argv[4]
with open(f"/proc/{pid}/mem", "rb", 0) as memory:
    memory.seek(start)
    print(len(re.findall(pattern.encode(), memory.read(end - start), re.S)))
PY
}

finds_in_block() { # TARGET NAME TYPE STATE
	local address block
	read -r address block <<<"$(text_at "$2")"
	probe find "$1" "needle-$2" --json
	status_is 0
	json '.count == 1 and (.matches | length) == 1 and .matches_left_out == 0'
	json '.matches[0] | .address == $a and .chunk == $b and .state == $s and .size == $n' \
		--arg a "$address" --arg b "$block" --arg s "$4" --argjson n $((7 + ${#2}))
	json '.matches[0].type | test("^(" + $t + ")$")' --arg t "$3"
	json '.matches[0].context | contains($n)' --arg n "needle-$2"
	json '.stopped_us == 0 and .missing == []'
}

finds_all_blocks() { # TARGET
	finds_in_block "$1" used heap "in use"
	finds_in_block "$1" freed heap tcache
	# The kernel may have joined its mapping with a neighbour.
	finds_in_block "$1" mapped "mmap-chunk|anon" "in use"
	finds_in_block "$1" arena arena "in use"
	finds_in_block "$1" last heap "in use"
}

@test "a text, and the block, state and mapping that it lies in: 64 and 32 bit" {
	for variant in $(runnable needles needles-32); do
		start_victim $variant
		finds_all_blocks "$victim_pid"
		victim_check
		stop_victim
	done
}

@test "the same in a core" {
	for variant in $(runnable needles needles-32); do
		start_victim $variant
		memprobe core "$victim_pid" -o "$(file core)" --full
		finds_all_blocks "$(file core)"
		read -r count start end <<<"$(victim_truth many)"
		probe find "$(file core)" needle-many --in "$start-$end" --count
		[ "$stdout" = "$count" ]
		probe find "$(file core)" "$(victim_truth pointers | cut -d' ' -f2)" --pointer \
			--in "$(victim_truth words)" --count
		[ "$stdout" = "$(victim_truth pointers | cut -d' ' -f1)" ]
		stop_victim
	done
}

@test "counts are those of another search" {
	start_victim needles
	read -r count start end <<<"$(victim_truth many)"
	# Of the text, and of one byte, of what would overlap, of bytes with wildcards.
	probe find "$victim_pid" needle-many --in "$start-$end" --count
	status_is 0
	[ "$stdout" = "$count" ]
	for pattern in e nn nnn 'n.{4}e-m' '[a-m]+' 'many.{0,5}needle'; do
		expected=$(count_by_other_means "$start" "$end" "$pattern")
		probe find "$victim_pid" --regex "(?s)$pattern" --in "$start $end" --count
		[ "$stdout" = "$expected" ] || fail "$pattern: $stdout, not $expected"
		case $pattern in *[.[{]*) continue ;; esac
		probe find "$victim_pid" "$pattern" --in "$start+4M" --count
		[ "$stdout" = "$expected" ] || fail "$pattern: $stdout, not $expected"
	done
	probe find "$victim_pid" --hex '6e ?? 65 6? 6c ?5' --in "$start-$end" --count
	[ "$stdout" = "$(count_by_other_means "$start" "$end" 'n.e[`-o]l[\x05\x15\x25\x35\x45\x55\x65\x75]')" ]
	victim_check
}

@test "UTF-16, and pointers to an address, a range, a type" {
	for variant in $(runnable needles needles-32); do
		start_victim $variant
		probe find "$victim_pid" needle-wide --utf16 --json
		status_is 0
		json '.count == 1 and .matches[0].address == $a and .matches[0].size == 22' \
			--arg a "$(victim_truth wide)"
		read -r count block <<<"$(victim_truth pointers)"
		words=$(victim_truth words)
		for to in "$block" "$block+1" "$block $(printf '0x%x' $((block + 1)))" heap; do
			# shellcheck disable=SC2086
			probe find "$victim_pid" --pointer $to --in "$words" --count
			status_is 0
			[ "$stdout" = "$count" ] || fail "$to: $stdout, not $count"
		done
		probe find "$victim_pid" --pointer "$(printf '0x%x' $((block + 1)))" --in "$words" --count
		[ "$stdout" = 0 ]
		victim_check
		stop_victim
	done
}

@test "the C++ type of the object that points to a text" {
	start_victim requests 2000 100
	probe find "$victim_pid" 'GET /comm HTTP' --in heap --json --max 5
	status_is 0
	json '.count == $n and .matches_left_out == $n - 5' --argjson n "$(victim_truth texts)"
	text=$(json_get '.matches[3].chunk')
	probe find "$victim_pid" --pointer "$text" --in heap --json
	json '.count == 1 and .matches[0].object == "CommItopReq" and .matches[0].state == "in use"'
	probe find "$victim_pid" --pointer "$text" --in heap
	[[ $output = *CommItopReq* ]]
	victim_check
}

@test "across pages, up to the ends of a range, and what cannot be read is exit 6" {
	start_victim needles
	read -r start end <<<"$(victim_truth holes)"
	border=$(printf '0x%x' $((start + 2 * 4096 - 5)))
	probe find "$victim_pid" needle-border --json
	status_is 0
	json '.count == 1 and .matches[0].address == $a' --arg a "$border"
	probe find "$victim_pid" needle-border --in "$start-$end" --json
	status_is 6
	gap=$(printf '0x%x' $((start + 4 * 4096)))
	json '.count == 1 and .missing == [{start: $gap, end: $behind}] and (.warnings | length) == 1' \
		--arg gap "$gap" --arg behind "$(printf '0x%x' $((gap + 4096)))"
	probe find "$victim_pid" needle-border --in "$border+13" --count
	[ "$stdout" = 1 ]
	for less in "$border+12" "$(printf '0x%x' $((border + 1)))+12" "$start+4096"; do
		probe find "$victim_pid" needle-border --in "$less" --count
		status_is 0
		[ "$stdout" = 0 ]
	done
	# One byte, at both ends.
	probe find "$victim_pid" . --in "$start+1" --count
	[ "$stdout" = 1 ]
	probe find "$victim_pid" . --in "$gap+1"
	status_is 1
	victim_check
}

said_blocks_twice() {
	[ "$(grep -c '^blocks' "$victim_out")" -eq 2 ]
}

@test "shared memory that the process has not touched is not made by reading it" {
	start_victim needles
	victim_say blocks
	blocks=$(victim_wait '^blocks')
	for where in '' --in=shm; do
		probe find "$victim_pid" needle-shared --json $where
		status_is 0
		json '.count == 1 and .matches[0].address == $a and .matches[0].type == "shm"' \
			--arg a "$(victim_truth shared)"
		json '.warnings | any(contains("of shared memory"))'
	done
	probe strings "$victim_pid" --in shm
	status_is 0
	victim_say blocks
	wait_until 60 said_blocks_twice
	[ "$(grep -c "^$blocks\$" "$victim_out")" -eq 2 ]
	victim_check
}

@test "--in takes types and several ranges" {
	start_victim needles
	probe find "$victim_pid" needle-arena --in arena --count
	[ "$stdout" = 1 ]
	probe find "$victim_pid" needle-arena --in heap --count
	[ "$stdout" = 0 ]
	probe find "$victim_pid" needle-arena --in heap,arena --count
	[ "$stdout" = 1 ]
	# Each byte once, also where ranges overlap.
	read -r start _ <<<"$(victim_truth holes)"
	probe find "$victim_pid" . --in "$start+10,$start+20,$start-$(printf '0x%x' $((start + 5)))" --count
	[ "$stdout" = 20 ]
	for wrong in nonsense "" heap,, "$start" "$start+0" "$start-"; do
		probe find "$victim_pid" x --in "$wrong"
		status_is 2 || fail "$wrong"
	done
	probe find "$victim_pid" x --in file
	status_is 1
}

@test "the table, --max, --context, --exit-code" {
	start_victim needles
	read -r count start end <<<"$(victim_truth many)"
	probe find "$victim_pid" needle-many --in "$start-$end" --max 3
	status_is 0
	[ "${lines[0]}" = "find: $(thousands "$count") matches in 4.0M of memory" ]
	[ "${lines[-1]}" = "and $((count - 3)) more" ]
	[ "$(grep -c "^${start:2:6}.*needle-many" <<<"$output")" -eq 3 ]
	probe find "$victim_pid" needle-many --in "$start-$end" --json --max 2 --context 4
	json '.count == $n and (.matches | length) == 2 and .matches_left_out == $n - 2' --argjson n "$count"
	# The one byte that there is before it, and four behind it.
	json '.matches[0].context == "nneedle-manyneed" and .matches[0].context_start == $s' --arg s "$start"
	json '.matches[0].context_hex | startswith("6e6e6565") and length == 32'
	probe find "$victim_pid" needle-many --in "$start-$end" --json --max 0
	json '(.matches | length) == $n' --argjson n "$count"
	json '[.matches[].address] | length == (unique | length)'
	probe find "$victim_pid" needle-used --exit-code
	status_is 10
	[[ $output = *'in use'* ]]
	probe find "$victim_pid" "no such ""text" --exit-code --in heap
	status_is 0
	[ "${#lines[@]}" -eq 1 ]
	probe find "$victim_pid" needle-used --count --json
	json '.count >= 1 and .matches == []'
	victim_check
}

@test "patterns that are none are exit 2" {
	start_victim needles
	for wrong in "''" "--hex 6" "--hex xx" "--hex '??'" "--regex '('" "--regex ''" "--pointer zz" \
		"--pointer heap heap" "--pointer 5 5" "a b" "--hex --regex 61" "--utf16 --hex 61" \
		"x --max -1" "x --context 1M" "x --context 5000" "--pointer ffffffffffffffff"; do
		eval "probe find $victim_pid $wrong"
		status_is 2 || fail "$wrong"
	done
	probe find "$victim_pid" --regex '(((a+)+)+)+[xyz]' --in heap
	[ "$status" -le 6 ]
	victim_check
}

@test "a target that maps and unmaps while it is searched" {
	start_victim needles
	victim_say churn
	victim_wait churning
	victim_threads_vary=1
	for i in 1 2 3 4 5 6; do
		probe find "$victim_pid" needle-used --count
		# What was unmapped meanwhile is missing.
		[ "$status" -eq 0 ] || status_is 6
		[ "$stdout" = 1 ]
		probe find "$victim_pid" --regex 'needle-(used|last)' --json
		[ "$status" -eq 0 ] || status_is 6
		json '.count == 2'
	done
	victim_works
	victim_check
}

@test "killed and interrupted, memprobe harms nothing" {
	start_victim needles
	for signal in KILL KILL INT INT; do
		"$MEMPROBE" find "$victim_pid" --regex '[a-z]+' --max 0 --json >/dev/null 2>&1 &
		searcher=$!
		sleep 0.02
		kill -$signal $searcher 2>/dev/null || true
		status=0
		wait $searcher || status=$?
		case $signal in
		INT) [ "$status" -eq 0 ] || [ "$status" -ge 128 ] || fail "exit $status" ;;
		esac
	done
	victim_check
}
