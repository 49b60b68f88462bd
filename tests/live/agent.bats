#!/usr/bin/env bats
# Recording allocations, by the library (tests/torture/trace_loop.c): what is recorded is the
# program's own truth, and whatever happens, the target is afterwards what it was.

load lib
load trace

KILLER=$BUILD/tests/torture/killer
AGENT='/memfd:memprobe|^[0-9a-f]+-[0-9a-f]+ r-xp 00000000 00:00 0 *$'

count() { # SHORT LONG
	if [ "${TORTURE:-}" = long ]; then
		echo "$2"
	else
		echo "$1"
	fi
}

trace() { # COMMAND...: on the victim
	timeout -k 5 "$(patience "$(count 100 3000)")" "$TRACE" "$victim_pid" "$@"
}

nothing_is_left() {
	! grep -E "$AGENT" "/proc/$victim_pid/maps" >&2
}

exact() { # of the victim that was started last
	trace_begin attach wait detach read
	tell go '^going'
	runs_for_rounds 2000
	tell stop '^stopped'
	trace_go
	"$ROOT/tests/live/truth.py" "$victim_out" "$trace_out" || fail "$(grep -v ^site "$trace_out")"
	nothing_is_left
	tell go '^going'
	runs_for_rounds 10
	tell stop '^stopped'
	victim_check
	stop_victim
}

@test "exact: 2 and 8 threads, glibc, C and C++" {
	for victim in 'alloc_truth 2' 'alloc_truth 8' 'alloc_truth_cxx 2'; do
		# shellcheck disable=SC2086
		start_victim $victim
		exact
	done
}

@test "exact: linked statically, glibc and musl" {
	for victim in alloc_truth-static alloc_truth-musl; do
		start_victim $victim 2
		exact
	done
}

@test "exact: jemalloc" {
	start_preloaded libjemalloc.so.2 alloc_truth_cxx 2
	exact
}

@test "exact: tcmalloc" {
	for library in libtcmalloc.so.4 libtcmalloc_minimal.so.4; do
		start_preloaded $library alloc_truth_cxx 2
		exact
	done
}

@test "exact: mimalloc" {
	start_preloaded libmimalloc.so.2 alloc_truth_cxx 2
	exact
}

@test "samples weigh what they stand for" {
	start_victim alloc_truth 2 50000
	trace_begin rate=4096 attach wait detach read
	tell go '^going'
	runs_for_rounds 2000
	tell stop '^stopped'
	trace_go
	"$ROOT/tests/live/truth.py" "$victim_out" "$trace_out" --sampled ||
		fail "$(grep -v ^site "$trace_out")"
	nothing_is_left
	victim_check
}

@test "the rate is chosen by what is seen" {
	start_victim malloc_load 2
	run trace rate=0 attach run=100 detach
	status_is 0
	rate=$(grep -oE ' rate=[0-9]+' <<<"$output")
	[ "${rate#*=}" -ge 65536 ] || fail "$output"
	nothing_is_left
	victim_works
	victim_check
}

@test "attached and detached again and again under load" {
	cycles=$(count 5 500)
	for victim in malloc_load malloc_load-static malloc_load-musl; do
		start_victim $victim 4
		run trace "cycle=$cycles"
		status_is 0
		[[ $output == *"cycles $cycles remaining=0 "* ]] || fail "$output"
		nothing_is_left
		victim_works
		victim_check
		stop_victim
	done
	for library in libjemalloc.so.2 libtcmalloc.so.4 libmimalloc.so.2; do
		ldconfig -p | grep -q $library || continue
		start_preloaded $library malloc_load 4
		run trace "cycle=$cycles"
		status_is 0
		[[ $output == *"cycles $cycles remaining=0 "* ]] || fail "$output"
		nothing_is_left
		victim_works
		victim_check
		stop_victim
	done
}

is_idle() {
	trace leftovers | grep -q 'active=0'
}

