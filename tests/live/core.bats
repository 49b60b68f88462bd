#!/usr/bin/env bats
# memprobe core, and cores as targets: what a core tells is what the process told, whoever wrote it.

load lib

setup() {
	cd "$BATS_TEST_TMPDIR" || return
}

frames() { # of `stack --json`: thread by thread, without states and names of threads
	jq -S '[.threads[] | {tid, frames}] | sort_by(.tid)' <<<"$output"
}

threads_of() {
	jq -S '[.threads[] | {tid, name, state, stack_start, stack_end, arena}] | sort_by(.tid)' \
		<<<"$output"
}

mappings_of() {
	jq -S '[.mappings[] | {start, "end", perms, path, type, size}]' <<<"$output"
}

# The same question to the victim and to its core.
same() { # FUNCTION COMMAND [ARG...]
	local function=$1 command=$2 live
	shift 2
	settle
	probe "$command" "$victim_pid" "$@" --json
	[ "$status" -eq 0 ] || fail "$command of the victim: $status" "$stderr" || return
	live=$($function)
	[ -n "$live" ]
	probe "$command" core "$@" --json
	[ "$status" -eq 0 ] || fail "$command of the core: $status" "$stderr" || return
	diff <(echo "$live") <($function) >&2 || fail "$command differs"
}

same_bytes() { # RANGE...
	memprobe dump "$victim_pid" "$@" -o live.bytes && memprobe dump core "$@" -o core.bytes &&
		cmp live.bytes core.bytes
}

make_core() { # [OPTION...]
	rm -f core
	probe core "$victim_pid" -o core --json "$@"
	[ "$status" -eq 0 ] || fail "core: $status" "$stderr" || return
	core_bytes=$(json_get .bytes)
	json '.missing == [] and .bytes > 0 and .data > 0 and .stopped_us > 0'
}

check_core() { # NAME [OPTION...]
	local name=$1
	shift
	start_victim "$name"
	settle
	make_core "$@"
	same frames stack
	same threads_of threads
	same mappings_of maps
	# In a static program the heap has the main thread's control block, with the number of the CPU.
	[[ $name == *-static ]] || same_bytes heap
	victim_check
}

@test "a core tells what the process tells" {
	check_core callchain
	check_core threads
}

@test "of a 32-bit process, too" {
	check_core callchain-32
	check_core threads-32
}

@test "of a program linked statically, too" {
	check_core callchain-static
}

@test "--no-fork gives the same" {
	check_core threads --no-fork
}

@test "--compress gives the same in less" {
	check_core threads --compress
	[ "$(head -c 4 core | od -An -tx1 | tr -d ' ')" = 28b52ffd ]
	[ "$(stat -c %s core)" -lt $((core_bytes / 10)) ]
}

@test "a compressed core is for gdb what the hint says" {
	start_victim callchain
	settle
	local name command='`(zstd -d [^`]*) && gdb ([^ ]+) ([^`]+)`'
	for name in s.core.zst s.core; do
		probe core "$victim_pid" -z -o "$name"
		status_is 0
		[[ $stderr =~ $command ]] || fail "no command in: $stderr" || return
		local unpack=${BASH_REMATCH[1]} exe=${BASH_REMATCH[2]} core=${BASH_REMATCH[3]}
		bash -c "$unpack" 2>unpack.err || fail "$(cat unpack.err)" || return
		timeout "$(patience 120)" gdb -nx --batch -ex 'thread apply all bt' "$exe" "$core" >gdb.out 2>&1
		[ "$(grep -c '^Thread ' gdb.out)" -eq 7 ] || fail "$(cat gdb.out)" || return
		rm -f s.core*
	done
	victim_check
}

@test "into a pipe, zeros for holes" {
	start_victim idle
	settle
	memprobe core "$victim_pid" -o - | cat >core
	same frames stack
	[ "$(stat -c %b core)" -ge $(($(stat -c %s core) / 512)) ]
	victim_check
}

# ---- what others make of it ----

gdb_threads() { # FILE: per thread its functions, by gdb
	timeout "$(patience 120)" gdb -nx --batch -ex 'set print frame-arguments none' -ex 'thread apply all bt' \
		"$VICTIMS/$1" core 2>gdb.err
}

