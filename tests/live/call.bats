#!/usr/bin/env bats
# call: functions of the target, their results, and what becomes of those that misbehave.

load lib

returns() { # EXPRESSION HEX
	probe call "$victim_pid" "$1" --json
	status_is 0
	json '.returned == $hex' --arg hex "$2" || fail "of $1"
}

harmless_calls() {
	returns 'getpid()' "$(printf '0x%x' "$victim_pid")"
	returns 'strlen("abc")' 0x3
	returns 'strlen("a\0bc")' 0x1
	returns 'strtoul("0x1234", NULL, 16)' 0x1234
	returns 'abs(-5)' 0x5
	returns "labs(-0x10)" 0x10
	returns 'usleep(1000)' 0x0
	returns "strspn(\"aab\", \"a\")" 0x2
	returns 'ffs(16)' 0x5
	victim_check
}

@test "results of calls, one thread" {
	start_victim idle
	harmless_calls
	returns 'toupper(97)' 0x41
	probe call "$victim_pid" 'getpid()'
	status_is 0
	[ "$output" = "$(printf 'returned 0x%x (%d)' "$victim_pid" "$victim_pid")" ]
}

@test "results of calls, many threads" {
	start_victim heapshape 8
	harmless_calls
}

@test "results of calls, 32 bit" {
	start_victim idle-32
	harmless_calls
	probe call "$victim_pid" 'abs(0x100000000)'
	status_is 2
	victim_check
}

@test "six arguments, and strings that are written to" {
	start_victim idle
	# snprintf(char *, size_t, format, ...): the first string is room to write into.
	returns 'snprintf("          ", 10, "%d-%s-%c", 42, "xy", '"'z'"')' 0x7
	victim_check
}

@test "a function writes to the target's own stdout" {
	start_victim idle
	probe call "$victim_pid" 'write(1, "from within\n", 12)' --json
	status_is 0
	json '.returned == "0xc"'
	grep -qx 'from within' "$victim_out"
	victim_check
}

@test "errno is the function's, and the target keeps its own" {
	start_victim idle
	probe call "$victim_pid" 'open("/nonexistent/file", 0)' --json
	status_is 0
	json '.errno == 2'
	probe call "$victim_pid" 'close(-1)'
	[[ $output = *"errno 9 (Bad file descriptor)"* ]]
	probe call "$victim_pid" 'getpid()' --json
	json 'has("errno") | not'
	victim_check
}

@test "what cannot be called is refused" {
	start_victim idle
	probe call "$victim_pid" 'strlne("a")'
	status_is 5
	[[ $stderr = *hint:*strlen* ]]
	probe call "$victim_pid"
	status_is 2
	probe call "$victim_pid" 'getpid('
	status_is 2
	[[ $stderr = *"column 8"* ]]
	probe call "$victim_pid" '0x10()'
	status_is 2
	probe call "$victim_pid" "strlen(\"$(printf '%020000d' 0)\")"
	status_is 2
	probe call -h
	status_is 0
	[[ $output = *"really runs in the target"* ]]
	victim_check
}

@test "a function by its address" {
	start_victim idle-static
	address=$(nm "$VICTIMS/idle-static" | sed -n 's/^\([0-9a-f]*\) [TW] getpid$/0x\1/p')
	returns "$address()" "$(printf '0x%x' "$victim_pid")"
	victim_check
}

@test "a call that crashes is undone" {
	start_victim heapshape 3
	probe call "$victim_pid" 'strlen(0)'
	status_is 1
	[[ $stderr = *"signal 11"* ]]
	returns 'strlen("abc")' 0x3
	victim_check
}

@test "a call that takes too long is given up, and others go on" {
	local victim ms

	for victim in $(runnable heapshape=3 heapshape=0 heapshape-32=0 idle idle-32); do
		# shellcheck disable=SC2086
		start_victim ${victim/=/ }
		# One that has not begun in so short a time is called off.
		for ms in 300 3000 30000; do
			probe call "$victim_pid" 'sleep(1000)' --timeout ${ms}ms
			status_is 7
			[[ $stderr != *"aborted"* ]] || break
		done
		[[ $stderr = *"aborted"* ]] || fail "$victim: $stderr"
		returns 'strlen("abc")' 0x3
		victim_check
		stop_victim
	done
}