@test "killed while it records: the hooks go idle, check tells, the next run removes them" {
	start_victim alloc_truth 2
	tell go '^going'
	for _ in $(seq "$(count 2 100)"); do
		trace_begin attach wait
		runs_for_rounds 10
		probe check "$victim_pid" --json
		json '.checks[] | select(.name == "agent") | .detail | contains("is recording")'
		run trace attach
		status_is 1
		[[ $output == *"error 7 another memprobe is recording"* ]] || fail "$output"
		kill -KILL "$trace_pid"
		wait "$trace_pid" || true
		probe check "$victim_pid" --json
		json '.checks[] | select(.name == "agent") | .state == "degraded" and
			(.detail | contains("was killed"))'
		wait_until 60 is_idle
		runs_for_rounds 10
		run trace attach run=20 read detach leftovers
		status_is 0
		[[ $output == *"removed=1 remaining=0"*"leftovers 0"* ]] || fail "$output"
		nothing_is_left
	done
	tell stop '^stopped'
	victim_check
}

@test "leftovers are removed for themselves" {
	start_victim malloc_load 2
	trace_begin attach wait
	kill -KILL "$trace_pid"
	wait "$trace_pid" || true
	run trace leftovers remove leftovers
	status_is 0
	[[ $output == *"leftovers 1"*"removed remaining=0"*"leftovers 0"* ]] || fail "$output"
	nothing_is_left
	victim_works
	victim_check
	probe check "$victim_pid" --json
	json '.checks[] | select(.name == "agent") | .state == "ok"'
}

check_says() {
	probe check "$victim_pid" --json
	jq -e --arg text "$1" '.checks[] | select(.name == "agent") | .detail | contains($text)' \
		<<<"$output" >/dev/null
}

# Its threads sleep: nobody looks at the lease.
@test "leftovers in a target that does nothing; uprobes remove them, too" {
	start_victim alloc_truth 2
	trace_begin attach wait
	kill -KILL "$trace_pid"
	wait "$trace_pid" || true
	wait_until 10 check_says 'idle but for a few last calls'
	probe allocs "$victim_pid" --engine=uprobe -d 10ms --json
	status_is 0
	json '.engine == "uprobe" and .leftovers_removed'
	check_says 'none in the target' || fail "$output"
	nothing_is_left
	victim_check
}

@test "killed anywhere on its way" {
	start_victim alloc_truth_cxx 2
	tell go '^going'
	for how in "at $(count 40 1000)" "random $(count 15 500)"; do
		# shellcheck disable=SC2086
		run timeout -k 5 "$(patience "$(count 400 3600)")" "$KILLER" $how "$victim_pid" \
			"$TRACE" "$victim_pid" attach run=20 detach
		status_is 0
		[[ $output == *" failed=0 bad=0"* ]] || fail "$output"
	done
	run trace attach run=20 detach leftovers
	status_is 0
	[[ $output == *"remaining=0"*"leftovers 0"* ]] || fail "$output"
	nothing_is_left
	tell stop '^stopped'
	# shellcheck disable=SC2034
	victim_stub_may_stay=1
	victim_check
}

@test "forks, exec and exit while it records" {
	start_victim alloc_dl
	trace_begin attach wait detach read
	tell fork '^forked 7'
	tell fork '^forked 7'
	trace_go
	grep -q '^live 0 0' "$trace_out" || fail "$(cat "$trace_out")"
	nothing_is_left
	victim_check
	stop_victim
	start_victim exec_fork_exit
	trace_begin attach wait detach read
	tell exec '^ready'
	victim_remember
	trace_wait
	grep -q '^alive 0' "$trace_out" || fail "$(cat "$trace_out")"
	grep -q '^counters' "$trace_out"
	victim_check
	trace_begin attach wait detach read
	victim_say exit
	wait_until 60 is_gone "$victim_pid"
	trace_wait
	grep -q '^alive 0' "$trace_out" || fail "$(cat "$trace_out")"
	grep -q '^counters' "$trace_out"
}

@test "a program that forks, runs threads and replaces itself all the time" {
	start_victim exec_fork_exit churn
	for _ in $(seq "$(count 6 300)"); do
		# What it replaces itself in the middle of may fail; it must not be harmed.
		run trace attach run=30 detach
		[[ $output != *warning*damaged* ]] || fail "$output"
		is_gone "$victim_pid" && fail "it is dead"
	done
	! grep ^WRONG "$victim_out"
}

# START-END FILE: sites whose first frame is in there, and that go on to the end of the stack.
WHOLE_STACKS='
import sys
start, end = (int(word, 16) for word in sys.argv[1].split("-"))
found = 0
for line in open(sys.argv[2]):
    words = line.split()
    if words[:1] == ["site"] and words[-1] != "...":
        leaf, last = int(words[7], 16), int(words[-1], 16)
        found += start <= leaf < end and not start <= last < end
