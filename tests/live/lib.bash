# Helpers of the live tests: `load lib` at the top of a .bats file, victims by start_victim, and at
# the end of every test victim_check: whatever memprobe did, the target is alive, in its former
# state, untraced, with its code bytes and threads as before.
#
#	start_victim NAME [ARG...]	build/victims/NAME in the background, until it says `ready`;
#					sets victim_pid, victim_out (its stdout), victim_in (a descriptor)
#	victim_say LINE			a command for it
#	victim_wait REGEX		until a line of its output matches; prints the last such line
#	victim_truth KEY		the rest of its first line that begins with KEY
#	adopt PID			treat this process, which the test started, as the victim; its
#					end is the test's (ends_with)
#	ends_with PID [SIGNAL]		teardown() ends PID by SIGNAL (TERM) and waits for it
#	victim_check [PID]		see above; victim_threads_vary=1 if it starts and ends threads
#	victim_works			its counter of rounds goes on growing (victims that answer `ping`)
#	stop_victim [PID]		ends it now; teardown() ends all that were started
#	freeze PID			stops it by SIGSTOP, and waits until all its threads have stopped
#	threads_are STATE PID		all its threads are in that state (`S`, `T`)
#	settle				waits until all threads of the victim sleep
#
#	run memprobe ARG...		bats' run; memprobe is bounded to 60 s
#	probe ARG...			the same with $stdout and $stderr apart; $output is stdout
#	json FILTER [jq option...]	asserts that jq -e FILTER holds of $output
#	json_get FILTER			prints what FILTER gives
#	as_user COMMAND...		runs it as nobody (needs root: skip_unless_root)
#
#	record_begin COMMAND PID ARG...	starts a recording, and waits until it records; $record_pid
#	record_end			ends it by Ctrl-C, and is like probe then; record_wait: by itself;
#					record_kill: by SIGKILL
#	figures_of FUNCTION		what was recorded of it, in JSON; unreachable_of FUNCTION
#
#	patience SECONDS		a bound, longer on a busy machine: bounds are for hangs
#
# Never wait for a time to pass: wait for what is to happen (wait_until), with a bound.

if declare -F bats_require_minimum_version >/dev/null; then
	bats_require_minimum_version 1.5.0
elif [ -z "${BATS_TEST_TMPDIR:-}" ]; then
	source "${BASH_SOURCE[0]%/*}/old_bats.bash"
fi

ROOT=$(cd "${BASH_SOURCE[0]%/*}/../.." && pwd)
BUILD=$(realpath "${BUILD:-$ROOT/build}")
MEMPROBE=$BUILD/memprobe
VICTIMS=$BUILD/victims

victim_count=0
declare -A started=()	    # PID -> its output file, of all that teardown must kill
declare -A victim_files=() # PID -> the same, of all that can be checked
declare -A ending=()	    # PID -> signal, of what teardown must end gently, and
ending_order=()		    # in which order
public_dirs=()

# As many times as there are processes that want to run for each CPU, and twice more.
patience() { # SECONDS
	local load
	read -r load _ </proc/loadavg
	echo $(($1 * (3 + ${load%.*} / $(nproc))))
}

# As sentences have numbers: 4,984.
thousands() { # NUMBER
	sed -E ':a; s/^([0-9]+)([0-9]{3})/\1,\2/; ta' <<<"$1"
}

memprobe() {
	timeout -k 5 "$(patience 60)" "$MEMPROBE" "$@"
}

probe() {
	run --separate-stderr memprobe "$@"
	# shellcheck disable=SC2034
	stdout=$output
}

# ---- recordings ----

record_begin() {
	record_out=$BATS_TEST_TMPDIR/record
	# What a former recording said is not to be taken for this one's.
	rm -f "$record_out" "$record_out.err"
	touch "$record_out.err"
	timeout -k 40 "$(patience 240)" "${as[@]}" "$MEMPROBE" "$@" -v >"$record_out" 2>"$record_out.err" 3>&- &
	record_pid=$!
	wait_until 60 record_is_on || fail "it does not record" "$(cat "$record_out.err")"
}

