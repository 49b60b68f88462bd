# kill_snapshots PID KILLS: memprobe, at work on PID with what makes snapshots, is killed at so many
# instants, half of them at system calls, half at random; after which nothing of it is left.
# allocator=other: only `core` is killed, since the heap cannot be walked.

KILLER=$BUILD/tests/torture/killer

count() { # SHORT LONG
	if [ "${TORTURE:-}" = long ]; then
		echo "$2"
	else
		echo "$1"
	fi
}

children_are() { # PID CHILDREN
	[ "$(children_of "$1")" = "$2" ]
}

kill_snapshots() {
	local pid=$1 each=$((($2 + 3) / 4)) children kind
	children=$(children_of "$pid")
	for kind in at random; do
		[ "${allocator:-glibc}" != glibc ] || kills_of "$pid" $kind $each leaks "$pid"
		kills_of "$pid" $kind $each core "$pid" -o "$BATS_TEST_TMPDIR/core" --full
	done
	wait_until 60 children_are "$pid" "$children" ||
		fail "children: $(children_of "$pid")" "$(ps -o pid,stat,comm --ppid "$pid")"
}

# Servers are left to `make torture`: a run on one may take a second.
kill_at_server() { # PID
	if [ "${TORTURE:-}" = long ]; then
		kill_snapshots "$1" 100
		# Its stub may stay where a thread could still be on its way through it.
		# shellcheck disable=SC2034
		victim_stub_may_stay=1
	fi
}

kills_of() { # PID at|random KILLS COMMAND [ARG...]
	local output
	output=$("$KILLER" "$2" "$3" "$1" "$MEMPROBE" "${@:4}") || fail "$4 $2: $output" || return
	[ "${TORTURE:-}" != long ] || echo "# $4 $2: $(tail -n 1 <<<"$output")" >&3
	# A run may fail only by not finding a safe point.
	[[ $output == *failed=0* ]] || fail "$4 $2: $output"
}
