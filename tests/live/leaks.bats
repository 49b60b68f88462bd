#!/usr/bin/env bats
# leaks against what a victim has planted.

load lib

planted_count() {
	victim_truth planted | cut -d' ' -f1
}

planted_bytes() {
	victim_truth planted | cut -d' ' -f2
}

kept() { # KIND
	sed -n "s/^kept $1 //p" "$victim_out"
}

found_all() {
	probe leaks "$victim_pid" --json --top 0
	status_is 0
	json '.totals.leaked_count == $n' --argjson n "$(planted_count)"
	json '.totals.leaked_bytes == $n' --argjson n "$(planted_bytes)"
	json '[.leaks[].count] | add == $n' --argjson n "$(victim_truth direct)"
	json '.leaks | all(.bytes == .size * .count and (.examples | length) > 0)'
	json '([.leaks[] | .count + .indirect_count] | add) == .totals.leaked_count'
	json '([.leaks[] | .bytes + .indirect_bytes] | add) == .totals.leaked_bytes'
	json '.leaks | any(.preview == "\"this block was leaked\"" and .count == 1000 * $threads)' \
		--argjson threads 3
	json '([.leaks[].cyclic] | add) == 60'
	json '.totals.live_count > 20000'
}

@test "every planted leak is found and nothing else, 64 bit" {
	start_victim leaks
	found_all
	json '.warnings == [] and .stopped_us > 0'
	victim_check
}

# In 4 GiB of addresses a stale word of a stack may well point to a block: it hides what hangs on it.
@test "every planted leak is found and nothing else, 32 bit" {
	start_victim leaks-32
	probe leaks "$victim_pid" --json --top 0
	status_is 0
	json '.totals.leaked_count <= $n and .totals.leaked_count >= $n * 0.995' \
		--argjson n "$(planted_count)"
	json '.totals.leaked_bytes <= $n' --argjson n "$(planted_bytes)"
	json '([.leaks[] | .count + .indirect_count] | add) == .totals.leaked_count'
	json '([.leaks[] | .bytes + .indirect_bytes] | add) == .totals.leaked_bytes'
	victim_check
}

@test "every planted leak is found and nothing else, static" {
	start_victim leaks-static
	found_all
	victim_check
}

@test "every planted leak is found in a process that is held" {
	start_victim leaks
	probe leaks "$victim_pid" --no-fork --json
	status_is 0
	json '.totals.leaked_count == $n' --argjson n "$(planted_count)"
	victim_check
}

@test "--retain tells what keeps a block" {
	for variant in $(runnable leaks leaks-32); do
		start_victim $variant
		for kind in interior tls mmap shared; do
			probe leaks "$victim_pid" --retain "$(kept $kind)" --json
			status_is 0
			json '.chain | length == 1 and .[0].kind == "memory"'
			json '.referrers | length == 1'
		done
		probe leaks "$victim_pid" --retain "$(kept stack)" --json
		json '.block.leaked | not'
		json '.chain[0].kind == "stack" and (.chain[0].tid | type) == "number"'
		probe leaks "$victim_pid" --retain "$(kept register)" --json
		json '.chain[0].kind == "register"'
		probe leaks "$victim_pid" --retain "$(kept chain)" --json
		json '[.chain[].kind] == ["memory", "block", "block"]'
		json '.referrers[0].block == .chain[2].block'
		probe leaks "$victim_pid" --retain "$(victim_truth flat)" --json
		json '.block.leaked and .chain == [] and .referrers == []'
		probe leaks "$victim_pid" --retain "$(victim_truth member)" --json
		json '.block.leaked and .chain == [] and (.referrers | length) == 1'
		probe leaks "$victim_pid" --retain 0x10
		status_is 1
		victim_check
	done
}

@test "--exit-code and --suppressions" {
	start_victim leaks 1000 0
	probe leaks "$victim_pid" --exit-code
	status_is 10
	[[ ${lines[0]} = "leaks: $(thousands "$(planted_count)") blocks ("*") are unreachable; "*" in use" ]] || fail "$output"
	[[ $output = *"this block was leaked"* ]]
	printf '%s\n' '# known' 'text:block was leaked' >"$BATS_TEST_TMPDIR/known"
	probe leaks "$victim_pid" --exit-code --suppressions "$BATS_TEST_TMPDIR/known" --json
	status_is 10
	json '.totals.suppressed_count == 1000'
	json '.totals.suppressed_count + .totals.leaked_count == $n' \
		--argjson n "$(planted_count)"
	json '.leaks | all(.preview | contains("this block") | not)'
	printf '%s\n' 'text:leaked' 'size:56' "size:$(victim_truth size)" >"$BATS_TEST_TMPDIR/known"
	probe leaks "$victim_pid" --exit-code --suppressions "$BATS_TEST_TMPDIR/known" --json
	status_is 0
	json '.totals.leaked_count == 0 and .leaks == []'
	echo nonsense >"$BATS_TEST_TMPDIR/known"
	probe leaks "$victim_pid" --suppressions "$BATS_TEST_TMPDIR/known"
	status_is 2
	[[ $stderr = *known:1* ]]
	victim_check
}

@test "what has no heap of glibc's is refused" {
	start_victim idle-musl
	probe leaks "$victim_pid"
	status_is 5
	victim_check
}

# ---- stacks ----

