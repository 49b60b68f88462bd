#!/usr/bin/env bats
# memprobe stack: the right functions in the right order, of every kind of program and place.

load lib

# The functions of one thread, innermost first, inlined ones included, without parameters.
functions() { # TID
	jq -r --argjson tid "$1" '.threads[] | select(.tid == $tid) | .frames[] | .function // "?"' \
		<<<"$output"
}

# chain_12 to chain_1 and thread_main below wait_NAME, in every thread of callchain.
chains_are_there() {
	local tid name expected
	while read -r tid name; do
		expected=$(printf 'chain_%d ' 12 11 10 9 8 7 6 5 4 3 2 1)thread_main
		[ "$(functions "$tid" | sed -n "/^wait_$name\$/,/^thread_main\$/p" | tr '\n' ' ')" = \
			"wait_$name $expected " ] ||
			fail "thread $tid ($name):" "$(functions "$tid")" || return
	done < <(sed -n 's/^thread //p' "$victim_out")
}

handler_tid() {
	sed -n 's/^thread \([0-9]*\) handler$/\1/p' "$victim_out"
}

check_callchain() {
	probe stack --json "$victim_pid"
	status_is 0
	chains_are_there
	json '[.threads[] | select(.truncated)] == []'
	json '.stopped_us > 0'
	victim_check
}

@test "the frames of a program without frame pointers" {
	start_victim callchain
	check_callchain
}

@test "the frames of an i386 program" {
	start_victim callchain-32
	check_callchain
}

@test "the frames of a static program" {
	start_victim callchain-static
	check_callchain
}

@test "a handler's thread shows what the signal interrupted" {
	start_victim callchain
	probe stack --json "$victim_pid"
	status_is 0
	run functions "$(handler_tid)"
	[[ $output == *$'wait_poll\non_signal\n'*$'\nwait_handler\nchain_12\n'* ]] || fail "$output"
	victim_check
}

# The FUNCTIONs of each line `thread TID NAME FUNCTION...` in their order, others between them.
stacks_are_there() {
	local tid name wanted function rest
	while read -r tid name wanted; do
		rest=$(functions "$tid")
		for function in $wanted; do
			grep -qx "$function" <<<"$rest" || {
				fail "thread $tid ($name): no $function among" "$(head -20 <<<"$rest")"
				return
			}
			rest=$(sed "0,/^$function\$/d" <<<"$rest")
		done
	done < <(sed -n 's/^thread //p' "$victim_out")
}

check_altstack() {
	start_victim "$1"
	probe stack --json "$victim_pid"
	status_is 0
	[ "$(grep -c '^thread ' "$victim_out")" = 8 ]
	stacks_are_there
	# Those whose stack overflowed are shown to their start.
	json '[.threads[] | select(any(.frames[]; .function == "recurse")).frames[].function] |
		index("overflow") > 50 and index("thread_main") > 50'
	json '[.threads[] | select(any(.frames[]; .function == "plunge")).frames[].function] |
		index("guarded") > 15 and index("thread_main") > 15'
	victim_check
}

@test "a handler on an alternate stack shows what it interrupted" {
	check_altstack altstack
}

@test "a handler on an alternate stack of an i386 program" {
	check_altstack altstack-32
}

@test "a handler on an alternate stack of a static program" {
	check_altstack altstack-static
}

@test "a deleted program has its names" {
	make_public_dir
	cp "$VICTIMS/callchain" "$public_dir/gone"
	start_command "$public_dir/gone"
	rm "$public_dir/gone"
	victim_remember
	check_callchain
}

@test "a program in a mount namespace of its own, at a path that the host does not have" {
	skip_unless_root
	make_public_dir
	mkdir "$public_dir/inside"
	unshare --mount true || skip "cannot unshare the mount namespace"
	start_command unshare --mount --propagation private sh -c '
		mount -t tmpfs none "$1/inside" &&
		cp "$2" "$1/inside/hidden" && exec "$1/inside/hidden"' \
		sh "$public_dir" "$VICTIMS/callchain"
	[ ! -e "$public_dir/inside/hidden" ]
	check_callchain
}

@test "a stripped program shows module and offset where there is no name" {
	make_public_dir
	strip -o "$public_dir/stripped" "$VICTIMS/callchain"
	start_command "$public_dir/stripped"
	probe stack --json "$victim_pid"
	status_is 0
	tid=$(sed -n 's/^thread \([0-9]*\) nanosleep$/\1/p' "$victim_out")
	json '.threads[] | select(.tid == $tid) |
		[.frames[] | select(.function == null and (.module | endswith("/stripped")) and
			.offset > 0)] | length == 14' --argjson tid "$tid"
	json '.threads[] | select(.tid == $tid) | .frames[-1].module | contains("libc")' \
		--argjson tid "$tid"
	probe stack "$victim_pid"
	[[ $output == *" stripped+0x"* ]] || fail "$output"
	victim_check
}

