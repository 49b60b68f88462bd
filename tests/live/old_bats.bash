# What the tests need of bats 1.5 that older ones lack, as Debian 11's: a folder for each test, and
# `run -STATUS` and `run --separate-stderr`.

BATS_TEST_TMPDIR=$(mktemp -d "$BATS_RUN_TMPDIR/test.XXXXXX")

run() { # [-STATUS] [--separate-stderr] COMMAND...
	local wanted= errors= flags
	while :; do
		case $1 in
		-[0-9]*) wanted=${1#-} ;;
		--separate-stderr) errors=$BATS_TEST_TMPDIR/separate-stderr ;;
		*) break ;;
		esac
		shift
	done
	flags=$-
	set +eET
	if [ -n "$errors" ]; then
		output=$("$@" 2>"$errors")
		status=$?
		stderr=$(cat "$errors")
	else
		output=$("$@" 2>&1)
		status=$?
	fi
	mapfile -t lines <<<"$output"
	set "-$flags"
	[ -z "$wanted" ] || [ "$status" -eq "$wanted" ] || {
		echo "exit status $status instead of $wanted: $*" "$output" >&2
		return 1
	}
}