# Leaks by size, against the victim's lines `lost SIZE COUNT`.
lost_is_leaked() {
	probe leaks "$victim_pid" --json --top 0
	status_is 0
	diff <(sed -n 's/^lost //p' "$victim_out" | sort) \
		<(json_get '.leaks | group_by(.size)[] |
			"\(.[0].size) \([.[].count + .[].indirect_count] | add)"' | sort) >&2 ||
		fail "not what was lost (<)"
}

# Stacks against the victim's lines `thread TID START END`.
stacks_are_right() {
	probe threads "$victim_pid" --json
	diff <(sed -n 's/^thread //p' "$victim_out" | sort) \
		<(json_get '.threads[] | select(.tid != $pid) |
			"\(.tid) \(.stack_start[2:]) \(.stack_end[2:])"' \
			--argjson pid "$victim_pid" | sort) >&2 || fail "not its stacks (<)"
}

# Starts a victim of which CHECK holds. In 32 bits a number may be an address by chance, and keep a
# block: then another one, which lies elsewhere.
start_at_luck() { # VARIANT CHECK [ARG...]
	local variant=$1 check=$2 tries
	shift 2
	for tries in 3 2 1; do
		start_victim "$variant" "$@"
		settle
		! "$check" || return 0
		[[ $variant == *-32 && $tries -gt 1 ]] || return 1
		stop_victim
	done
}

@test "stacks of threads wherever they are, and of coroutines, keep what they point to" {
	for variant in $(runnable threadstacks threadstacks-32 threadstacks-static); do
		for kind in guard bare pool fenced guarded heap static comap coheap costatic alternate; do
			start_at_luck $variant lost_is_leaked $kind || fail "$variant $kind"
			[ $kind = fenced ] || stacks_are_right || fail "$variant $kind"
			victim_check
			stop_victim
		done
	done
}

@test "stacks of threads that have ended keep nothing but results for pthread_join()" {
	for variant in $(runnable threadstacks threadstacks-32 threadstacks-static); do
		start_at_luck $variant lost_is_leaked ended || fail "$variant"
		victim_check
		stop_victim
	done
}

# ---- the names of roots ----

retain() { # BLOCK FILTER [jq option...]
	probe leaks "$victim_pid" --retain "$1" --json
	status_is 0
	json "${@:2}"
}

chain_is_named() {
	retain "$(kept chain)" '.chain[0].what == "chain in .bss of " + $v' --arg v "$variant"
}

@test "--retain names the variable, the function's frame, the register, the thread" {
	for variant in $(runnable leaks leaks-32 leaks-static); do
		start_at_luck $variant chain_is_named
		retain "$(kept interior)" '.chain[0] | .symbol == "interior" and
			.what == "interior in .bss of " + $v and (.module | endswith("/" + $v))' \
			--arg v $variant
		retain "$(kept tls)" '.chain[0].what ==
			"thread-local in_tls of thread \($pid) \"\($v[0:15])\""' \
			--arg v $variant --argjson pid "$victim_pid"
		retain "$(kept mmap)" '.chain[0].what == "anonymous memory" and .chain[0].module == null'
		retain "$(kept shared)" '.chain[0].what | startswith("memory of /")'
		# What pause() saves may have it, too.
		retain "$(kept stack)" '.chain[0].kind == "stack" and (.referrers | any(.symbol == "holder" and
			(.tid as $tid | .what | test("^stack of thread \($tid) \"leaks.*\", in holder$"))))'
		retain "$(kept register)" '.chain[0].what |
			test("^register (r[1b][2-5x]|e[a-z]+) of thread [0-9]+ \"leaks")'
		probe leaks "$victim_pid" --retain "$(kept interior)"
		[[ $output = *": interior in .bss of $variant"* ]]
		victim_check
		stop_victim
	done
}

@test "--retain names what ended threads have left" {
	start_victim threadstacks ended
	probe leaks "$victim_pid" --json --top 0
	block=$(json_get '.leaks[] | select(.size == 2216) | .examples[0]')
	retain "$block" '.block.leaked and .chain == [] and
		(.referrers | length > 0 and all(.kind == "cached-stack"))'
	probe leaks "$victim_pid" --retain "$block"
	[[ $output = *": cached stack of a thread that ended: no root"* ]]
	retain "$(victim_truth joinable)" '.block.leaked == false and .chain[0].kind == "ended"'
	victim_check
}

# ---- what keeps and what loses blocks in real programs ----

@test "what LeakSanitizer's and valgrind's own test programs keep and lose" {
	local flags
	for variant in $(runnable leakkinds leakkinds-32); do
		flags=
		[ $variant = leakkinds ] || flags=-m32
		for name in one two; do
			gcc $flags -shared -fPIC -o "$BATS_TEST_TMPDIR/lib$name.so" -x c - <<-'EOF'
				static void *data;
				static __thread void *tls[100];
				void set_all(void *to_data, void *to_tls)
				{
					data = to_data;
					if (to_tls)
						tls[50] = to_tls;
				}
			EOF
		done
		start_victim $variant "$BATS_TEST_TMPDIR/libone.so" "$BATS_TEST_TMPDIR/libtwo.so"
		settle
		lost=$(awk '$1 == "lost" { n += $3; bytes += $2 * $3 } END { print n, bytes }' "$victim_out")
		memprobe core "$victim_pid" -o "$BATS_TEST_TMPDIR/core"
		for target in "$victim_pid" "$BATS_TEST_TMPDIR/core"; do
			probe leaks "$target" --json --top 0
			status_is 0
			[ "$(json_get '.totals | "\(.leaked_count) \(.leaked_bytes)"')" = "$lost" ] ||
				fail "$variant: not $lost:" "$(json_get '.leaks[] |
					"\(.size) \(.count) \(.indirect_count)"')" || return
		done
		victim_check
		stop_victim
	done
}
