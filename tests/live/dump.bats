#!/usr/bin/env bats
# dump: bytes, holes, types as ranges, hex, and everything that can be wrong.

load lib

file() {
	echo "$BATS_TEST_TMPDIR/$1"
}

# The same range, read by other means: /proc/PID/mem, page by page, zeros for what cannot be read.
reference() { # START END FILE
	python3 - "$victim_pid" "$@" <<'PY'
import os, sys
pid, start, end, path = sys.argv[1], int(sys.argv[2], 0), int(sys.argv[3], 0), sys.argv[4]
memory = os.open(f"/proc/{pid}/mem", os.O_RDONLY)
with open(path, "wb") as out:
    while start < end:
        size = min(4096 - start % 4096, end - start)
        try:
            out.write(os.pread(memory, size, start))
        except OSError:
            out.write(bytes(size))
        start += size
PY
}

@test "a range with untouched pages, a gap, and data behind PROT_NONE" {
	for variant in $(runnable layout layout-32); do
		start_victim $variant
		read -r start end <<<"$(victim_truth holes)"
		probe dump "$victim_pid" "$start" "$end" -o "$(file out)" --json
		status_is 6
		reference "$start" "$end" "$(file reference)"
		cmp "$(file out)" "$(file reference)"
		[ "$(stat -c %a "$(file out)")" = 600 ]
		gap=$(printf '0x%x' $((start + 12 * 4096)))
		json '.missing == [{start: $gap, end: $behind}] and .bytes == 65536 and .file == $file' \
			--arg gap "$gap" --arg behind "$(printf '0x%x' $((gap + 4096)))" --arg file "$(file out)"
		json '.stopped_us == 0 and (.warnings | length) == 1'
		# Pages 1 to 7 and 12 take no room.
		[ "$(stat -c %b "$(file out)")" -le $((8 * 8)) ]
		victim_check
		stop_victim
	done
}

@test "forms of a range: START END, START-END, START+SIZE, hex without 0x, misaligned" {
	start_victim layout
	read -r start _ <<<"$(victim_truth holes)"
	probe dump "$victim_pid" "$start" "$(printf '0x%x' $((start + 6)))"
	status_is 0
	[ "$stdout" = "page 0" ]
	probe dump "$victim_pid" "$start-$(printf '%x' $((start + 6)))"
	status_is 0
	[ "$stdout" = "page 0" ]
	probe dump "$victim_pid" "$start-" -o "$(file out)"
	status_is 2
	probe dump "$victim_pid" "$start-$start" -o "$(file out)"
	status_is 2
	probe dump "$victim_pid" "$start+6"
	[ "$stdout" = "page 0" ]
	probe dump "$victim_pid" "${start#0x}+0x6" -o -
	[ "$stdout" = "page 0" ]
	memprobe dump "$victim_pid" "$(printf '0x%x' $((start + 4095)))+2" | cmp - <(printf 'x\0')
	memprobe dump "$victim_pid" "$start+12K" >"$(file out)"
	[ "$(stat -c %s "$(file out)")" -eq 12288 ]
}

@test "a type is all its mappings, one after the other" {
	start_victim heapshape 2
	probe dump "$victim_pid" heap -o "$(file heap)" --json
	status_is 0
	json '.ranges | length == 1'
	reference "$(json_get '.ranges[0].start')" "$(json_get '.ranges[0].end')" "$(file reference)"
	cmp "$(file heap)" "$(file reference)"
	probe dump "$victim_pid" arena -o "$(file arenas)" --json
	status_is 0
	json '.ranges | length >= 1'
	json '([.ranges[] | .offset] | sort) == [.ranges[] | .offset] and .ranges[0].offset == 0'
	[ "$(json_get .bytes)" -eq "$(stat -c %s "$(file arenas)")" ]
	# Two arenas' reserve is most of 128 MiB, and none of it takes room.
	[ "$(stat -c %s "$(file arenas)")" -ge $((128 << 20)) ]
	[ "$(stat -c %b "$(file arenas)")" -lt $(((100 << 20) / 512)) ]
	probe dump "$victim_pid" shm -o "$(file shm)"
	status_is 1
	[[ $stderr = *"hint: it has: "*" heap arena "* ]]
	[ ! -e "$(file shm)" ]
	victim_check
}

@test "a pipe gets zeros where a file has holes" {
	start_victim layout
	read -r start end <<<"$(victim_truth holes)"
	reference "$start" "$end" "$(file reference)"
	memprobe dump "$victim_pid" "$start" "$end" 2>/dev/null | cmp - "$(file reference)"
	memprobe dump "$victim_pid" "$start" "$end" -o - 2>/dev/null >"$(file out)" || true
	cmp "$(file out)" "$(file reference)"
}

