#!/usr/bin/env bats
# What a user meets before and beside the figures.

load lib

# A PAGE line for each page at a 64 MiB boundary of anonymous memory: what its page table entry says.
aligned_pages() {
	python3 - "$victim_pid" <<'END'
import struct, sys
pid = sys.argv[1]
with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/pagemap", "rb", buffering=0) as table:
    for line in maps:
        start, end = (int(part, 16) for part in line.split()[0].split("-"))
        at = -(-start // (64 << 20)) * (64 << 20)
        if at < end and line.split()[4] == "0" and "w" in line.split()[1]:
            table.seek(at // 4096 * 8)
            print("PAGE", hex(at), struct.unpack("<Q", table.read(8))[0] >> 62)
END
}

@test "a reader who has seen enough is no error" {
	start_victim idle
	for command in "maps $victim_pid --json" "dump $victim_pid stack -x"; do
		# shellcheck disable=SC2086
		memprobe $command 2>"$BATS_TEST_TMPDIR/err" | head -c 10 >/dev/null
		[ ! -s "$BATS_TEST_TMPDIR/err" ] || fail "$command: $(cat "$BATS_TEST_TMPDIR/err")"
	done
}

@test "-v tells how long threads were held" {
	start_victim idle
	probe trim "$victim_pid" -v
	status_is 0
	[[ $stderr == *"longest stop of a thread: "*" "[um]s* ]] || fail "$stderr"
	probe trim "$victim_pid"
	[[ $stderr != *longest* ]]
}

@test "usage errors show the synopsis of their command" {
	probe completion
	status_is 2
	[[ $stderr == *"hint: memprobe completion bash|zsh|fish"* ]] || fail "$stderr"
	probe maps
	status_is 2
	[[ $stderr == *"hint: memprobe maps TARGET"* ]] || fail "$stderr"
	probe maps 1 --every 1 --by-type
	status_is 2
}

refused() { # HINT ARG...: a usage error with one line of error and this hint
	probe "${@:2}"
	status_is 2
	[ -z "$stdout" ]
	[ "$(wc -l <<<"$stderr")" -eq 2 ] && [[ $stderr = "memprobe: "*$'\n'"hint: "$1 ]] ||
		fail "${*:2}: $stderr"
}

@test "who mistypes a command or an option is told what was probably meant" {
	start_victim idle
	refused 'did you mean `memprobe maps`?*' mapps 1
	refused 'did you mean `memprobe threads`?*' thread 1
	refused '`memprobe -h` lists the commands' bogus
	refused 'did you mean --by-type? `memprobe maps -h` lists the options' maps 1 --bytype
	refused 'did you mean --json? `memprobe -h` lists the options' --jsn maps 1
	refused '`memprobe maps -h` lists the options' maps 1 --bogus
	refused '`memprobe maps -h` lists the options' maps 1 -z
	refused 'it may be one of --by-type, --by-size, --by-file, --bytes' maps 1 --by
	refused '*memprobe COMMAND TARGET --by-type' --by-type maps 1
	refused '`memprobe maps -h` lists the options' maps 1 --every
	[[ $stderr = *"option --every takes a value"* ]]
	refused '`memprobe maps -h` lists the options' maps 1 --json=1
	[[ $stderr = *"option --json=1 takes no value"* ]]
}

@test "with --json an error is a document, too" {
	start_victim idle
	for wrong in "3 maps 999999999" "2 maps $victim_pid --bogus" "2 maps $victim_pid extra extra" \
		"2 bogus" "1 dump $victim_pid 0x1000 0x2000 -o $BATS_TEST_TMPDIR/none"; do
		# shellcheck disable=SC2086
		probe ${wrong#* } --json
		status_is "${wrong%% *}"
		json '.schema == "memprobe/1" and .error.code == $code and (.error.message | length) > 0 and
			(.error | has("hint"))' --argjson code "${wrong%% *}"
		[[ $stderr = "memprobe: $(json_get .error.message)"* ]] || fail "$stderr"
	done
	probe maps "$victim_pid" --json
	json 'has("error") | not'
	victim_check
}

@test "help is another word for -h" {
	[ "$(memprobe help)" = "$(memprobe -h)" ]
	[ "$(memprobe help maps)" = "$(memprobe maps -h)" ]
	[ "$(memprobe -h maps)" = "$(memprobe maps -h)" ]
	[ "$(memprobe -h -q)" = "$(memprobe -h)" ]
	refused 'did you mean `memprobe maps`?*' -h mpas
	refused 'did you mean `memprobe maps`?*' help mpas
}

@test "a path that is none says so, and is no process" {
	probe maps ./absent
	status_is 3
	[ "$stderr" = "memprobe: cannot open ./absent: no such file or directory" ] || fail "$stderr"
}

@test "a recording that could not be written is not begun" {
	start_victim idle
	for path in "$BATS_TEST_TMPDIR/absent/out.svg" "$BATS_TEST_TMPDIR"; do
		for command in allocs faults syscalls; do
			run --separate-stderr timeout "$(patience 60)" "$MEMPROBE" "$command" "$victim_pid" -o "$path" \
				--format svg
			status_is 1
		done
	done
	probe allocs "$victim_pid" -d 0.1 -o "$BATS_TEST_TMPDIR/out.svg"
	status_is 0
	[ "$(echo "$BATS_TEST_TMPDIR"/out.svg*)" = "$BATS_TEST_TMPDIR/out.svg" ]
	victim_check
}

@test "who may not attach is told so in one line and a hint" {
	skip_unless_root
	start_victim leaks 100
	prepare_user
	run --separate-stderr as_user "$user_memprobe" leaks "$victim_pid"
	status_is 4
	[[ $stderr = "memprobe: cannot attach to "*$'\n'"hint: "* && $stderr != *warning* ]] || fail "$stderr"
	victim_check
}

@test "a stopped thread is shown as stopped, not as what memprobe does to it" {
	start_victim idle
	freeze "$victim_pid"
	probe stack "$victim_pid" -t "$victim_pid" --json
	status_is 0
	json '.threads[0].state == "T"'
	kill -CONT "$victim_pid"
}

@test "a process whose main thread has ended can be called" {
	start_victim refuse leader
	probe call "$(victim_truth child)" 'getpid()'
	status_is 0
	probe trim "$(victim_truth child)" --json
	status_is 0
	json '.rss_before > 0 and .rss_after > 0'
	record_begin faults "$(victim_truth child)" --json
	record_end
	status_is 0
	json '.rss_before > 0 and .rss_after > 0'
}

@test "looking for glibc's arenas touches no page of another allocator's memory" {
	local library before
	library=$(ls /usr/lib/*/libjemalloc.so.2 2>/dev/null | head -1)
	[ -n "$library" ] || skip "no jemalloc"
	LD_PRELOAD=$library start_victim threads
	before=$(aligned_pages)
	probe maps "$victim_pid"
	status_is 0
	probe threads "$victim_pid"
	status_is 0
	[ "$before" = "$(aligned_pages)" ] || fail "before: $before" "after: $(aligned_pages)"
}

# Of what is written to `pipe`: the writer cannot go on before a second is over.
slow_reader() {
	{ head -c 1 && sleep 1.2 && cat; } <pipe >dumped 3>&- &
}

@test "what lasts over a second shows a bar on a terminal, and none in a pipe" {
	command -v script >/dev/null || skip "no script(1)"
	start_victim leaks
	cd "$BATS_TEST_TMPDIR"
	mkfifo pipe
	dump="timeout 60 '$MEMPROBE' dump $victim_pid heap -o pipe"
	slow_reader
	script -qec "$dump" /dev/null >said 2>&1 </dev/null
	wait $!
	grep -q 'memprobe dump \[=*>* *\] *[0-9]* %' said || fail "$(<said)"
	[[ $(<said) = *$'\r\e[K' ]] || fail "the bar stays"
	slow_reader
	bash -c "$dump" >said 2>&1
	wait $!
	[ ! -s said ] || fail "$(<said)"
	victim_check
}
