#!/usr/bin/env bats
# What is refused, and what `check` tells about it. Every reason has its exit status and its words.

load lib

# state_of NAME: ok, degraded or no, in $output.
state_of() {
	json_get --arg name "$1" '.checks[] | select(.name == $name) | .state'
}

# row_says NAME STATE WORDS
row_says() {
	json '.checks[] | select(.name == $name) | .state == $state and (.detail | contains($words))' \
		--arg name "$1" --arg state "$2" --arg words "$3"
}

hint_says() { # NAME WORDS
	json '.checks[] | select(.name == $name) | .hint | contains($words)' \
		--arg name "$1" --arg words "$2"
}

check() { # [COMMAND...] PID, as JSON
	run --separate-stderr "${@:1:$#-1}" timeout -k 5 "$(patience 60)" "${user_memprobe:-$MEMPROBE}" check \
		"${@: -1}" --json
}

@test "check without a target tells about this machine" {
	probe check --json
	status_is 0
	json '.schema == "memprobe/1" and .command == "check" and (has("target") | not)'
	json '[.checks[] | has("name") and has("ok") and has("detail")] | all'
	for name in kernel user yama sandbox perf-events uprobes tracefs; do
		[ -n "$(state_of $name)" ]
	done
	row_says kernel ok "$(uname -r)"
	# It is there, though it may not be looked into.
	if [ "$(id -u)" -eq 0 ] && [ "$(stat -c %a /sys/kernel/tracing)" = 700 ] &&
		grep -q ' /sys/kernel/tracing tracefs' /proc/mounts; then
		prepare_user
		run as_user "$user_memprobe" check
		[[ $output == *tracefs*'not readable'* && $output != *'not mounted'* ]] || fail "$output"
	fi
	probe check
	status_is 0
	[[ $output == *"$(uname -r)"* ]]
}

@test "check of an own process: all is allowed, and the process is as it was" {
	start_victim idle
	probe check "$victim_pid" --json
	status_is 0
	for name in process maps memory attach dumpable tracer seccomp shadow-stack; do
		[ "$(state_of "$name")" = ok ] || fail "$name: $output"
	done
	row_says architecture ok "x86_64, 64 bits"
	row_says libc ok glibc
	row_says namespaces ok same
	json '.stopped_us == 0 and .target.pid == $pid' --argjson pid "$victim_pid"
	victim_check
}

@test "check of a 32-bit process" {
	start_victim idle-32
	check "$victim_pid"
	status_is 0
	row_says architecture ok "i386, 32 bits"
	victim_check
}

@test "check many times does not disturb" {
	start_victim threads
	for _ in $(seq 20); do
		check "$victim_pid"
		status_is 0
	done
	victim_check
	stop_victim
	start_victim idle nanosleep
	freeze "$victim_pid"
	victim_remember
	check "$victim_pid"
	status_is 0
	wait_until 60 threads_are T "$victim_pid"
	victim_check
	kill -CONT "$victim_pid"
}

@test "no such process: 3" {
	probe check 4194305
	status_is 3
	[[ $stderr == *"no process 4194305"* ]]
	start_victim idle
	stop_victim
	probe check "$victim_pid"
	status_is 3
}

pid_2_is_kernel_thread() {
	[ -e /proc/2/status ] && ! grep -q '^VmSize' /proc/2/status
}

@test "kernel thread: 5" {
	pid_2_is_kernel_thread || skip "a PID namespace has no kernel threads"
	probe check 2 --json
	status_is 5
	row_says process no "is a kernel thread: it has no memory of its own"
	probe maps 2
	status_is 5
	[[ $stderr == *"kernel thread"* ]]
}

@test "zombie: 5, and its parent is named" {
	start_victim refuse zombie
	zombie=$(victim_truth child)
	check "$zombie"
	status_is 5
	row_says process no "is a zombie"
	hint_says process "its parent $victim_pid (refuse)"
	probe maps "$zombie"
	status_is 5
	[[ $stderr == *zombie* ]]
	victim_check
}

@test "main thread exited: the others are asked" {
	start_victim refuse leader
	leaderless=$(victim_truth child)
	[[ $(cat "/proc/$leaderless/stat") == *") Z "* ]]
	check "$leaderless"
	status_is 0
	row_says maps ok read
	row_says memory ok read
	row_says attach ok SEIZE
	# Still there, and nobody holds it.
	for status in "/proc/$leaderless/task/"*/status; do
		grep -q '^TracerPid:.0$' "$status"
	done
	victim_check
}

@test "memprobe itself: 5" {
	run --separate-stderr sh -c 'exec "$0" check $$ --json' "$MEMPROBE"
	status_is 5
	row_says process no "is memprobe itself"
}