@test "hex dump" {
	start_victim layout
	read -r start end <<<"$(victim_truth holes)"
	probe dump "$victim_pid" "$start+32" -x
	status_is 0
	[ "${#lines[@]}" -eq 3 ]
	[[ ${lines[0]} = 0000"${start#0x}  70 61 67 65 20 30 78 78  78 78 78 78 78 78 78 78  |page 0xxxxxxxxxx|" ]]
	probe dump "$victim_pid" "$start" "$end" --hex
	status_is 6
	[[ $output = *'|page 8xxxxxxxxxx|'* ]]
	[[ $output = *'not mapped or not readable'* ]]
	[ "${#lines[@]}" -lt 30 ]
	probe dump "$victim_pid" "$start+16" -x -o "$(file hex)"
	status_is 0
	grep -q 'page 0' "$(file hex)"
}

@test "an existing file is replaced, and kept if the dump fails" {
	start_victim layout
	read -r start _ <<<"$(victim_truth holes)"
	echo before >"$(file out)"
	chmod 644 "$(file out)"
	probe dump "$victim_pid" "0x1000+4096" -o "$(file out)"
	status_is 1
	[ "$(cat "$(file out)")" = before ]
	probe dump "$victim_pid" "$start+6" -o "$(file out)"
	status_is 0
	[ "$(cat "$(file out)")" = "page 0" ]
	[ "$(stat -c %a "$(file out)")" = 600 ]
	[ "$(find "$BATS_TEST_TMPDIR" -name 'out*' | wc -l)" -eq 1 ]
	mkdir "$(file directory)"
	probe dump "$victim_pid" "$start+6" -o "$(file directory)"
	status_is 1
	probe dump "$victim_pid" "$start+6" -o "$(file 'no such/file')"
	status_is 1
	victim_check
}

@test "a full disk is exit 1" {
	start_victim layout
	read -r start _ <<<"$(victim_truth holes)"
	probe dump "$victim_pid" "$start+4096" -o /dev/full
	status_is 1
	[[ $stderr = *'no space'* ]]
	run --separate-stderr bash -c '"$1" dump "$2" "$3" >/dev/full' - "$MEMPROBE" "$victim_pid" "$start+4096"
	status_is 1
	run --separate-stderr bash -c '"$1" dump "$2" "$3" -x >/dev/full' - "$MEMPROBE" "$victim_pid" "$start+4096"
	status_is 1
	victim_check
}

@test "ranges that are none are exit 2" {
	start_victim layout
	read -r start end <<<"$(victim_truth holes)"
	for wrong in "$end $start" "$start $start" "$start+0" "0xffffffffffffffff+1" "0xffffffffffffffff+2" \
		"0x1+16E" "$start" "nonsense" "$start+x" "+16" "0x+16" "$start+" "0x10000000000000000 0x2" \
		"heap stack" "$start+16 heap" "-- -1 5"; do
		# shellcheck disable=SC2086
		probe dump "$victim_pid" $wrong -o "$(file out)"
		status_is 2 || fail "$wrong"
		[ ! -e "$(file out)" ]
	done
	probe dump "$victim_pid"
	status_is 2
	probe dump "$victim_pid" heap --json
	status_is 2
	probe dump "$victim_pid" heap --json -o -
	status_is 2
	probe dump "$victim_pid" heap --json -x
	status_is 2
}

@test "ranges of which nothing is mapped are exit 1, without a file" {
	start_victim layout
	for nothing in "0 4096" "0x1000+0x1000" "0xfffffffffffff000+4095"; do
		# shellcheck disable=SC2086
		probe dump "$victim_pid" $nothing -o "$(file out)"
		status_is 1 || fail "$nothing"
		[ ! -e "$(file out)" ]
	done
	# Mapped, but not to be read by anybody.
	vvar=$(sed -n 's/-.*\[vvar\]$//p' "/proc/$victim_pid/maps")
	probe dump "$victim_pid" "$vvar+4096" -o "$(file out)"
	[ "$status" -eq 1 ] || [ "$status" -eq 0 ]
	[ "$status" -eq 0 ] || [ ! -e "$(file out)" ]
	victim_check
}

@test "raw bytes do not go onto a terminal" {
	start_victim layout
	run script -qec "$MEMPROBE dump $victim_pid stack" /dev/null
	[ "$status" -eq 2 ]
	[[ $output = *'-o FILE, or -x'* ]]
	run script -qec "$MEMPROBE dump $victim_pid stack -x" /dev/null
	[ "$status" -eq 0 ]
}

@test "a target that vanishes midway is no success" {
	start_victim heapshape
	mkfifo "$(file fifo)"
	memprobe dump "$victim_pid" heap -o "$(file fifo)" 2>"$(file err)" &
	dumper=$!
	exec {reader}<"$(file fifo)"
	head -c 4096 <&$reader >/dev/null
	stop_victim
	cat <&$reader >/dev/null
	wait $dumper && fail "exit 0" || [ $? -eq 1 ]
	exec {reader}<&-
}
