#!/bin/sh
# Proves that includes point down only. The rows are those of the layer table in CONTRIBUTING.md;
# a header of include/memprobe/ belongs to the folder of the source file that bears its name; what
# lies deeper (src/heap/allocators/) to the outer folder.
# What src/agent/ shares with the rest is included as "agent/NAME.h": its abi.h, *_abi.h and *_walk.h,
# by stack/ and record/. The agent itself includes nothing but its own headers and the compiler's.
set -eu
cd "$(dirname "$0")/.."

row() {
	case $1 in
	base) echo 0 ;;
	proc | arch) echo 1 ;;
	target) echo 2 ;;
	live | stack) echo 3 ;;
	heap | record) echo 4 ;;
	analysis) echo 5 ;;
	report) echo 6 ;;
	cmd) echo 7 ;;
	agent) echo agent ;;
	*) echo "check-layers: unknown folder $1" >&2; exit 2 ;;
	esac
}

# src/OUTER/...
outer() {
	rest=${1#src/}
	echo "${rest%%/*}"
}

# The folder a header belongs to: of its source file, or for header-only ones as listed.
folder_of() {
	name=${1%.h}
	case $name in
	banned | cleanup | lower_bound | vec | version) echo base; return ;;
	cmd) echo cmd; return ;;
	malloc_code) echo live; return ;;
	esac
	count=0
	for source in src/*/"$name".c src/*/*/"$name".c; do
		[ -e "$source" ] || continue
		count=$((count + 1))
		found=$source
	done
	if [ $count -ne 1 ]; then
		echo "check-layers: include/memprobe/$name.h has no single $name.c in src/" >&2
		exit 2
	fi
	outer "$found"
}

check() { # FILE ITS-FOLDER
	sed -n 's/^#include "memprobe\/\(.*\)"$/\1/p' "$1" | while read -r header; do
		folder=$(folder_of "$header")
		[ "$folder" = "$2" ] && continue
		# Recordings hook the allocator that heap/ has found.
		[ "$2:$folder" = record:heap ] && continue
		if [ "$(row "$folder")" = agent ] || [ "$(row "$2")" = agent ] ||
			[ "$(row "$folder")" -ge "$(row "$2")" ]; then
			echo "$1: $2 (row $(row "$2")) includes memprobe/$header of $folder (row $(row "$folder"))"
		fi
	done
	sed -n 's/^#include "agent\/\(.*\)"$/\1/p' "$1" | while read -r header; do
		case $2:$header in
		agent:* | stack:abi.h | stack:*_abi.h | stack:*_walk.h) ;;
		record:abi.h | record:*_abi.h | record:*_walk.h) ;;
		*) echo "$1: $2 includes agent/$header, which it may not" ;;
		esac
	done
	if [ "$2" = agent ] && grep -n '^#include <' "$1" |
		grep -v '<\(stdint\|stddef\|stdbool\|stdatomic\|limits\|linux\/.*\|asm\/.*\|sys\/syscall\|.*intrin\)\.h>'; then
		echo "$1: the agent has no libc"
	fi
	if grep -n '^#include "\(\.\.\|src\)/' "$1"; then
		echo "$1: includes another folder's private header"
	fi
}

bad=$(
	for file in src/*/*.[chS] src/*/*/*.[chS]; do
		[ -e "$file" ] && check "$file" "$(outer "$file")"
	done
	for file in include/memprobe/*.h; do
		check "$file" "$(folder_of "$(basename "$file")")"
	done
)
if [ -n "$bad" ]; then
	printf '%s\n' "$bad"
	exit 1
fi