@test "already traced: 4, and the tracer is named" {
	start_victim refuse traced
	tracee=$(victim_truth child)
	check "$tracee"
	status_is 4
	row_says attach no "already traced by $victim_pid (refuse)"
	hint_says attach "let $victim_pid detach"
	row_says memory ok "can be read"
	row_says tracer no "traced by $victim_pid"
	grep -q "^TracerPid:.$victim_pid\$" "/proc/$tracee/status"
}

@test "stuck in an execve(): 7, and not for ever" {
	start_victim refuse execs
	check "$(victim_truth child)"
	status_is 7
	row_says attach no "stuck in an execve()"
	hint_says attach "where its threads wait"
	victim_check
}

@test "process of root, from an ordinary user: 4" {
	skip_unless_root
	prepare_user
	start_victim idle
	check as_user "$victim_pid"
	status_is 4
	row_says attach no "belongs to uid 0, and memprobe runs as uid 65534"
	hint_says attach sudo
	row_says maps no "uid 0"
	row_says architecture degraded "not visible"
	row_says memory no "uid 0"
	run --separate-stderr as_user "$user_memprobe" maps "$victim_pid"
	status_is 4
	[[ $stderr == *"belongs to uid 0, and memprobe runs as uid 65534"*"hint: "* ]]
	victim_check
}

@test "an ordinary user's own process is allowed" {
	skip_unless_root
	start_victim_as_user idle
	check as_user "$victim_pid"
	status_is 0
	row_says attach ok SEIZE
	row_says user degraded "uid 65534"
	victim_check
}

@test "process that is not dumpable, of the same user: 4; root may" {
	skip_unless_root
	start_victim_as_user refuse dumpable
	check as_user "$victim_pid"
	status_is 4
	row_says attach no "is not dumpable"
	row_says dumpable no PR_SET_DUMPABLE
	hint_says attach cap_sys_ptrace
	run --separate-stderr as_user "$user_memprobe" maps "$victim_pid"
	status_is 4
	[[ $stderr == *"is not dumpable"* ]]
	unset user_memprobe
	check "$victim_pid"
	status_is 0
	row_says attach ok SEIZE
	victim_check
}

@test "process with more capabilities, of the same user: 4" {
	skip_unless_root
	prepare_user
	install -m 755 "$VICTIMS/idle" "${user_memprobe%/*}/idle"
	start_command setpriv --reuid=65534 --regid=65534 --clear-groups \
		--inh-caps=+net_bind_service --ambient-caps=+net_bind_service -- \
		"${user_memprobe%/*}/idle"
	check as_user "$victim_pid"
	status_is 4
	row_says attach no "it has capabilities that memprobe lacks (0x400)"
	victim_check
}

@test "capabilities of another user namespace do not count: 4" {
	skip_unless_root
	unshare -Ur true || skip "no user namespaces"
	start_victim idle
	check unshare -Ur "$victim_pid"
	status_is 4
	row_says attach no "another user namespace"
	row_says user-namespace degraded "inside only"
	victim_check
}

@test "a user namespace that the user made is allowed" {
	skip_unless_root
	as_user unshare -Ur true || skip "no user namespaces"
	start_victim_as_user idle
	stop_victim
	start_command setpriv --reuid=65534 --regid=65534 --clear-groups -- unshare -Ur -- \
		"${user_memprobe%/*}/idle"
	check as_user "$victim_pid"
	status_is 0
	row_says namespaces ok user
	victim_check
}

@test "inside of an unshared user and PID namespace" {
	skip_unless_root
	unshare -Urpf --mount-proc true || skip "no user namespaces"
	# PID 1 there is the shell.
	run --separate-stderr timeout "$(patience 60)" unshare -Urpf --mount-proc sh -c \
		'"$1" </dev/null >"$2" & until grep -q ready "$2"; do sleep 0.02; done
		"$0" check $! --json; status=$?
		kill $!; wait $!; exit $status' "$MEMPROBE" "$VICTIMS/idle" \
		"$BATS_TEST_TMPDIR/ready"
	status_is 0
	row_says attach ok SEIZE
	run --separate-stderr timeout "$(patience 60)" unshare -Urpf --mount-proc sh -c \
		'"$0" check 1 --json; exit $?' "$MEMPROBE"
	status_is 0
	json '.target.pid == 1'
}

@test "PID 1 of root, from an ordinary user: 4" {
	skip_unless_root
	prepare_user
	# Of a PID namespace of our own: the machine's is none of a test's business.
	run --separate-stderr timeout "$(patience 60)" unshare -pf --mount-proc sh -c \
		'setpriv --reuid=65534 --regid=65534 --clear-groups -- "$0" check 1 --json; exit $?' \
		"$user_memprobe"
	status_is 4
	row_says attach no "belongs to uid 0"
	run --separate-stderr timeout "$(patience 60)" unshare -pf --mount-proc sh -c \
		'setpriv --reuid=65534 --regid=65534 --clear-groups -- "$0" maps 1; exit $?' \
		"$user_memprobe"
	status_is 4
	[[ $stderr == *"belongs to uid 0"* ]]
}