check_gdb() { # VICTIM
	local tid name
	start_victim "$1"
	make_core
	gdb_threads "$1" >gdb.out
	! grep -iE 'warning: .*(core|section)|cannot access|not a core|truncated' gdb.err gdb.out
	[ "$(grep -c '^Thread ' gdb.out)" -eq 7 ]
	while read -r tid name; do
		# The thread's own paragraph has its own chain.
		awk -v RS= -v tid="LWP $tid)" 'index($0, tid)' gdb.out >thread.out
		[ "$(grep -c ' chain_[0-9]* ' thread.out)" -eq 12 ] || fail "$name" "$(cat thread.out)"
		grep -q " wait_$name " thread.out || fail "$name" "$(cat thread.out)"
	done < <(sed -n 's/^thread //p' "$victim_out")
	victim_check
}

@test "gdb finds the threads and their stacks" {
	check_gdb callchain
}

@test "gdb finds those of a 32-bit process" {
	check_gdb callchain-32
}

@test "gdb reads the same registers and memory as of the process" {
	start_victim idle
	settle
	make_core
	settle
	live=$(timeout "$(patience 120)" gdb -nx --batch -p "$victim_pid" -ex 'info registers' -ex 'x/64xg $sp' 2>/dev/null |
		grep -E '^(r[a-z0-9]+ |0x[0-9a-f]*:)')
	from_core=$(timeout "$(patience 120)" gdb -nx --batch -ex 'info registers' -ex 'x/64xg $sp' \
		"$VICTIMS/idle" core 2>/dev/null | grep -E '^(r[a-z0-9]+ |0x[0-9a-f]*:)')
	[ "$(wc -l <<<"$live")" -gt 40 ]
	# gdb's own stop makes an interrupted system call of the wait.
	diff <(grep -v '^rax' <<<"$live") <(grep -v '^rax' <<<"$from_core")
}

@test "readelf understands every note" {
	start_victim threads
	make_core
	readelf -nW core >notes 2>notes.err
	[ "$(grep -c NT_PRSTATUS notes)" -eq "$(ls "/proc/$victim_pid/task" | wc -l)" ]
	for note in NT_PRPSINFO NT_SIGINFO NT_AUXV NT_FILE NT_FPREGSET NT_X86_XSTATE; do
		grep -q "$note" notes || fail "no $note"
	done
	! grep -i 'corrupt\|error' notes notes.err
}

# ---- the file ----

@test "a core is for its owner, and takes no more room than the process" {
	start_victim malloc_load
	make_core
	[ "$(stat -c %a core)" = 600 ]
	rss=$(awk '/^VmRSS:/ { print $2 }' "/proc/$victim_pid/status")
	[ $(($(stat -c %b core) / 2)) -le "$rss" ]
}

@test "a core that cannot be written leaves nothing" {
	start_victim idle
	mkdir place
	probe core "$victim_pid" -o place/none/core
	[ "$status" -eq 1 ]
	probe core "$victim_pid"
	[ "$status" -eq 2 ]
	probe core "$victim_pid" -o place
	[ "$status" -eq 1 ]
	[ -z "$(ls -A place)" ]
	(ulimit -f 8 && trap '' XFSZ && ! memprobe core "$victim_pid" -o place/core)
	[ -z "$(ls -A place)" ]
	victim_check
}

@test "coredump_filter and --full decide what is in it" {
	start_victim idle
	make_core
	default=$(json_get .data)
	echo 0 >"/proc/$victim_pid/coredump_filter"
	make_core
	none=$(json_get .data)
	make_core --full
	full=$(json_get .data)
	[ "$none" -lt "$default" ] && [ "$default" -lt "$full" ]
	# Of code, --full has every byte.
	read -r start end < <(sed -n 's/^\([0-9a-f]*\)-\([0-9a-f]*\) r-xp.*libc.*/\1 \2/p' \
		"/proc/$victim_pid/maps")
	readelf -lW core | awk -v start="$start" '/LOAD/ && $3 ~ start { print $5, $6 }' >sizes
	read -r filesz memsz <sizes
	[ "$filesz" = "$memsz" ]
	same_bytes "$start" "$end"
}

# ---- cores of others ----

heap_of() { # of `mallinfo --json`
	# The kernel's cores have the threads in another order.
	jq -S '[(.arenas | map(.threads |= ((. // []) | sort))), .totals, .mmapped]' <<<"$output"
}

