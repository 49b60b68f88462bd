#!/usr/bin/env bash
# Runs tests and sums them up: tests/run.sh TEST...
#
# A TEST is a cmocka program or a .bats file; both speak TAP. What failed is shown with its output.
# A test that was planned but did not report (crash, timeout) failed; which one ran when the time was
# up is said. The last line is `N passed, N failed`; the exit status is 0 only if something passed and
# nothing failed.
# BUILD: where memprobe lies. CHECK_JOBS: how many run at a time. CHECK_TIMEOUT: seconds for each on an
# idle machine; on a busy one it is longer.
set -u
BUILD=$(realpath "${BUILD:-build}")
export BUILD
jobs=${CHECK_JOBS:-2}
idle_limit=${CHECK_TIMEOUT:-420}
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM

# Each test has its share of a CPU. The bound is for what hangs, not for what is slow.
limit_now() {
	local load
	read -r load _ </proc/loadavg
	echo $((idle_limit * (1 + ${load%.*} / (2 * $(nproc)))))
}

run_one() { # TEST INDEX
	local start=$SECONDS limit
	limit=$(limit_now)
	echo "$limit" >"$work/$2.limit"
	case $1 in
	*.bats) timeout -k 10 "$limit" bats --tap "$1" ;;
	*) CMOCKA_MESSAGE_OUTPUT=tap timeout -k 10 "$limit" "$1" ;;
	esac >"$work/$2.out" 2>&1 </dev/null
	# Whole at once: it is waited for.
	echo $? $((SECONDS - start)) >"$work/$2.status.new"
	mv "$work/$2.status.new" "$work/$2.status"
}

# Prints `PASSED FAILED SKIPPED` of a TAP text. cmocka says `not ok 3 # SKIP`, bats `ok 3 # skip`;
# cmocka's lines without a number are about groups and count only when the number of a failure
# is missing.
count() { # OUTPUT STATUS
	awk -v status="$2" '
	/^1\.\.[0-9]+/ { planned += substr($1, 4) }
	/^(not )?ok [0-9]+ .*# *[Ss][Kk][Ii][Pp]/ { skipped++; next }
	/^ok [0-9]+ / { passed++ }
	/^not ok [0-9]+ / { failed++ }
	END {
		silent = planned - passed - failed - skipped
		if (silent > 0)
			failed += silent
		if (status != 0 && !failed)
			failed = 1
		if (!planned && !failed)
			failed = 1
		print passed + 0, failed + 0, skipped + 0
	}' "$1"
}

# Of a .bats file, the test behind the last one that reported.
running_at_the_end() { # TEST OUTPUT
	[[ $1 != *.bats ]] || sed -n 's/^@test \(.*\) {$/\1/p' "$1" |
		sed -n "$(($(grep -cE '^(not )?ok [0-9]' "$2") + 1))p"
}

passed=0 failed=0 skipped=0
report() { # TEST INDEX
	local status seconds p f s
	read -r status seconds <"$work/$2.status"
	read -r p f s < <(count "$work/$2.out" "$status")
	passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
	printf '%-44s %4d passed, %d failed%s (%d s)\n' "${1#"$BUILD"/}" "$p" "$f" \
		"$([ "$s" -gt 0 ] && echo ", $s skipped")" "$seconds"
	grep -E '^(not )?ok [0-9]+ .*# *[Ss][Kk][Ii][Pp]' "$work/$2.out" |
		sed -E 's/^(not )?ok [0-9]+ /    skipped: /'
	[ "$f" -eq 0 ] && return
	[[ $status != 124 && $status != 137 ]] ||
		echo "    stopped after $(cat "$work/$2.limit") s, in: $(running_at_the_end "$1" "$work/$2.out")"
	sed 's/^/    /' "$work/$2.out"
}

index=0 shown=0 tests=("$@")
show_finished() { # in their order, as far as they have ended
	while [ "$shown" -lt "$index" ] && [ -e "$work/$shown.status" ]; do
		report "${tests[shown]}" "$shown"
		shown=$((shown + 1))
	done
}

for test in "${tests[@]}"; do
	while [ "$(jobs -rp | wc -l)" -ge "$jobs" ]; do
		wait -n
		show_finished
	done
	run_one "$test" "$index" &
	index=$((index + 1))
done
wait
show_finished

[ "$skipped" -gt 0 ] && echo "$skipped skipped"
echo "$passed passed, $failed failed"
[ "$passed" -gt 0 ] && [ "$failed" -eq 0 ]