# As nobody.
user_memprobe_record() {
	local MEMPROBE=$user_memprobe as=(setpriv --reuid=65534 --regid=65534 --clear-groups --)
	record_begin "$@"
}

record_is_on() {
	grep -q ': recording begins' "$record_out.err" || is_gone "$record_pid"
}

record_wait() {
	status=0
	wait "$record_pid" || status=$?
	output=$(cat "$record_out")
	stdout=$output
	stderr=$(cat "$record_out.err")
}

# It is for memprobe: timeout(1) leaves it alone by SIGKILL; and by SIGINT where that is ignored, as
# it is in the background, if it is of coreutils 9.10.
record_signal() { # SIGNAL
	local pid
	for pid in $(children_of "$record_pid"); do
		kill -"$1" "$pid" || true
	done
}

record_end() {
	record_signal INT
	record_wait
}

record_kill() {
	record_signal KILL
	wait "$record_pid" || true
}

# Of JSON: of all sites with such a function, what is not freed and what was allocated in all.
figures_of() { # FUNCTION: count, bytes, all_count, all_bytes
	json_get '[.sites[] | select(any(.frames[]; contains($f)))] |
		"\(map(.count) | add // 0) \(map(.bytes) | add // 0) " +
		"\(map(.all_count) | add // 0) \(map(.all_bytes) | add // 0)"' --arg f "$1"
}

unreachable_of() {
	json_get '[.sites[] | select(any(.frames[]; contains($f))) | .unreachable_count] | add // 0' \
		--arg f "$1"
}

fail() {
	printf '%s\n' "$@" >&2
	return 1
}

# wait_until SECONDS COMMAND...: the command's success, or failure after that time (patience).
wait_until() {
	local begun=$SECONDS bound=$1
	shift
	until "$@"; do
		[ $((SECONDS - begun)) -lt "$bound" ] ||
			[ $((SECONDS - begun)) -lt "$(patience "$bound")" ] || {
			echo "timed out: $*" >&2
			return 1
		}
		sleep 0.02
	done
}

