#!/usr/bin/env bash
# The demonstration: a server with a leak, and what memprobe says about it while it serves.
# `make demo` runs it; BUILD is where memprobe and the server were built.
set -u
cd "$(dirname "$0")/../.." || exit 1
BUILD=${BUILD:-build}
memprobe=$BUILD/memprobe
leaky=$BUILD/demo/leaky
failed=0

work=$(mktemp -d) || exit 1
server=
finish() {
	[ -n "$server" ] && kill "$server" 2>/dev/null
	rm -rf "$work"
}
trap finish EXIT
trap 'exit 130' INT TERM

bold='' plain=''
[ -t 1 ] && bold=$'\e[1m' plain=$'\e[0m'
say() {
	printf '\n%s%s%s\n' "$bold" "$*" "$plain"
}
problem() {
	echo "demo: $*" >&2
	failed=1
}
show() { # COMMAND...: as a user would type it
	printf '%s$ memprobe %s%s\n\n' "$bold" "$*" "$plain"
	timeout -k 5 300 "$memprobe" "$@" || problem "memprobe $* failed with status $?"
}
rss() {
	awk '/^VmRSS/ { print int($2 / 1024) " MB" }' "/proc/$server/status"
}
client() { # COUNT
	timeout 300 "$leaky" client "$port" "$1"
}

traffic() { # while something is recorded
	until [ -e "$work/recorded" ]; do
		client 4000 >/dev/null || return 1
	done
}

# The server ends by itself after fifteen minutes, whatever becomes of this script.
"$leaky" server "$work/port" 900 &
server=$!
for _ in $(seq 600); do
	[ -s "$work/port" ] && break
	kill -0 "$server" 2>/dev/null || break
	sleep 0.05
done
[ -s "$work/port" ] || {
	echo 'demo: the server did not start' >&2
	exit 1
}
port=$(cat "$work/port")

say "A server with a leak runs as process $server. It has answered:"
client 20000 || problem 'the server gave a wrong answer'
echo "Its RSS is $(rss). What holds it?"

say 'The answer in short, and what to type next:'
show "$server"

say '1. By type: nearly all of it is the heap, not files, stacks or arenas. Reading this stops nothing.'
show maps "$server" --by-type

say '2. The allocator says: most of that heap is free memory that it keeps, a part is in use.'
show mallinfo "$server"

say '3. Give the free part back to the system: malloc_trim() runs inside the server, one thread waits.'
before=$(rss)
show trim "$server"
echo "(RSS as the kernel shows it: $before before, $(rss) after)"

say '4. What is in use? The bytes of the heap, into a file:'
heap=$(awk '$6 == "[heap]" { split($1, part, "-"); print "0x" part[1], "0x" part[2] }' \
	"/proc/$server/maps")
# shellcheck disable=SC2086
show dump "$server" $heap -o "$work/heap.bin"
found=$(grep -ao 'unrouted request: channel=fax' "$work/heap.bin" 2>/dev/null | wc -l)
echo "$ grep -ao 'unrouted request: channel=fax' heap.bin | wc -l"
echo "$found"
echo 'That is the leak: requests of the unknown channel "fax" are never deleted (5000 were sent).'
[ "$found" -ge 5000 ] || problem "the dump holds $found of 5000 leaked requests"

echo
echo 'Without a file: the texts that repeat most, and the blocks that they lie in:'
show strings "$server" --in heap --top 3 --min-length 20
show find "$server" channel=fax --in heap --max 2

say '5. The same without knowing what to look for: the C++ class of every block, out of a frozen copy.'
show heap "$server" --top 4

say '6. And nothing points to them any more:'
show leaks "$server" --top 3

say '7. Who allocates it? Recorded with stacks, while the server answers requests:'
traffic &
traffic=$!
show allocs "$server" -d 2 --reachable --top 3 | tee "$work/allocs"
show allocs "$server" -d 1 -o "$work/unfreed.svg"
touch "$work/recorded"
wait "$traffic" || problem 'the server gave a wrong answer while it was recorded'
echo "(unfreed.svg is a flame graph for the browser: $(wc -c <"$work/unfreed.svg") bytes)"
awk '/^ *BYTES/ { getline; print; exit }' "$work/allocs" | grep -q make_request ||
	problem 'the recording does not show make_request on top'
grep -q make_request "$work/unfreed.svg" || problem 'the flame graph lacks make_request'

say 'And the server? It goes on as if nothing had been:'
client 2000 || problem 'the server gave a wrong answer afterwards'
state=$(awk '/^(State|TracerPid)/ { print $2 }' "/proc/$server/status" | tr '\n' ' ')
case $state in
'S 0 ' | 'R 0 ') ;;
*) problem "the server's state and tracer are: $state" ;;
esac

if [ "$failed" -eq 0 ]; then
	say 'Done. On your own process: memprobe maps PID --by-type; memprobe -h lists the rest.'
else
	say 'The demonstration FAILED: see the lines that begin with "demo:" above.'
fi
exit "$failed"