@test "another PID and mount namespace" {
	skip_unless_root
	start_victim idle
	stop_victim
	start_command unshare -m -- "$VICTIMS/idle"
	check "$victim_pid"
	status_is 0
	row_says namespaces ok mount
	victim_check
}

@test "memprobe under a filter that denies ptrace: 4" {
	start_victim idle
	check "$VICTIMS/sandbox" ptrace "$victim_pid"
	status_is 4
	row_says attach no "a seccomp filter denies ptrace to memprobe"
	hint_says attach "--cap-add=SYS_PTRACE"
	row_says sandbox no "denies ptrace to memprobe"
	row_says memory ok "can be read"
	check "$VICTIMS/sandbox" both "$victim_pid"
	status_is 4
	row_says memory degraded "a seccomp filter denies process_vm_readv to memprobe"
	row_says sandbox no "ptrace and process_vm_readv"
	victim_check
}

@test "memprobe under a filter that kills for ptrace lives and says so" {
	start_victim idle
	check "$VICTIMS/sandbox" kill "$victim_pid"
	status_is 4
	row_says attach no "a seccomp filter denies ptrace to memprobe"
	check "$VICTIMS/sandbox" none "$victim_pid"
	status_is 0
	row_says sandbox degraded "ptrace is let through"
	victim_check
}

@test "targets under seccomp" {
	skip_unless_root
	[ "$(awk '/^Seccomp:/ { print $2 }' /proc/self/status)" = 0 ] || skip "runs under a filter"
	for variant in $(runnable filtered filtered-32); do
		start_victim $variant strict
		check "$victim_pid"
		status_is 4
		row_says seccomp no "strict mode"
		victim_check
		start_victim $variant two
		check "$victim_pid"
		status_is 0
		row_says seccomp ok "2 filters, asked before"
		check "$VICTIMS/sandbox" none "$victim_pid"
		status_is 4
		row_says seccomp no "2 filters that memprobe cannot read"
		victim_check
	done
}

@test "a filter of an ordinary user's process cannot be read by that user" {
	skip_unless_root
	start_victim_as_user filtered container
	check as_user "$victim_pid"
	status_is 4
	row_says attach ok SEIZE
	row_says seccomp no "1 filter that memprobe cannot read"
	hint_says seccomp "root"
	victim_check
}

@test "CAP_SYS_PTRACE alone attaches, but opens no file of another user: 4" {
	skip_unless_root
	prepare_user
	start_victim idle
	check setpriv --reuid=65534 --regid=65534 --clear-groups \
		--inh-caps=+sys_ptrace --ambient-caps=+sys_ptrace -- "$victim_pid"
	status_is 4
	row_says attach ok SEIZE
	row_says memory no "for uid 0 alone, and memprobe lacks CAP_DAC_READ_SEARCH"
	hint_says memory cap_dac_read_search
	check setpriv --reuid=65534 --regid=65534 --clear-groups \
		--inh-caps=+sys_ptrace,+dac_read_search \
		--ambient-caps=+sys_ptrace,+dac_read_search -- "$victim_pid"
	status_is 0
	row_says memory ok "can be read"
	victim_check
}

@test "commands that attach give the same reasons" {
	skip_unless_root
	prepare_user
	start_victim refuse traced
	tracee=$(victim_truth child)
	for command in "stack $tracee" "call $tracee getpid()"; do
		# shellcheck disable=SC2086
		probe $command
		status_is 4
		[[ $stderr == *"already traced by $victim_pid (refuse)"* ]] || fail "$command: $stderr"
	done
	start_victim idle
	for command in "stack $victim_pid" "call $victim_pid getpid()" "trim $victim_pid"; do
		# shellcheck disable=SC2086
		run --separate-stderr as_user "$user_memprobe" $command
		status_is 4
		[[ $stderr == *"belongs to uid 0"*"hint: "* ]] || fail "$command: $stderr"
		# shellcheck disable=SC2086
		run --separate-stderr "$VICTIMS/sandbox" ptrace "$MEMPROBE" $command
		status_is 4
		[[ $stderr == *"a seccomp filter denies ptrace to memprobe"* ]] ||
			fail "$command: $stderr"
		# shellcheck disable=SC2086
		run --separate-stderr unshare -Ur "$MEMPROBE" $command
		status_is 4
		[[ $stderr == *"another user namespace"* ]] || fail "$command: $stderr"
	done
	victim_check
	start_victim refuse zombie
	for command in "stack" "trim"; do
		probe "$command" "$(victim_truth child)"
		status_is 5
		[[ $stderr == *zombie* ]] || fail "$command: $stderr"
		pid_2_is_kernel_thread || continue
		probe "$command" 2
		status_is 5
		[[ $stderr == *"kernel thread"* ]] || fail "$command: $stderr"
	done
}