print(found)'

@test "handlers that jump, libraries that come and go" {
	start_victim alloc_dl
	trace_begin attach wait detach read
	tell jump '^jumped'
	tell load '^loaded'
	zlib=$(awk '/libz\.so/ && / r-xp / { print $1; exit }' "/proc/$victim_pid/maps")
	for _ in $(seq 20); do
		tell call '^called'
		sleep 0.02
	done
	trace_go
	grep -q 'lost=0 lost_frees=0' "$trace_out" || fail "$(cat "$trace_out")"
	[ "$(python3 -c "$WHOLE_STACKS" "$zlib" "$trace_out")" -gt 0 ] || fail "$(cat "$trace_out")"
	tell unload '^unloaded'
	nothing_is_left
	stop_victim
}

@test "code that somebody else has changed is left alone" {
	start_victim idle
	run trace attach hooks detach
	status_is 0
	free=$(awk '$1 == "hook" && $2 == "free" { print $3 }' <<<"$output")
	# A breakpoint at the beginning is a uprobe: the hook goes behind it.
	poke "$free" cc
	run trace attach detach
	status_is 0
	poke "$free" "$saved"
	[ "$former" = cc ] || fail "the breakpoint is $former now"
	poke "$free" e9
	run trace attach
	[[ $output == *"error 5 "*"another tool has changed"* ]] || fail "$output"
	poke "$free" "$saved"
	nothing_is_left
	victim_check
}

poke() { # ADDRESS BYTE: sets $saved to the first one that was there, $former to the last one
	former=$(python3 - "$victim_pid" "$1" "$2" <<-'END'
		import sys
		memory = open("/proc/%s/mem" % sys.argv[1], "r+b", 0)
		address = int(sys.argv[2], 16)
		memory.seek(address)
		print(memory.read(1).hex())
		memory.seek(address)
		memory.write(bytes.fromhex(sys.argv[3]))
	END
	)
	saved=${saved:-$former}
}

@test "filters that forbid what it takes" {
	skip_unless_root
	[ "$(awk '/^Seccomp:/ { print $2 }' /proc/self/status)" = 0 ] || skip "runs under a filter"
	start_victim filtered memfd
	run trace agent attach
	[[ $output == *"error 4 "*"seccomp answers errno 1 on memfd_create"* ]] || fail "$output"
	nothing_is_left
	victim_check
	stop_victim
	start_victim filtered mmap
	run trace agent attach
	[[ $output == *"error 4 "*"seccomp kills the process on mmap"* ]] || fail "$output"
	victim_check
}

@test "32-bit programs are not recorded" {
	start_victim idle-32
	run trace agent attach
	[[ $output == *"error 5 "*i386* ]] || fail "$output"
	victim_check
}

@test "others' programs are not recorded" {
	skip_unless_root
	start_victim idle
	make_public_dir
	install -m 755 "$TRACE" "$public_dir/trace_loop"
	run as_user "$public_dir/trace_loop" "$victim_pid" attach
	[[ $output == *"error 4 "* ]] || fail "$output"
	victim_check
}

@test "little address space" {
	start_command bash -c 'ulimit -v 1000000; exec "$@"' limited "$VICTIMS/alloc_truth" 2
	exact
	start_command bash -c 'ulimit -v 30000; exec "$@"' limited "$VICTIMS/idle"
	run trace agent attach
	[[ $output == *"error 5 "*"address space"* || $output == *"error 5 "*"no room"* ]] ||
		fail "$output"
	nothing_is_left
	victim_check
}

@test "threads whose filters kill for what no agent needs" {
	start_victim alloc_perils filter 186 14 131 96 228
	run trace agent attach run=50 detach
	[[ $output == *"report allocator=ptmalloc"* && $output == *"remaining=0"* ]] || fail "$output"
	nothing_is_left
	victim_works
	victim_check
}

