#!/usr/bin/env bats
# Tables of every command: as wide as the terminal, complete in a pipe, the answer first.

load lib

# What `memprobe ARG...` prints on a terminal of COLUMNS, without colours.
on_terminal() { # COLUMNS ARG...
	local columns=$1
	shift
	timeout "$(patience 60)" script -qec "stty cols $columns; $MEMPROBE $* 2>/dev/null" /dev/null \
		</dev/null 3>&- | tr -d '\r' | sed 's/\x1b\[[0-9;]*m//g'
}

# Lines but for the first, which is a sentence, and those of paragraphs.
fits() { # COLUMNS ARG...
	on_terminal "$@" | awk -v most="$1" 'NR > 1 && $1 != "malloc" && length > most {
		print "of " length " columns, more than " most ": " $0; bad = 1 } END { exit bad || NR < 3 }' ||
		fail "$*"
}

@test "tables fit the terminal and lose nothing in a pipe" {
	command -v script >/dev/null || skip 'needs script(1)'
	start_victim leaks 1000
	cd "$BATS_TEST_TMPDIR"
	printf 'main;%0300d;leaf 1000000\nmain;other 5\n' 0 >a.folded
	printf 'main;%0300d;leaf 3000000\n' 0 >b.folded
	for columns in 60 80 120 200; do
		for command in "maps $victim_pid" "maps $victim_pid --by-type" "maps $victim_pid --by-file" \
			"maps $victim_pid --by-size" "threads $victim_pid" "mallinfo $victim_pid" \
			"heap $victim_pid" "heap $victim_pid --by size" "heap $victim_pid --by content" \
			"leaks $victim_pid" "find $victim_pid leaked --max 20" "strings $victim_pid" \
			"trim $victim_pid --dry-run" "check $victim_pid" "diff a.folded b.folded" \
			"flame a.folded --format=table"; do
			fits $columns $command
		done
	done
	# A name that is cut says so; in a pipe none is.
	[[ $(on_terminal 60 flame a.folded --format=table) = *...* ]]
	probe flame a.folded --format=table
	[[ $output = *"$(printf %0300d 0)"* ]]
	# -o FILE gets what a pipe gets.
	on_terminal 60 maps "$victim_pid" -o out
	grep -q '^total .*  0$' out && ! grep -q $'\033\|no room' out
	# Columns that have no room are named.
	[[ $(on_terminal 60 maps "$victim_pid") = *"no room for "*SWAP* ]]
	probe maps "$victim_pid"
	[[ ${lines[1]} = *START*END*PERM*SIZE*RSS*PSS*DIRTY*SWAP*HUGE*TYPE*NAME && $output != *"no room"* ]]
	[[ $output != *$'\033'* ]]
	victim_check
}

@test "sizes have units everywhere, and are bytes with --bytes" {
	start_victim leaks 1000 0
	cd "$BATS_TEST_TMPDIR"
	printf 'main;leaf 3000000\n' >a.folded
	probe leaks "$victim_pid" --json
	bytes=$(json_get .totals.leaked_bytes) largest=$(json_get '[.leaks[].bytes] | max')
	probe leaks "$victim_pid"
	[[ ${lines[0]} = *M* && $output != *" $largest "* ]]
	probe leaks "$victim_pid" --bytes
	[[ ${lines[0]} = *"($bytes bytes)"* && $output = *" $largest "* ]]
	probe maps "$victim_pid" --by-type --bytes
	[ "$(awk '$1 == "total" { print $3 }' <<<"$output")" -gt 1048576 ]
	probe maps "$victim_pid" --by-type
	[[ $(awk '$1 == "total" { print $3 }' <<<"$output") = *M ]]
	for command in threads mallinfo "heap --by size" "trim --dry-run"; do
		set -- $command
		probe "$1" "$victim_pid" "${@:2}"
		# There may be nothing to trim: where the heap ends within a page is chance.
		grep -qE ' [0-9.]+[KM]( |$)' <<<"$output" || [ "$1" = trim ] || fail "$command: $output"
		probe "$1" "$victim_pid" "${@:2}" --bytes
		! grep -qE ' [0-9.]+[KMG]( |$)' <<<"$output" || fail "$command: $output"
	done
	probe flame a.folded --format=table --countname bytes
	[[ $output = *2.9M* ]]
	probe flame a.folded --format=table --countname bytes --bytes
	[[ $output = *3000000* ]]
	victim_check
}
