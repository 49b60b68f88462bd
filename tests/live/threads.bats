#!/usr/bin/env bats
# threads: stacks, their use, and arenas; without stopping any.

load lib

@test "every thread, its name and its stack" {
	for variant in $(runnable threads threads-32 threads-static); do
		start_victim $variant 12
		settle
		probe threads "$victim_pid" --json
		status_is 0
		json '.threads | length == 13'
		json '.stopped_us == 0'
		while read -r _ tid name start size; do
			json '.threads[] | select(.tid == $tid) | .name == $name and .state == "S" and
				.stack_start == $start and .stack_size == $size' \
				--argjson tid "$tid" --arg name "$name" --arg start "$start" --argjson size "$size" ||
				fail "$variant $name $start $size"
		done < <(grep '^thread ' "$victim_out")
		json '.threads | all(.stack_used >= .stack_rss and .stack_rss >= 4096 and .stack_used <= .stack_size)'
		victim_check
		stop_victim
	done
}

@test "the arena of each thread" {
	for variant in $(runnable layout layout-32 layout-static); do
		start_victim $variant
		read -r tid heap <<<"$(victim_truth worker)"
		probe threads "$victim_pid" --json
		status_is 0
		# A malloc_state stands a few words behind its heap's start.
		arena=$(json_get '.threads[] | select(.tid == $tid) | .arena' --argjson tid "$tid")
		[ $((arena - heap)) -ge 16 ] && [ $((arena - heap)) -le 48 ]
		json '.threads[] | select(.tid == $pid) | .arena != null and .arena != $arena' \
			--argjson pid "$victim_pid" --arg arena "$arena"
		stop_victim
	done
}

# The pages that are there of each 32 MiB of the mappings of so much, the stacks: glibc 2.42 lets the
# kernel merge them.
stack_pages() {
	python3 - "$victim_pid" <<'END'
import struct, sys
pid = sys.argv[1]
with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/pagemap", "rb", buffering=0) as table:
    for line in maps:
        start, end = (int(part, 16) for part in line.split()[0].split("-"))
        while end - start >= 32 << 20 and line.split()[1] == "rw-p":
            table.seek(start // 4096 * 8)
            entries = struct.iter_unpack("<Q", table.read((32 << 20) // 4096 * 8))
            print(hex(start), *(at for at, (entry,) in enumerate(entries) if entry >> 62))
            start += 32 << 20
END
}

@test "looking at stacks and arenas touches no page of a stack" {
	local before
	for variant in $(runnable layout layout-32); do
		start_victim $variant 6 32768
		settle
		before=$(stack_pages)
		[ "$(wc -l <<<"$before")" -ge 6 ]
		for command in threads maps mallinfo stack; do
			probe $command "$victim_pid"
			status_is 0
			settle
			[ "$before" = "$(stack_pages)" ] || fail "$command: $before" "$(stack_pages)"
		done
		probe maps "$victim_pid" --json
		rss=$(json_get '[.mappings[] | select(.type == "thread-stack") | .rss] | add')
		probe threads "$victim_pid" --json
		# The kernel may have merged neighbours with a stack: 64 KiB at most.
		json '[.threads[] | select(.tid != $pid) | .stack_rss] | add | . <= $rss and . + 65536 >= $rss' \
			--argjson rss "$rss" --argjson pid "$victim_pid"
		victim_check
		stop_victim
	done
}

@test "deepest use is seen, not only what is in use now" {
	start_victim stackdepth 200
	read -r tid bytes <<<"$(victim_truth deep)"
	probe threads "$victim_pid" --json
	json '.threads[] | select(.tid == $tid) | .stack_used >= $bytes and .stack_used < $bytes + 65536' \
		--argjson tid "$tid" --argjson bytes "$bytes"
	probe threads "$victim_pid" --by-size --json
	json '.threads[0].tid == $tid' --argjson tid "$tid"
	victim_check
}

@test "a 32-bit process whose stacks take the address space gets a verdict" {
	start_victim layout-32 60 32768
	probe threads "$victim_pid"
	status_is 0
	[[ $output = *'ulimit -s'*pthread_attr_setstacksize* ]]
	probe threads "$victim_pid" --json
	json '.verdict | contains("61 stacks") or contains("62 stacks")'
	# Under a 64-bit kernel.
	json '.verdict | contains("has 4 GiB in all")'
	json '.totals.stack_size > 1900000000 and .totals.stack_used < 4000000'
	probe maps "$victim_pid" --by-size
	grep -qE '^ *(59|60) +32\.0M | thread-stack +stacks of (59|60|61) threads$' <<<"$output"
	[[ $stderr = *'memprobe threads'* ]]
	[[ $stderr =~ 'thread stacks take '4[678]' % of the address space' ]]
	victim_check
	stop_victim
	start_victim layout-32 3 256
	probe threads "$victim_pid" --json
	json '.verdict == null'
}