is_gone() { # a zombie counts
	local line
	line=$(cat "/proc/$1/stat" 2>/dev/null) || return 0
	line=${line##*) }
	[ "${line%% *}" = Z ]
}

threads_are() { # STATE PID
	! grep -LE "^State:[[:space:]]+$1" /proc/"$2"/task/*/status 2>/dev/null | grep -q .
}

# Of victims that do nothing unasked: until each has come to its wait, or back to the one that a stop
# has ended.
settle() {
	wait_until 60 threads_are S "$victim_pid"
}

freeze() { # PID
	kill -STOP "$1"
	wait_until 60 threads_are T "$1"
}

# Whether the guards of a thread's stack may be no mappings of their own, and stacks be merged: the
# libc that $output tells of.
has_merged_stacks() {
	json_get .target.libc | awk '{ exit !($1 == "glibc" && $2 >= 2.42) }'
}

children_of() { # PID: those of all its threads, a line each
	cat "/proc/$1"/task/*/children 2>/dev/null | tr ' ' '\n' | sort -u
}

# ---- control groups ----

# A memory cgroup of our own, version 1 or 2: $group, and $limit_file in it. For teardown: remove_group.
make_group() {
	local base
	for base in /sys/fs/cgroup/memory /sys/fs/cgroup; do
		[ -e "$base/cgroup.procs" ] || continue
		group=$base/memprobe-test-$$-$BATS_TEST_NUMBER
		mkdir "$group" 2>/dev/null || continue
		if [ -e "$group/memory.limit_in_bytes" ]; then
			limit_file=$group/memory.limit_in_bytes
			return 0
		elif [ -e "$group/memory.max" ]; then
			limit_file=$group/memory.max
			return 0
		fi
		rmdir "$group"
	done
	group=
	return 1
}

remove_group() { # when all that was in it has ended
	[ -z "${group:-}" ] || wait_until 60 rmdir "$group"
}

# ---- victims ----

start_command() { # FILE [ARG...]: any program that says `ready`
	local in
	victim_count=$((victim_count + 1))
	victim_out=$BATS_TEST_TMPDIR/victim$victim_count.out
	in=$BATS_TEST_TMPDIR/victim$victim_count.in
	mkfifo "$in"
	exec {victim_in}<>"$in"
	"$@" <"$in" >"$victim_out" 2>"$victim_out.err" 3>&- &
	victim_pid=$!
	started[$victim_pid]=$victim_out
	victim_files[$victim_pid]=$victim_out
	wait_until 60 victim_is_ready || fail "$1 did not get ready" "$(cat "$victim_out"*)"
	"$ROOT/tests/live/state.py" "$victim_pid" >"$victim_out.before"
}

victim_is_ready() {
	grep -q '^ready' "$victim_out" || is_gone "$victim_pid"
}

# Kernels may have been told not to (ia32_emulation=off). Bash takes what it cannot execute for a script.
runs_32_bit() {
	[ -n "${bits_32:-}" ] ||
		bits_32=$(python3 -c 'import subprocess as s
print(s.run(["/lib/ld-linux.so.2", "--version"], stdout=s.DEVNULL, stderr=s.DEVNULL) and "yes")' \
			2>/dev/null) || bits_32=no
	[ "$bits_32" = yes ]
}

# Those of the victims that this machine runs. Arguments may follow them behind a `=`.
runnable() { # VICTIM...
	local name
	for name; do
		[[ ${name%%=*} == *-32 ]] && ! runs_32_bit || echo "$name"
	done
}

start_victim() {
	local name=$1
	shift
	[ -n "$(runnable "$name")" ] || skip "this machine runs no 32-bit programs"
	start_command "$VICTIMS/$name" "$@"
}

start_preloaded() { # LIBRARY VICTIM ARG...
	local library=$1
	shift
	ldconfig -p | grep -q "$library" || skip "$library is not installed"
	start_command env "LD_PRELOAD=$library" "$VICTIMS/$1" "${@:2}"
}

adopt() {
	victim_count=$((victim_count + 1))
	victim_pid=$1
	victim_out=$BATS_TEST_TMPDIR/victim$victim_count.out
	: >"$victim_out"
	victim_files[$victim_pid]=$victim_out
	victim_remember
}

ends_with() {
	[ -n "${ending[$1]:-}" ] || ending_order=("$1" "${ending_order[@]}")
	ending[$1]=${2:-TERM}
}

victim_say() {
	echo "$*" >&"$victim_in"
}

victim_wait() {
	wait_until 60 grep -qE "$1" "$victim_out" || fail "$(cat "$victim_out")"
	grep -E "$1" "$victim_out" | tail -1
}

victim_truth() {
	sed -n "s/^$1 //p" "$victim_out" | head -1
}

# What is compared; for tests that change the victim themselves, to be taken again.
victim_remember() {
	"$ROOT/tests/live/state.py" "$victim_pid" >"$victim_out.before"
}

victim_check() {
	local pid=${1:-$victim_pid} out before after
	out=${victim_files[$pid]}
	if is_gone "$pid"; then
		fail "victim $pid is dead" "$(tail -5 "$out" "$out".err 2>/dev/null)"
		return
	fi
	if grep '^WRONG' "$out" >&2; then
		fail "victim $pid was harmed"
		return
	fi
	before=$(cat "$out.before")
	after=$("$ROOT/tests/live/state.py" "$pid")
	if [ -n "${victim_threads_vary:-}" ]; then
		before=$(grep -v '^threads' <<<"$before")
		after=$(grep -v '^threads' <<<"$after")
	fi
	# A stub that a killed memprobe left stays where a thread may still be on its way through it.
	if [ -n "${victim_stub_may_stay:-}" ]; then
		before=$(grep -v '^padding' <<<"$before")
		after=$(grep -v '^padding' <<<"$after")
	fi
	diff <(echo "$before") <(echo "$after") >&2 || fail "victim $pid is not as it was"
}

pongs_at_least() {
	[ "$(grep -c '^pong' "$victim_out")" -ge "$1" ]
}

ping() { # prints the counter
	local pongs
	pongs=$(grep -c '^pong' "$victim_out")
	victim_say ping
	wait_until 60 pongs_at_least $((pongs + 1))
	sed -n 's/^pong //p' "$victim_out" | tail -1
}

has_progressed() {
	[ "$(ping)" -gt "$1" ]
}

victim_works() {
	local rounds
	rounds=$(ping)
	wait_until 60 has_progressed "$rounds"
}

stop_victim() {
	local pid=${1:-$victim_pid}
	[ -n "${started[$pid]:-}" ] || return 0
	unset "started[$pid]"
	kill -KILL "$pid" 2>/dev/null || true
	wait "$pid" 2>/dev/null || true
}

end_everything() {
	local pid dir
	if [ -z "${BATS_TEST_COMPLETED:-}" ]; then
		for pid in "${!started[@]}"; do
			echo "# victim $pid: $(tail -n 8 "${started[$pid]}" 2>/dev/null)"
		done
	fi
	for pid in "${ending_order[@]}"; do
		kill -"${ending[$pid]}" "$pid" 2>/dev/null || continue
		wait_until 20 is_gone "$pid" || kill -KILL "$pid" || true
	done
	for pid in "${!started[@]}"; do
		stop_victim "$pid"
	done
	for dir in "${public_dirs[@]}"; do
		rm -rf "$dir"
	done
}

teardown() {
	end_everything
}

# ---- assertions ----

json() {
	local filter=$1
	shift
	jq -e "$@" "$filter" >/dev/null <<<"$output" ||
		fail "not so: $filter" "$(head -c 3000 <<<"$output")"
}

json_get() {
	jq -r "$@" <<<"$output"
}

status_is() {
	[ "$status" -eq "$1" ] || fail "exit status $status instead of $1" "$output" "${stderr:-}"
}

# ---- other users ----

skip_unless_root() {
	[ "$(id -u)" -eq 0 ] || skip "needs root"
}

# public_dir: a directory that everybody may enter; prints its name. The bats directory is private.
make_public_dir() {
	public_dir=$(mktemp -d /tmp/memprobe-test.XXXXXX)
	chmod 755 "$public_dir"
	[ "$(id -u)" -ne 0 ] || chown 65534:65534 "$public_dir"
	public_dirs+=("$public_dir")
}

as_user() {
	setpriv --reuid=65534 --regid=65534 --clear-groups -- "$@"
}

# For servers that refuse to run as root. They may not write where the tests do.
unprivileged() {
	export TMPDIR=$public_dir
	if [ "$(id -u)" -eq 0 ]; then
		exec setpriv --reuid=65534 --regid=65534 --clear-groups -- "$@"
	else
		exec "$@"
	fi
}

# Where nobody can read it: sets user_memprobe; and victims with start_victim_as_user.
prepare_user() {
	[ -n "${user_memprobe:-}" ] && return
	make_public_dir
	user_memprobe=$public_dir/memprobe
	install -m 755 "$MEMPROBE" "$user_memprobe"
}

start_victim_as_user() {
	local name=$1
	shift
	prepare_user
	install -m 755 "$VICTIMS/$name" "${user_memprobe%/*}/$name"
	start_command setpriv --reuid=65534 --regid=65534 --clear-groups -- \
		"${user_memprobe%/*}/$name" "$@"
}
