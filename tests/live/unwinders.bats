#!/usr/bin/env bats
# The two libraries that unwind stacks, libunwind and libdwfl: what `stack -v` says where they differ,
# on victims, servers and interpreters; and what each kind of frame looks like.

load lib
load servers

setup() {
	make_public_dir
	dir=$public_dir
	# Servers start and end threads as they please.
	# shellcheck disable=SC2034
	victim_threads_vary=1
}

# The libraries find the same frames of every thread. PID [TIMES]
agree_on() {
	local i
	for ((i = 0; i < ${2:-3}; i++)); do
		run timeout -k 5 "$(patience 120)" "$MEMPROBE" stack -v "$1"
		status_is 0
		[[ $output != *"libunwind found"* && $output == *"thread $1 ("* ]] ||
			fail "$output" || return
	done
}

functions() { # TID
	jq -r --argjson tid "$1" '.threads[] | select(.tid == $tid) | .frames[] | .function // "?"' \
		<<<"$output"
}

tid_of() { # NAME
	sed -n "s/^thread \\([0-9]*\\) $1 .*/\\1/p" "$victim_out"
}

check_odd_frames() {
	local tid name wanted rest function
	start_victim "$1"
	probe stack --json -v "$victim_pid"
	status_is 0
	[ "$(grep -c '^thread ' "$victim_out")" = 5 ]
	while read -r tid name wanted; do
		rest=$(functions "$tid")
		for function in $wanted; do
			grep -qx "$function" <<<"$rest" ||
				fail "$name: no $function in" "$(functions "$tid")" || return
			rest=$(sed "0,/^$function\$/d" <<<"$rest")
		done
	done < <(sed -n 's/^thread //p' "$victim_out")
	# What was called nowhere was called by the function that the word on the stack tells.
	[[ $(functions "$(tid_of nowhere)") == *$'\n?\nnowhere\nwork\n'* ]] ||
		fail "$(functions "$(tid_of nowhere)")"
	! functions "$(tid_of tail)" | grep -x passes_on
	# Where nothing can be known it is said, and only there.
	json '[.threads[] | select(.truncated) | .tid] == [$tid]' --argjson tid "$(tid_of nothing)"
	victim_check
}

@test "frames without call frame information, tail calls, calls to nowhere, the vdso" {
	check_odd_frames odd_frames
}

@test "such frames in a static program" {
	check_odd_frames odd_frames-static
}

@test "such frames in a static program at any address" {
	check_odd_frames odd_frames_pie
}

@test "a thread is seen in the vdso, and its callers" {
	start_victim odd_frames
	tid=$(tid_of vdso)
	sees_vdso() {
		probe stack --json -t "$tid" "$victim_pid"
		json '.threads[0].frames | (.[0].module == "[vdso]" and
			any(.[]; .function == "vdso") and any(.[]; .function == "thread_main"))'
	}
	wait_until 120 quietly sees_vdso
	victim_check
}

@test "-v says where the libraries differ, and which one is shown" {
	start_victim odd_frames
	tid=$(tid_of nowhere)
	run timeout -k 5 "$(patience 60)" "$MEMPROBE" stack -v -t "$tid" "$victim_pid"
	status_is 0
	[[ $output =~ thread\ $tid:\ libunwind\ found\ [0-9]+\ frames,\ libdwfl\ [0-9]+\ and\ no\ end:\ those\ of\ libunwind\ are\ shown ]] ||
		fail "$output"
	victim_check
}

# A thread may be caught at an instruction where only one of them knows the way: once, not twice.
@test "both agree on victims of every kind" {
	for victim in altstack callchain callchain-static frames threads threads-static templates \
		idle jitted malloc_load requests stackdepth; do
		start_victim "$victim"
		agree_on "$victim_pid" || agree_on "$victim_pid" || fail "$victim" || return
		stop_victim
	done
}

@test "both agree on redis" {
	start_redis
	load_redis
	adopt "$server"
	agree_on "$server" 10
	still_under_load
	victim_check
}

@test "both agree on mariadbd" {
	start_mariadbd
	load_mariadbd
	adopt "$server"
	agree_on "$server" 10
	still_under_load
	victim_check
}

@test "both agree on nginx" {
	start_nginx
	load_nginx
	adopt "$worker"
	agree_on "$worker" 10
	still_under_load
	victim_check
}

# In code that is compiled at run time, by frame pointers, and behind it again by the files' own.
@test "both agree on node, through its JIT code" {
	need node
	cat >"$dir/work.js" <<-'EOF'
		function inner(n) { let s = 0; for (let i = 0; i < 1e5; i++) s += Math.sqrt(i * n); return s; }
		function outer(n) { return [1, 2, 3].map(x => inner(x * n)).reduce((a, b) => a + b); }
		let n = 0;
		setInterval(() => { const end = Date.now() + 50; while (Date.now() < end) outer(n++); }, 1);
		setTimeout(() => console.log('ready'), 500);
	EOF
	background node node --interpreted-frames-native-stack "$dir/work.js"
	wait_for 120 grep -q ready "$dir/node.log"
	adopt "$pid"
	sees_jit_code() {
		probe stack --json -t "$pid" "$pid"
		json '.threads[0] | (.truncated | not) and any(.frames[]; .module == null) and
			any(.frames[]; .function == "main" or .function == "_start")'
	}
	wait_until 120 quietly sees_jit_code
	agree_on "$pid" 5
	victim_check
}

@test "both agree on java, through its JIT code" {
	need java
	need javac
	cat >"$dir/Work.java" <<-'EOF'
		public class Work {
			static double inner(int n) { double s = 0; for (int i = 0; i < 100000; i++) s += Math.sqrt(i * n); return s; }
			static double outer(int n) { return inner(n) + 1; }
			public static void main(String[] arguments) {
				new Thread(() -> { double s = 0; for (int i = 0; ; i++) s += outer(i); }).start();
				double s = 0;
				for (int i = 0; ; i++) { s += outer(i); if (i == 1000) System.out.println("ready"); }
			}
		}
	EOF
	timeout "$(patience 120)" javac -d "$dir" "$dir/Work.java"
	background java java -Xmx128m -XX:+PreserveFramePointer -cp "$dir" Work
	wait_for 120 grep -q ready "$dir/java.log"
	adopt "$pid"
	agree_on "$pid" 5
	probe stack --json "$pid"
	json 'any(.threads[]; (.truncated | not) and any(.frames[]; .module == null) and
		any(.frames[]; .function != null and (.function | contains("JavaCalls"))))'
	victim_check
}