kernel_core() { # VICTIM: `core` of a victim that was aborted
	local pattern
	pattern=$(cat /proc/sys/kernel/core_pattern)
	case $pattern in
	'|'* | */*) skip "core_pattern is $pattern" ;;
	esac
	ulimit -c unlimited 2>/dev/null || skip "cores are not allowed"
	start_victim "$1"
	[[ $1 == leaks* ]] || settle # those have threads that never sleep
	probe stack "$victim_pid" --json
	live=$(frames)
	probe mallinfo "$victim_pid" --json
	live_heap=$(heap_of)
	[[ $1 == leaks* ]] || settle
	kill -ABRT "$victim_pid"
	wait_until 60 is_gone "$victim_pid"
	mv core* core.made && mv core.made core || skip "the kernel wrote no core"
	probe mallinfo core --json
	status_is 0 && diff <(echo "$live_heap") <(heap_of)
}

check_kernel_core() { # VICTIM
	kernel_core "$1"
	probe stack core --json
	[ "$status" -eq 0 ]
	diff <(echo "$live") <(frames)
	json '.target.name == $name and .target.bits == $bits' --arg name "$1" \
		--argjson bits "$([[ $1 == *-32 ]] && echo 32 || echo 64)"
	probe maps core --json
	json '[.mappings[].type] | contains(["heap", "stack", "exe", "lib", "kernel"])'
	probe threads core --json
	json '.threads | length == 7'
	json '[.threads[] | select(.stack_start == null)] == []'
}

@test "a core of the kernel's" {
	check_kernel_core callchain
}

@test "a core of the kernel's of a 32-bit process" {
	check_kernel_core callchain-32
}

@test "a core of gcore's" {
	command -v gcore >/dev/null || skip "no gcore"
	for victim in $(runnable heapshape heapshape-32); do
		start_victim $victim
		settle
		probe mallinfo "$victim_pid" --json
		live=$(heap_of)
		probe stack "$victim_pid" --json
		stacks=$(frames | jq 'length')
		timeout "$(patience 120)" gcore -o made "$victim_pid" >/dev/null 2>&1
		mv "made.$victim_pid" core
		probe mallinfo core --json
		diff <(echo "$live") <(heap_of)
		probe stack core --json
		[ "$(frames | jq 'length')" -eq "$stacks" ]
		json '[.threads[].frames | length | select(. < 2)] == []'
	done
}

# It has no first page of the locale's files: nothing speaks against them.
@test "a core of gcore's: files of which nothing can be told are no warning" {
	command -v gcore >/dev/null || skip "no gcore"
	head -c 8192 /dev/zero >mapped
	start_command python3 -c "
import mmap, sys, time
file = open('mapped', 'rb')
view = mmap.mmap(file.fileno(), 8192, prot=mmap.PROT_READ)
print('ready', flush=True)
time.sleep(600)"
	timeout "$(patience 120)" gcore -o made "$victim_pid" >/dev/null 2>&1
	probe maps "made.$victim_pid" --json
	status_is 0
	json '.warnings == []'
	probe find "made.$victim_pid" nowhere-to-be-found --count -v
	[[ $stderr == *'mapped as it is now cannot be told'* || $stderr != *'is not the file'* ]] ||
		fail "$stderr"
	victim_check
}

@test "the heap in a core is the heap" {
	start_victim heapshape
	probe mallinfo "$victim_pid" --json
	live=$(heap_of)
	make_core
	probe mallinfo core --json
	diff <(echo "$live") <(heap_of)
	victim_check
}

# Registers and stack pointers are those of the moment of the core: what only a register holds is
# kept, what a word below a stack pointer points to is not.
leaks_of_core() { # FILE VICTIM
	probe leaks "$1" --json --top 0
	status_is 0 || return
	if [[ $2 == *-32 ]]; then
		# In 4 GiB of addresses a stale word may hide what hangs on it.
		json '.totals.leaked_count <= $n and .totals.leaked_count >= $n * 0.995' \
			--argjson n "$(victim_truth planted | cut -d' ' -f1)" || return
	else
		json '.totals.leaked_count == $n' \
			--argjson n "$(victim_truth planted | cut -d' ' -f1)" || return
		probe leaks "$1" --retain "$(victim_truth stale)" --json
		json '.block.leaked and .chain == []' || return
	fi
	probe leaks "$1" --retain "$(victim_truth 'kept register')" --json
	json '.chain[0].kind == "register"' || return
	probe leaks "$1" --retain "$(victim_truth 'kept stack')" --json
	json '.chain[0].kind == "stack"'
}

check_leaks_of_cores() { # VICTIM
	start_victim "$1"
	make_core
	leaks_of_core core "$1" || fail "of memprobe's"
	make_core --compress
	leaks_of_core core "$1" || fail "of a compressed one"
	if command -v gcore >/dev/null; then
		timeout "$(patience 120)" gcore -o made "$victim_pid" >/dev/null 2>&1
		leaks_of_core "made.$victim_pid" "$1" || fail "of gcore's"
	fi
	victim_check
}

@test "leaks in a core are the leaks" {
	check_leaks_of_cores leaks
}

@test "leaks in a 32-bit core are the leaks" {
	check_leaks_of_cores leaks-32
}

@test "leaks in a core of the kernel's are the leaks" {
	kernel_core leaks
	leaks_of_core core leaks
}

@test "leaks in a 32-bit core of the kernel's are the leaks" {
	kernel_core leaks-32
	leaks_of_core core leaks-32
}

# ---- damage, and what a core cannot do ----

@test "a core cut short says what is missing" {
	start_victim threads
	make_core
	truncate -s -100000 core
	probe maps core --json
	[ "$status" -eq 6 ]
	json '.warnings | map(select(test("cut short: 0x[0-9a-f]+-0x[0-9a-f]+ is missing"))) != []'
	probe stack core --json
	[ "$status" -eq 6 ]
	truncate -s 100 core
	probe maps core
	[ "$status" -eq 3 ] || [ "$status" -eq 6 ]
}

# A cut file is never taken for a whole one, wherever it ends.
@test "cores cut anywhere end every command well" {
	local size at commands=(maps threads stack mallinfo leaks) n=0
	start_victim leaks 2000 1
	make_core
	size=$(stat -c %s core)
	for at in 100 20000 $((size / 3)) $((size - size / 5)) $((size - 4096)); do
		head -c "$at" core >cut
		for command in "${commands[@]}"; do
			probe "$command" cut
			case $status in
			6) n=$((n + 1)) ;;
			3) ;;
			*) fail "$command of $at of $size bytes: $status" "$output" "$stderr" ;;
			esac
		done
	done
	[ $n -ge 20 ] || fail "only $n were of any use"
	victim_check
}

@test "90 threads with stacks of 32 MiB in 32 bit take what they use" {
	local rss merged
	start_victim layout-32 90 32768
	rss=$(awk '/^VmRSS:/ { print $2 }' "/proc/$victim_pid/status")
	make_core
	[ $(($(stat -c %b core) / 2)) -le "$rss" ]
	make_core --compress
	[ $(($(stat -c %s core) / 1024)) -le "$rss" ]
	for target in "$victim_pid" core; do
		probe threads "$target" --json
		status_is 0
		json '[.threads[] | select(.stack_size == 33554432 and .stack_used <= 65536)] | length == 90'
		merged=
		! has_merged_stacks || merged=yes
		probe threads "$target"
		[[ $output = *"pthread_attr_setstacksize"* ]]
		probe maps "$target" --by-size
		status_is 0
		[[ -n $merged || $output = *"90 "*"32.0M"*"thread-stack"* ]]
		probe leaks "$target" --json
		status_is 0
		leaked+=("$(json_get .totals.leaked_bytes)")
	done
	[ "${leaked[0]}" = "${leaked[1]}" ]
	victim_check
}

@test "what needs a process says so" {
	start_victim idle
	make_core
	for command in trim check core; do
		probe $command core -o /dev/null
		[ "$status" -eq 5 ] || fail "$command: $status"
	done
	probe call core 'getpid()'
	[ "$status" -eq 5 ]
	probe mallinfo --method=call core
	[ "$status" -eq 5 ]
	probe maps core --every 1s
	[ "$status" -eq 5 ]
}

@test "a file that is no core is refused, and a name may still be a process" {
	start_victim idle
	echo text >file
	probe maps ./file
	[ "$status" -eq 3 ]
	[[ $stderr == *"no core"* ]]
	probe maps file
	[ "$status" -eq 3 ]
	probe maps "$VICTIMS/idle"
	[ "$status" -eq 3 ]
	# A process of that name is meant, not the file beside us.
	cp "$(command -v sleep)" only-here
	./only-here 1000 3>&- &
	ends_with $!
	wait_until 60 grep -qx only-here "/proc/$!/comm"
	wait_until 60 threads_are S $!
	probe maps only-here --json
	[ "$status" -eq 0 ]
	json '.target.pid == $pid' --argjson pid $!
}