@test "C++ names are written as their programmer wrote them" {
	start_victim templates
	probe stack --json "$victim_pid"
	status_is 0
	while read -r name; do
		functions "$victim_pid" | grep -qF "$name" ||
			fail "no $name in:" "$(functions "$victim_pid")"
	done < <(sed -n 's/^function //p' "$victim_out")
	json '.threads[0].frames[] | select(.function == "main") | .file | endswith("templates.cc")'
	victim_check
}

@test "one thread alone" {
	start_victim callchain
	tid=$(sed -n 's/^thread \([0-9]*\) epoll$/\1/p' "$victim_out")
	probe stack --tid "$tid" --json "$victim_pid"
	status_is 0
	json '[.threads[].tid] == [$tid]' --argjson tid "$tid"
	probe stack --tid=1 "$victim_pid"
	status_is 3
	probe stack --tid=x "$victim_pid"
	status_is 2
	victim_check
}

@test "a process stopped by SIGSTOP stays stopped" {
	start_victim callchain
	freeze "$victim_pid"
	victim_remember
	probe stack --json "$victim_pid"
	status_is 0
	json '.threads | length == 7'
	wait_until 60 threads_are T "$victim_pid"
	victim_check
	kill -CONT "$victim_pid"
}

@test "gdb finds the same functions" {
	command -v gdb >/dev/null || skip "no gdb"
	start_victim threads
	settle
	probe stack --json "$victim_pid"
	status_is 0
	ours=$(jq -r '.threads[] | .tid as $tid | .frames[] | select(.inlined | not) |
		"\($tid) \(.pc)"' <<<"$output" | sort)
	settle
	# Without victim_check: gdb ends epoll_wait and others with EINTR.
	gdb -nx -batch -ex 'set debuginfod enabled off' -ex 'set backtrace past-main on' \
		-ex 'set backtrace past-entry on' -ex 'set pagination off' \
		-ex 'set print address on' -ex 'thread apply all -q python
f = gdb.newest_frame()
while f is not None:
    if f.type() == gdb.NORMAL_FRAME:
        print("FRAME %d %#x" % (gdb.selected_thread().ptid[1], f.pc()))
    f = f.older()
' -p "$victim_pid" >"$BATS_TEST_TMPDIR/gdb.out" 2>&1 || true
	theirs=$(sed -n 's/^FRAME //p' "$BATS_TEST_TMPDIR/gdb.out" | sort)
	[ -n "$theirs" ] || skip "this gdb has no python"
	diff <(echo "$ours") <(echo "$theirs")
}

@test "a refused stop says why" {
	skip_unless_root
	prepare_user
	start_victim idle
	run as_user "$user_memprobe" stack "$victim_pid"
	status_is 4
	victim_check
}

# ---- code that the program makes itself ----

@test "JIT code has the names of the perf map" {
	start_victim jitted
	settle
	probe stack "$victim_pid" --json
	status_is 0
	json '[.threads[].frames[].function] | index("JS:*wait jitted.js:2") != null'
	for recorder in allocs syscalls faults; do
		record_begin $recorder "$victim_pid" -d 60 --json
		case $recorder in
		allocs) victim_say allocate 2000 && victim_wait '^allocated' ;;
		syscalls) victim_say map 1048576 && victim_wait '^mapped' ;;
		faults) victim_say touch 1048576 && victim_wait '^touched' ;;
		esac
		record_end
		status_is 0
		json '[.sites[].frames[]] | any(startswith("JS:*"))' || fail $recorder
		json '[.sites[].frames[]] | all(startswith("stale code") | not)'
	done
	rm -f "/tmp/perf-$victim_pid.map"
	victim_check
}

@test "the perf map is that of the target's own mount and PID namespace" {
	skip_unless_root
	victim_out=$BATS_TEST_TMPDIR/jitted.out
	mkfifo "$BATS_TEST_TMPDIR/in"
	exec {victim_in}<>"$BATS_TEST_TMPDIR/in"
	# The victim's file may lie in the /tmp that it does not see.
	unshare --pid --fork --kill-child --mount --mount-proc sh -c 'mount -t tmpfs tmpfs /tmp &&
		cat <&9 >/tmp/jitted && chmod 700 /tmp/jitted && exec /tmp/jitted 9<&-' \
		<"$BATS_TEST_TMPDIR/in" >"$victim_out" 2>&1 3>&- 9<"$VICTIMS/jitted" &
	container=$!
	ends_with $container KILL
	wait_until 60 grep -q '^ready 1$' "$victim_out" || fail "$(cat "$victim_out")"
	victim_pid=$(cat "/proc/$container/task/$container/children")
	victim_pid=${victim_pid% }
	victim_files[$victim_pid]=$victim_out
	victim_remember
	settle
	probe stack "$victim_pid" --json
	status_is 0
	json '[.threads[].frames[].function] | index("JS:*wait jitted.js:2") != null'
	victim_check
}