# The hooks go in any case; the mappings where a thread may still take them away.
@test "a filter, and strict seccomp, that come while it is recorded" {
	local command answer
	for command in filter:filtered all:filtered strict:strict; do
		answer=${command#*:}
		start_victim alloc_perils later
		trace_begin agent attach wait detach
		tell "${command%:*}" "^$answer"
		# It records on: the clock of the lease runs on, too.
		runs_for_rounds 20000
		grep -q 'active=[12]' <<<"$("$TRACE" "$victim_pid" leftovers)" ||
			fail "$command: $("$TRACE" "$victim_pid" leftovers)"
		echo >&"$trace_fd"
		wait "$trace_pid" || grep -q '^error 4 .*seccomp kills' "$trace_out" ||
			fail "$(cat "$trace_out")"
		grep -q '^report .*remaining=0' "$trace_out"
		runs_for_rounds 1000
		grep -q 'active=0\|leftovers 0' <<<"$("$TRACE" "$victim_pid" leftovers)"
		[ "$command" = all:filtered ] || nothing_is_left
		! grep ^WRONG "$victim_out"
		stop_victim
	done
}

@test "a process that shares the memory and is no thread" {
	start_victim alloc_perils sharer
	run trace attach
	[[ $output == *"error 7 process "*"runs in the same memory"* ]] || fail "$output"
	nothing_is_left
	victim_works
	victim_check
	stop_victim
	# Born while it is recorded: the hooks stay, idle, as long as it lives.
	start_victim alloc_perils later
	trace_begin attach wait detach
	tell share '^sharer'
	trace_go
	grep -q '^remains process .* runs in the same memory' "$trace_out" || fail "$(cat "$trace_out")"
	trace leftovers | grep -q 'active=0' || fail 'the hooks are not idle'
	victim_works
	tell unshare '^unshared'
	run trace remove leftovers
	[[ $output == *"removed remaining=0"*"leftovers 0"* ]] || fail "$output"
	nothing_is_left
	victim_works
	victim_check
}

# Before it finds out that it cannot set its hooks: nobody can be in an agent without hooks.
@test "killed while it begins to record a process that shares its memory" {
	local killed
	start_victim alloc_perils sharer
	killed=$("$BUILD/tests/torture/killer" at 60 "$victim_pid" \
		"$MEMPROBE" allocs "$victim_pid" -d 20ms --engine=agent --timeout 500ms) || fail "$killed"
	[[ $killed != *kills=0* ]] || fail "$killed"
	run trace attach
	[[ $output == *"error 7 process "*"runs in the same memory"* ]] || fail "$output"
	nothing_is_left
	victim_works
	victim_stub_may_stay=1 victim_check
}

@test "a program that may not read the time stamp counter" {
	start_victim alloc_perils tsc
	run trace agent attach run=50 detach
	[[ $output == *"report allocator=ptmalloc"* && $output == *"remaining=0"* ]] || fail "$output"
	nothing_is_left
	victim_works
	victim_check
}

# In the instant in which the tables have a descriptor in the target it may become another file's.
@test "a program that closes descriptors that are not its own" {
	local file=$BATS_TEST_TMPDIR/precious
	yes precious | head -c 10000 >"$file"
	cp "$file" "$file.before"
	start_victim alloc_perils closer "$file"
	for _ in $(seq "$(count 10 200)"); do
		run trace agent attach run=10 detach
		[ "$status" -eq 0 ] || [[ $output == *'error '* ]] || fail "$output"
		cmp "$file" "$file.before"
	done
	run trace remove leftovers
	[[ $output == *"leftovers 0"* ]] || fail "$output"
	nothing_is_left
	victim_works
	victim_check
}

@test "a program that gets its system calls itself, as Wine's do" {
	start_victim alloc_perils dispatch
	victim_wait '^dispatched'
	! grep -q '^no dispatch' "$victim_out" || skip "the kernel has none"
	run trace agent attach run=50 detach
	[[ $output == *"report allocator=ptmalloc"* && $output == *"remaining=0"* ]] || fail "$output"
	nothing_is_left
	victim_works
	victim_check
}

most_resident_below() { # KIB
	[ "$(awk '/^VmHWM/ { print $2 }' "/proc/$victim_pid/status")" -lt "$1" ] ||
		fail "$(grep ^Vm "/proc/$victim_pid/status")"
}

@test "memory that is locked" {
	skip_unless_root
	start_victim alloc_perils locked
	run trace attach run=100 detach
	status_is 0
	nothing_is_left
	victim_works
	most_resident_below 60000
	victim_check
}

@test "memory that is locked, with little room for it" {
	skip_unless_root
	make_public_dir
	install -m 755 "$VICTIMS/alloc_perils" "$public_dir/alloc_perils"
	start_command prlimit --memlock=8000000 setpriv --reuid=65534 --regid=65534 --clear-groups \
		--inh-caps=-all "$public_dir/alloc_perils" locked
	grep -q ^WRONG "$victim_out" && skip "it may not lock itself"
	run trace agent attach
	[[ $output == *"error 5 "*"keeps all that it maps locked"* ]] || fail "$output"
	nothing_is_left
	victim_works
	victim_check
}

# Of what is reserved for the tables, only what is in use comes into memory.
@test "memory that is locked in the midst of it" {
	skip_unless_root
	start_command bash -c 'ulimit -v 4000000; exec "$@"' limited "$VICTIMS/alloc_perils" later
	trace_begin attach wait detach
	tell lock '^locked'
	grep -q '^locked all' "$victim_out" || skip "it may not lock itself"
	runs_for_rounds 1000
	trace_go
	nothing_is_left
	victim_works
	most_resident_below 150000
	victim_check
}

@test "a child that is born while its parent is recorded" {
	start_victim alloc_perils later
	trace_begin attach wait detach
	tell fork '^born'
	child=$(awk '/^born/ { print $2 }' "$victim_out")
	probe check "$child" --json
	json '.checks[] | select(.name == "agent") | .detail | contains("inherited")'
	# It can be recorded itself, be its parent's recording over or not.
	run timeout "$(patience 60)" "$TRACE" "$child" attach run=100 read detach leftovers
	status_is 0
	[[ $output == *"removed=1 remaining=0"*"leftovers 0"* ]] || fail "$output"
	tell fork '^born'
	child=$(awk '/^born/ { child = $2 } END { print child }' "$victim_out")
	trace_go
	nothing_is_left
	before=$(awk '{ print $14 + $15 }' "/proc/$child/stat")
	still_allocates() { [ "$(awk '{ print $14 + $15 }' "/proc/$child/stat")" -gt "$before" ]; }
	wait_until 60 still_allocates
	# The end of its parent's has taken its copy out, too.
	! grep -E "$AGENT" "/proc/$child/maps" >&2
	run timeout "$(patience 60)" "$TRACE" "$child" attach run=50 detach leftovers
	status_is 0
	[[ $output == *"removed=0 remaining=0"*"leftovers 0"* ]] || fail "$output"
	! grep -E "$AGENT" "/proc/$child/maps" >&2
	victim_works
	victim_check
}

make_worker() { # KIND: sets made
	local count
	count=$(grep -c '^made' "$victim_out" || true)
	victim_say "$1"
	wait_until 60 eval '[ "$(grep -c "^made" "$victim_out")" -gt '"$count"' ]' || fail "no $1"
	made=$(sed -n 's/^made //p' "$victim_out" | tail -1)
	workers+=("$made")
}

@test "children that were forked meanwhile, wherever they are by now, are rid of the agent" {
	local kind pid workers=()
	start_victim prefork
	make_worker child
	record_begin allocs "$victim_pid" --sample 1 --json
	for kind in child orphan child; do
		make_worker $kind
		grep -q memfd:memprobe "/proc/$made/maps"
	done
	[ "$(id -u)" -ne 0 ] || make_worker nobody
	record_end
	status_is 0
	json ".children_cleaned == $((${#workers[@]} - 1)) and .children_left == 0"
	for pid in "${workers[@]}"; do
		! grep -q memfd:memprobe "/proc/$pid/maps" || fail "$pid has its mappings"
		probe check "$pid"
		[[ $output == *"none in the target"* ]] || fail "$output"
	done
	victim_say work
	[ "$(victim_wait '^working')" = "working ${#workers[@]}" ]

	# Who may not unmap is named, and lives on.
	record_begin allocs "$victim_pid" --sample 1 --json
	make_worker strict
	wait_until 60 grep -q '^Seccomp:.1' "/proc/$made/status"
	record_end
	status_is 6
	json '.children_left == 1 and .children_cleaned == 0 and .remaining == 0'
	[[ $stderr == *"process $made, forked while"*"keeps the agent"* ]] || fail "$stderr"
	grep -q '^State:.[RS]' "/proc/$made/status"
	victim_check
}
