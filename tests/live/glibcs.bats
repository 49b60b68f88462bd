#!/usr/bin/env bats
# Victims of other releases' glibc, in a root of their own that has nothing else, and memprobe outside.

load lib

# Skips, with the reason, where the library cannot be fetched.
start_in_root_of() { # SUITE VICTIM [ARG...]
	local kept suite=$1 victim=$2 libraries
	shift 2
	skip_unless_root
	kept=$("$ROOT/contrib/fresh-root.sh" --libc "$suite" 2>"$BATS_TEST_TMPDIR/made") ||
		skip "$(tail -n 1 "$BATS_TEST_TMPDIR/made")"
	root=$BATS_TEST_TMPDIR/$suite
	[ -d "$root" ] || cp -a "$kept" "$root"
	libraries=$root/usr/lib/x86_64-linux-gnu
	# shellcheck disable=SC2046
	gcc --sysroot="$root" -B"$libraries" -L"$libraries" -std=gnu11 -D_GNU_SOURCE -pthread -O2 -g \
		-fno-omit-frame-pointer -Wl,--no-undefined \
		$(sed -n 's/^.*[[:blank:]]cflags:\(.*\)/\1/p' "$ROOT/tests/victims/$victim.c") \
		-o "$root/$victim" "$ROOT/tests/victims/$victim.c"
	start_command chroot "$root" "/$victim" "$@"
	# Its own library, not this machine's.
	[ "$(stat -L -c %d:%i "/proc/$victim_pid/root/lib/x86_64-linux-gnu/libc.so.6")" = \
		"$(stat -L -c %d:%i "$libraries/libc.so.6")" ]
}

truth() { # FIELD of mallinfo2
	grep '^mallinfo2 ' "$victim_out" | tail -1 | tr ' ' '\n' | sed -n "s/^$1=//p"
}

figures_are_exact() { # METHOD
	probe mallinfo "$victim_pid" --method="$1" --json
	status_is 0
	json '.method == $method' --arg method "$1"
	json '.totals.system == $n' --argjson n "$(truth arena)"
	json '.totals.in_use == $n' --argjson n "$(truth uordblks)"
	json '.totals.free == $n' --argjson n "$(truth fordblks)"
	json '.totals.fast == $n' --argjson n "$(truth fsmblks)"
	json '.mmapped.count == $n' --argjson n "$(truth hblks)"
	json '.mmapped.bytes == $n' --argjson n "$(truth hblkhd)"
	figures=$(json_get -S '[.arenas[] | del(.in_use_chunks, .tcache, .tcache_chunks, .top)], .mmapped')
}

works_with_libc_of() { # SUITE
	local walked function counts got
	start_in_root_of "$1" heapshape 3
	figures_are_exact walk
	walked=$figures
	figures_are_exact call
	diff <(echo "$walked") <(echo "$figures")
	victim_check
	stop_victim

	start_in_root_of "$1" leaks
	probe leaks "$victim_pid" --json --top 0
	status_is 0
	json '.warnings == []'
	json '.totals | "\(.leaked_count) \(.leaked_bytes)" == $planted' \
		--arg planted "$(victim_truth planted | cut -d' ' -f1,2)"
	victim_check
	stop_victim

	start_in_root_of "$1" allocshape
	record_begin allocs "$victim_pid" --sample 1 --all --json
	victim_say go
	victim_wait '^done' >/dev/null
	record_end
	status_is 0
	json '.lost == 0 and .remaining == 0'
	[ "$(grep -c '^truth' "$victim_out")" -ge 5 ]
	while read -r _ function counts; do
		got=$(figures_of "$function")
		[ "$got" = "$counts" ] || fail "$function: $got instead of $counts" "$output"
	done < <(grep '^truth' "$victim_out")
	victim_check
}

@test "mallinfo, leaks and allocs are exact with Debian 11's glibc" {
	works_with_libc_of bullseye
}

@test "mallinfo, leaks and allocs are exact with Debian 12's glibc" {
	works_with_libc_of bookworm
}

@test "mallinfo, leaks and allocs are exact with Debian 13's glibc" {
	works_with_libc_of trixie
}

@test "mallinfo, leaks and allocs are exact with the glibc of Debian's next" {
	works_with_libc_of sid
}
