# look_heap_at PID: leaks and core of a server under load, and look_still_at PID: what the walk, the
# allocator itself and a core tell of the heap of a server that stands still. What a leak search may
# find in servers that are known to be sound: look_leaks_max bytes (default 0).

look_heap_at() {
	local pid=$1 children
	children=$(children_of "$pid")

	probe leaks "$pid" --json
	status_is 0
	json '.totals.live_count > 0 and .stopped_us > 0'
	leaks_are_few

	probe core "$pid" -o "$BATS_TEST_TMPDIR/loaded.core" --json
	status_is 0
	json '.missing == [] and .bytes > 0 and .stopped_us > 0'
	rm "$BATS_TEST_TMPDIR/loaded.core"
	planted_are_found "$pid"

	# A snapshot that stays would be a child, as a zombie or frozen.
	[ "$children" = "$(children_of "$pid")" ] || fail "a child was left, or taken"
}

# A stale word may hide one or another.
planted_are_found() { # PID
	local n
	for n in 1 2 3 4; do
		probe call "$1" 'malloc(54321)'
		status_is 0 || return
	done
	probe leaks "$1" --json --top 0
	status_is 0 || return
	json '[.leaks[] | select(.size >= 54321 and .size < 54400) | .count] | add >= 2'
}

leaks_are_few() {
	json '.totals.leaked_bytes <= $most' --argjson most "${look_leaks_max:-0}"
}

figures_of() { # what both methods know
	jq -S '[[.arenas[] | {system, free, free_chunks, fast, fast_chunks}], .mmapped]' <<<"$output"
}

# The heap as the walk and as malloc_info() see it; false: a thread stopped in the midst of malloc.
methods_agree() {
	local pid=$1
	probe mallinfo "$pid" --method=call --json
	[ "$status" -eq 0 ] || return
	asked=$(figures_of)
	probe mallinfo "$pid" --method=walk --json
	status_is 0
	[ "$(jq .warnings <<<"$output")" = '[]' ] || return
	walked=$(figures_of)
	[ "$asked" = "$walked" ]
}

# Stands still where both methods agree.
stop_between_calls() { # PID
	local n
	for n in 1 2 3 4 5 6 7 8 9 10; do
		freeze "$1"
		! methods_agree "$1" || return 0
		kill -CONT "$1"
	done
	fail "the walk and malloc_info() differ:" "$(diff <(echo "$asked") <(echo "$walked"))"
}

look_still_at() {
	local pid=$1
	stop_between_calls "$pid"
	core_is_like "$pid" "$BATS_TEST_TMPDIR/core" || {
		kill -CONT "$pid"
		return 1
	}
	kill -CONT "$pid"
	gdb_reads "$pid" "$BATS_TEST_TMPDIR/core"
}

# ANSWER of `COMMAND` is the same of the process and of its core.
like_live() { # PID CORE FILTER COMMAND [ARG...]
	local pid=$1 core=$2 filter=$3 live
	shift 3
	probe "$1" "$pid" "${@:2}" --json
	[ "$status" -eq 0 ] || fail "$1: $status" "$stderr" || return
	live=$(jq -S "$filter" <<<"$output")
	probe "$1" "$core" "${@:2}" --json
	[ "$status" -eq 0 ] || fail "$1 of the core: $status" "$stderr" || return
	diff <(echo "$live") <(jq -S "$filter" <<<"$output") >&2 || fail "$1 of the core differs"
}

core_is_like() { # PID CORE
	local pid=$1 core=$2 range there
	there=$(ls "/proc/$pid/task") && there+=$(children_of "$pid")
	probe core "$pid" -o "$core" --json
	status_is 0 || return
	# A helper that stopped with the process would stay, and with it its zombie.
	[ "$there" = "$(ls "/proc/$pid/task")$(children_of "$pid")" ] ||
		fail "a thread or a child was left" || return
	[ $(($(stat -c %b "$core") / 2)) -le "$(awk '/^VmRSS:/ { print $2 }' "/proc/$pid/status")" ] ||
		fail "the core is larger than RSS" || return
	like_live "$pid" "$core" '[.mappings[] | {start, "end", perms, path}]' maps || return
	like_live "$pid" "$core" '[.threads[] | {tid, name, stack_start, stack_end, arena}]' threads ||
		return
	# A wait that is to begin anew is seen on its instruction or behind it.
	like_live "$pid" "$core" '[.threads[] | {tid, functions: [.frames[].function]}] | sort_by(.tid)' \
		stack || return
	like_live "$pid" "$core" '[.arenas, .totals, .mmapped]' mallinfo || return
	like_live "$pid" "$core" '.totals' leaks || return
	range=$(awk '/\[heap\]/ { sub("-", " "); print $1, $2 }' "/proc/$pid/maps")
	[ -n "$range" ] || return 0
	# shellcheck disable=SC2086
	cmp <(memprobe dump "$pid" $range -o -) <(memprobe dump "$core" $range -o -)
}

gdb_reads() { # PID CORE
	local threads
	command -v gdb >/dev/null || return 0
	timeout "$(patience 120)" gdb -nx --batch -ex 'thread apply all bt 3' "/proc/$1/exe" "$2" \
		>"$2.gdb" 2>"$2.err"
	threads=$(readelf -nW "$2" | grep -c NT_PRSTATUS)
	[ "$(grep -c '^Thread ' "$2.gdb")" -eq "$threads" ] || fail "$(cat "$2.gdb" "$2.err")" || return
	[ "$(grep -c '^#1 ' "$2.gdb")" -eq "$threads" ] || fail "$(cat "$2.gdb")" || return
	! grep -iE 'cannot access|not a core|truncated|corrupt' "$2.gdb" "$2.err"
}
