#!/usr/bin/env bats
# Targets in other places: linked statically, 32 bits, in containers, of other users.

load lib
load look

@test "a static program at work" {
	start_victim malloc_load-static 2
	look_at "$victim_pid"
	victim_works
	victim_check
}

@test "a 32-bit program at work" {
	start_victim malloc_load-32 2
	look_at "$victim_pid"
	victim_works
	victim_check
}

@test "a static program on musl" {
	start_victim malloc_load-musl 2
	allocator=other look_at "$victim_pid"
	victim_works
	victim_check
}

# Starts malloc_load as PID 1 of its own PID and mount namespace; `root` is its root directory.
start_in_container() { # ROOT COMMAND...
	local root=$1
	shift
	skip_unless_root
	victim_count=$((victim_count + 1))
	victim_out=$BATS_TEST_TMPDIR/victim$victim_count.out
	mkfifo "$victim_out.in"
	exec {victim_in}<>"$victim_out.in"
	unshare --pid --fork --kill-child --mount --mount-proc="$root/proc" chroot "$root" "$@" \
		<"$victim_out.in" >"$victim_out" 3>&- &
	container=$!
	ends_with $container KILL
	wait_until 60 grep -q '^ready 1$' "$victim_out"
	victim_pid=$(cat "/proc/$container/task/$container/children")
	victim_pid=${victim_pid% }
	victim_files[$victim_pid]=$victim_out
	victim_remember
}

@test "PID 1 of another PID and mount namespace" {
	start_in_container / "$(realpath "$VICTIMS/malloc_load")" 2
	look_at "$victim_pid"
	victim_works
	victim_check
}

@test "a container with a root file system of its own" {
	make_public_dir
	mkdir -p "$public_dir/proc"
	cp "$VICTIMS/malloc_load" "$public_dir/program"
	ldd "$VICTIMS/malloc_load" | grep -o '/[^ ]*' | while read -r library; do
		mkdir -p "$public_dir${library%/*}"
		cp "$library" "$public_dir$library"
	done
	start_in_container "$public_dir" /program 2
	look_at "$victim_pid"
	probe stack "$victim_pid" --json
	json '[.threads[].frames[].function // empty] | any(. == "main")'
	victim_works
	victim_check
}

@test "a program whose file is deleted" {
	cp "$VICTIMS/malloc_load" "$BATS_TEST_TMPDIR/deleted"
	start_command "$BATS_TEST_TMPDIR/deleted" 2
	rm "$BATS_TEST_TMPDIR/deleted"
	victim_remember
	look_at "$victim_pid"
	probe stack "$victim_pid" --json
	json '[.threads[].frames[].function // empty] | any(. == "main")'
	victim_works
	victim_check
}

@test "an ordinary user may look into his own process" {
	skip_unless_root
	start_victim_as_user malloc_load 2
	MEMPROBE=$user_memprobe
	memprobe() {
		as_user timeout -k 5 "$(patience 60)" "$MEMPROBE" "$@"
	}
	look_dir=$public_dir look_at "$victim_pid"
	victim_works
	victim_check
}

@test "an ordinary user may not look into another's process, and is told why" {
	skip_unless_root
	prepare_user
	start_victim idle
	for command in maps threads stack mallinfo trim "call getpid()" "dump heap"; do
		# shellcheck disable=SC2086
		set -- $command
		run --separate-stderr as_user timeout "$(patience 60)" "$user_memprobe" "$1" "$victim_pid" \
			${2:+"$2"} -o "/tmp/memprobe-test.$$"
		status_is 4
		[ -z "$output" ]
		[[ $stderr = *"memprobe: "* && $stderr = *"hint: "* ]] || fail "$stderr"
		[ ! -e "/tmp/memprobe-test.$$" ]
	done
	victim_check
}
