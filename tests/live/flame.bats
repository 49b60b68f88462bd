#!/usr/bin/env bats
# flame: what it reads, what it writes, and whether others can read that; the graph in a browser.

load lib

setup() {
	cd "$BATS_TEST_TMPDIR"
	cat >in.folded <<-'END'
		main;event_loop;serve;MapInsert;malloc 400
		main;event_loop;serve;inflate;malloc 300
		main;event_loop;serve 100
		main;event_loop;idle(std::set<a_name_that_is_long, enough_to_be_cut>) 150
		main;shutdown 50
	END
	sort in.folded >in.sorted
}

# By two readers that are not ours: well-formed, and without anything from outside.
assert_svg() { # FILE
	python3 -c 'import sys, xml.dom.minidom; xml.dom.minidom.parse(sys.argv[1])' "$1"
	if command -v xmllint >/dev/null; then
		xmllint --noout --nonet "$1"
	fi
	# The names of XML's and HTML's namespaces are no addresses that are fetched.
	run grep -noE '(https?|ftp|file|data):[^"'\'' ]*|@import|url\(|xlink|<!DOCTYPE|<!ENTITY' "$1"
	output=$(grep -vE ':http://www\.w3\.org/(2000/svg|1999/xhtml)$' <<<"$output" || true)
	[ -z "$output" ] || fail "it refers to the outside:" "$output"
}

# ---- formats ----

@test "folded stacks become a flame graph that refers to nothing outside" {
	probe flame in.folded -o out.svg --title 'a <title> & "more"' --subtitle 'of a test'
	[ "$status" -eq 0 ]
	[ -z "$output$stderr" ]
	assert_svg out.svg
	grep -q '>a &lt;title&gt; &amp; &quot;more&quot;<' out.svg
	grep -q '^800 samples, 80.00 %</title>' out.svg
	[ "$(stat -c %a out.svg)" = 600 ]
}

@test "without -o the graph goes to stdout, from stdin" {
	run -0 memprobe flame - --inverted --reverse --width 800 --color hot --countname faults <in.folded
	echo "$output" >out.svg
	assert_svg out.svg
	grep -q 'width="800"' out.svg
	grep -q '^700 faults, 70.00 %</title>' out.svg
	grep -q 'merged from the leaf' out.svg
}

@test "the ending chooses the format, and folded and JSON come back as they were" {
	run -0 memprobe flame in.folded -o out.folded
	sort out.folded | diff - in.sorted
	run -0 memprobe flame in.folded -o out.json
	run -0 cat out.json
	json '.schema == "memprobe/1" and .command == "flame" and .totals.bytes == 1000 and
		(.sites | length) == 5 and .sites[0].frames[0] == "main"'
	run -0 memprobe flame out.json -f
	sort <<<"$output" | diff - in.sorted
	run -0 memprobe flame in.folded --json
	json '.sites[4] == {"frames": ["main", "shutdown"], "bytes": 50}'
	run -0 memprobe flame in.folded --format=table --color=always
	[[ $output = *$'\e['* ]]
	run -0 memprobe flame in.folded --format=table --color=never
	[[ $output != *$'\e['* ]]
	run -0 memprobe flame in.folded --format=table --top 1
	[[ $output = *"400   40.0%  MapInsert  serve < event_loop < main"* ]]
	[[ $output = *"and 4 more sites" ]]
}

@test "JSON of a recording has counts, what is unreachable, and a title" {
	cat >in.json <<-'END'
		{"schema": "memprobe/1", "command": "allocs", "target": {"pid": 314, "name": "redis"},
		 "sites": [{"frames": ["main", "leak"], "count": 3, "bytes": 3000, "unreachable_bytes": 3000},
			{"frames": ["main", "keep"], "count": 1, "bytes": 1000, "unreachable_bytes": 0}]}
	END
	run -0 memprobe flame in.json -o out.svg
	assert_svg out.svg
	grep -q '>redis 314: allocs<' out.svg
	grep -q '^2.9K (3,000 bytes), 75.00 %, count 3, unreachable 2.9K (3,000 bytes), 100.0 % of it<' out.svg
	grep -q '>nothing points to it<' out.svg
	run -0 memprobe flame in.json -o out.pb.gz
	run -0 "$ROOT/tests/live/pprof.py" out.pb.gz
	json '[.sample_types[].type] == ["inuse_objects", "inuse_space", "unreachable_objects",
		"unreachable_space"][0:2] + ["unreachable_space"]'
	json '.samples[0].values == [3, 3000, 3000] and .default_sample_type == "inuse_space"'
}

@test "pprof is what was read" {
	run -0 memprobe flame in.folded -o out.pb.gz --countname bytes
	run -0 "$ROOT/tests/live/pprof.py" out.pb.gz
	json '.sample_types == [{"type": "inuse_space", "unit": "bytes"}]'
	json '[.samples[] | {n: .values[0], s: [.locations[].lines[0]]}] |
		map(select(.n == 300)) == [{n: 300, s: ["malloc:0", "inflate:0", "serve:0", "event_loop:0", "main:0"]}]'
	json '([.samples[].values[0]] | add) == 1000 and (.functions | length) == 8'
}

@test "go tool pprof reads it" {
	command -v go >/dev/null || skip "no go: pprof.py has decoded the same"
	run -0 memprobe flame in.folded -o out.pb.gz --countname bytes
	export HOME=$BATS_TEST_TMPDIR
	run -0 timeout "$(patience 60)" go tool pprof -top -unit=b out.pb.gz
	grep -qE '^ +700B +70.00%.* 700B +70.00% +malloc$' <<<"$output" || fail "$output"
	grep -qE '^ +0 +0%.* 1000B +100% +main$' <<<"$output" || fail "$output"
}

@test "go tool pprof shows callers, and takes one from another" {
	command -v go >/dev/null || skip "no go: pprof.py has decoded the same"
	export HOME=$BATS_TEST_TMPDIR
	sed 's/400$/150/; /shutdown/d; s/inflate;malloc 300/inflate;malloc 310/' in.folded >old.folded
	run -0 memprobe flame in.folded -o new.pb.gz --countname bytes
	run -0 memprobe flame old.folded -o old.pb.gz --countname bytes
	run -0 timeout "$(patience 60)" go tool pprof -peek 'malloc$' -unit=b new.pb.gz
	grep -qE '^ +400B +57.14% \| +MapInsert$' <<<"$output" || fail "$output"
	grep -qE '^ +300B +42.86% \| +inflate$' <<<"$output" || fail "$output"
	run -0 timeout "$(patience 60)" go tool pprof -top -unit=b -base old.pb.gz new.pb.gz
	grep -qE '^ +240B .* 240B +[0-9.]+% +malloc$' <<<"$output" || fail "$output"
	grep -qE '^ +50B .* 50B +[0-9.]+% +shutdown$' <<<"$output" || fail "$output"
	grep -qE '^ +0 .* 290B +93.55% +main$' <<<"$output" || fail "$output"
	run -0 timeout "$(patience 60)" go tool pprof -top -unit=b -diff_base old.pb.gz new.pb.gz
	grep -qE '^ +-10B .* inflate$|^ +0 .* -10B .* inflate$' <<<"$output" || fail "$output"
	run -0 timeout "$(patience 60)" go tool pprof -traces -unit=b new.pb.gz
	[ "$(grep -cE '^ +[0-9]+B ' <<<"$output")" -eq 5 ] || fail "$output"
}

@test "go tool pprof draws it" {
	command -v go >/dev/null || skip "no go"
	command -v dot >/dev/null || skip "no dot of graphviz"
	export HOME=$BATS_TEST_TMPDIR
	run -0 memprobe flame in.folded -o out.pb.gz --countname bytes
	run -0 timeout "$(patience 60)" go tool pprof -svg -unit=b -output=graph.svg out.pb.gz
	python3 -c 'import sys, xml.dom.minidom; xml.dom.minidom.parse(sys.argv[1])' graph.svg
	# A box for each function that holds any, and an arrow with what goes along it.
	for name in main event_loop serve MapInsert inflate malloc; do
		grep -q ">$name<" graph.svg || fail "no box for $name"
	done
	grep -q '<title>.*MapInsert.*malloc (400B)</title>\|MapInsert &#45;&gt; malloc (400B)' graph.svg ||
		fail "$(grep malloc graph.svg)"
}

@test "perf script and stap are read" {
	cat >in.perf <<-'END'
		redis  12/13 [000] 1.5: 1 page-faults:u:
			    7f12aa001234 memset+0x12 (/lib/libc.so.6)
			          401136 main+0x1a (/tmp/a.out)

		redis  12/13 [000] 1.6: 1 page-faults:u:
			    7f12aa001238 memset+0x16 (/lib/libc.so.6)
			          401136 main+0x1a (/tmp/a.out)
	END
	run -0 memprobe flame in.perf -f
	[ "$output" = "redis;main;memset 2" ]
	# Each sample stands for as many events as its period says.
	sed -i 's/1.6: 1 /1.6:       4095 /' in.perf
	run -0 memprobe flame in.perf -f
	[ "$output" = "redis;main;memset 4096" ]
	probe flame in.perf -o out.svg
	status_is 0
	[ -z "$stderr" ]
	grep -q '^4,096 page-faults, 100.00 %' out.svg
	sed 's/page-faults/cycles/' in.perf >>in.perf
	probe flame in.perf -f
	[ "$output" = "redis;main;memset 4096" ]
	[[ $stderr == *'2 samples are of other events than the first, and left out' ]] || fail "$stderr"
	cat >in.stap <<-'END'
		 0x7ff01234 : malloc+0x0/0x1c0 [/usr/lib/libc.so.6]
		 0x401136 : main+0x16/0x40 [/tmp/a.out]
		12

	END
	run -0 memprobe flame in.stap -f
	[ "$output" = "main;malloc 12" ]
}

@test "what perf records of a victim is read, faults counted" {
	command -v perf >/dev/null || skip "no perf"
	# Each fault is a sample.
	perf record -o perf.data -e page-faults -c 1 -g "$VICTIMS/leaks" 100 1 </dev/null >/dev/null 2>&1 ||
		skip "perf may not record here"
	perf script -i perf.data >in.perf 2>/dev/null
	samples=$(grep -cE ': +1 page-faults' in.perf)
	[ "$samples" -gt 100 ]
	run -0 memprobe flame - -f <in.perf
	[ "$(awk '{ sum += $NF } END { print sum }' <<<"$output")" -eq "$samples" ]
	grep -qE '^leaks;.*main.*;plant;.* [0-9]+$' <<<"$output" || fail "$output"
	run -0 memprobe flame - -o out.svg <in.perf
	assert_svg out.svg
}

@test "growth against an older recording" {
	sed 's/400$/100/; /shutdown/d' in.folded >old.folded
	run -0 memprobe flame in.folded --diff old.folded -o out.svg
	assert_svg out.svg
	grep -q '^400 samples, 40.00 %; +300 samples, +300.0 %</title>' out.svg
	grep -q '^50 samples, 5.00 %; +50 samples, new</title>' out.svg
	grep -q '>1,000 samples.*+350 samples, +53.8 %<' out.svg
}

@test "what only the older recording has is as wide as it was there, and counts nothing" {
	{ cat in.folded; echo 'main;event_loop;serve;was_here;malloc 500'; echo 'main;was 100'; } >old.folded
	run -0 memprobe flame in.folded --diff old.folded -o out.svg
	assert_svg out.svg
	grep -q 'data-f="0,0,1600" data-v="1000"><title>all$' out.svg
	[ "$(grep -c 'rect class="c[0-9]* old" x=.*y="[0-9]*" width="[1-9]' out.svg)" -eq 4 ] || fail "$(<out.svg)"
	grep -A1 '<title>was$' out.svg | grep -q '^0 samples, 0.00 %; −100 samples, -100.0 %</title>'
	# It is no part of other formats.
	run -0 memprobe flame in.folded --diff old.folded -f
	sort <<<"$output" | diff - in.sorted
	# All may have gone.
	echo 'main;other 0' >new.folded
	run -0 memprobe flame new.folded --diff old.folded -o out.svg
	assert_svg out.svg
	grep -q 'data-f="0,0,1600" data-v="0"><title>all$' out.svg
}

# ---- what is wrong ----

@test "garbage lines are left out and counted" {
	printf 'good 1\nno number\nminus -4\ntoo 99999999999999999999\nnul\0 7\n\377\001<&> 5' >in.bad
	probe flame in.bad -o out.svg
	[ "$status" -eq 6 ]
	[[ $stderr = *"in.bad: 4 of 6 lines are left out for making no sense; the first is line 2"* ]]
	assert_svg out.svg
	grep -qF '<title>\xff\x01&lt;&amp;&gt;' out.svg
}

@test "nothing but garbage fails and writes nothing" {
	tr -d 0-9 </dev/urandom | head -c 100000 >in.random
	: >in.empty
	echo '{"sites": []}' >in.nosites
	echo '{"sites": [' >in.cut
	echo '{"mappings": []}' >in.other
	for file in in.random in.empty in.nosites in.cut in.other in.absent .; do
		probe flame "$file" -o out.svg
		[ "$status" -eq 1 ] || fail "$file: $status"
		[ "$(grep -c '^memprobe: ' <<<"$stderr")" -ge 1 ]
		[ ! -e out.svg ]
	done
}

@test "options that make no sense are refused" {
	for options in '--color=pink' '--width=0' '--width=wide' '--min-width=-1' '--color=diff' \
		'--format=png' '-f --json' '--diff=-'; do
		probe flame - $options <in.folded
		[ "$status" -eq 2 ] || fail "$options: $status"
		[[ -z $stdout || $options = *--json ]]
	done
}

@test "an ending that names no format is refused, and .txt is a table" {
	for name in x.bogus dir.d/x.pb ./.hidden.SVG; do
		mkdir -p dir.d
		probe flame in.folded -o "$name"
		status_is 2
		[ "$stderr" = "memprobe: no format is known by the ending of $name
hint: there are .txt (a table), .json, .folded, .svg, .pb.gz; or use --format" ] || fail "$stderr"
		[ ! -e "$name" ]
	done
	run -0 memprobe flame in.folded -o x.bogus --format=folded
	sort x.bogus | diff - in.sorted
	for name in x.txt .x.txt; do
		run -0 memprobe flame in.folded -o $name
		grep -qE "^ *400   40.0%  MapInsert +serve < event_loop < main$" $name
	done
	for name in x dir.d/x .hidden; do
		run -0 memprobe flame in.folded -o $name
		assert_svg $name
	done
	start_victim idle
	for command in allocs faults syscalls; do
		probe $command "$victim_pid" -d 10s -o x.text
		status_is 2
		[ ! -e x.text ]
	done
	victim_check
}

@test "100,000 stacks, deep and long ones" {
	python3 - >in.large <<-'END'
		for i in range(100000):
		    print(";".join(f"function_{i * k % 9973}" for k in range(1, 30)), i % 97 + 1)
		print(";".join(["deep"] * 20000), 3000000)
		print("long" * 300000, 3000000)
	END
	run -0 memprobe flame in.large -o out.svg
	assert_svg out.svg
	[ "$(grep -c '^<g class="f"' out.svg)" -le 40001 ]
	[ "$(stat -c %s out.svg)" -lt 20000000 ]
	run -0 memprobe flame in.large -o out.pb.gz
	run -0 memprobe flame in.large -f -o out.folded
	[ "$(awk '{ sum += $NF } END { print sum }' out.folded)" = \
		"$(awk '{ sum += $NF } END { print sum }' in.large)" ]
}

@test "leaks and heap choose the format by the ending, and refuse an unknown one" {
	start_victim leaks
	for command in leaks heap; do
		probe "$command" "$victim_pid" -o out.bogus
		[ "$status" -eq 2 ]
		[[ $stderr = *"ending of out.bogus"*"hint: there are .txt (a table), .json, .folded, .svg, .pb.gz;"* ]] || fail "$stderr"
		[ ! -e out.bogus ]
		run -0 memprobe "$command" "$victim_pid" -o out.txt
		[ -s out.txt ]
	done
	run -0 memprobe leaks "$victim_pid" -o out.json
	run -0 cat out.json
	json '.command == "leaks" and .totals.live_count > 0'
	victim_check
}

# ---- in a browser ----

browser() {
	local name
	for name in chromium chromium-browser google-chrome; do
		if command -v $name >/dev/null; then
			timeout -k 5 "$(patience 150)" $name --headless --no-sandbox --disable-gpu --disable-dev-shm-usage \
				--user-data-dir="$BATS_TEST_TMPDIR/browser" --window-size=1000,700 "$@" 2>browser.err
			return
		fi
	done
	return 127
}

@test "in a browser: hover, zoom, search, keyboard" {
	command -v chromium chromium-browser google-chrome >/dev/null || skip "no Chromium"
	run -0 memprobe flame in.folded -o out.svg --color mem
	{
		sed '$d' out.svg
		echo '<script><![CDATA['
		cat "$ROOT/tests/live/flame_driver.js"
		printf ']]></script></svg>'
	} >driven.svg
	browser --dump-dom "file://$PWD/driven.svg" >dom || fail "$(cat browser.err)"
	output=$(python3 -c 'import html, re, sys
print(html.unescape(re.search("<desc class=\"result\">RESULT(.*?)END<", sys.stdin.read(), re.S)[1]))' <dom)
	json '.errors == []'
	json '.begin | .count == 10 and .reset == "hidden" and .matched == "" and .hash == ""'
	# As wide as the window, not as the file.
	json '.begin.main > 960 and .begin.main < 980 and (.begin.serve / .begin.main | . > 0.79 and . < 0.81)'
	json '.begin.idle == "idle"'
	json '.hover.details == "serve: 800 bytes, 80.00 %"'
	json '.zoom | .count == 8 and .reset == "visible" and .serve == .main and .hash == "#zoom=4"'
	json '.zoom.shown | contains(["shutdown"]) | not'
	json '.reset | .count == 10 and .reset == "hidden" and .hash == ""'
	json '.reset.serve == .begin.serve and .reset.text == "serve"'
	json '.search | .matched == "Matched: 70.00 % in 2 frames" and .hits == 2'
	json '.search_kept.hash == "#search=%5EMap%7Cinf"'
	json '.escape | .hits == 0 and .matched == "" and .hash == ""'
	json '.capitals.hits == 1 and .wrong.matched == "not a regular expression" and .field_escape.matched == ""'
	json '.click_search.matched == "Matched: 70.00 % in 2 frames" and .click_clear.hits == 0'
	json '.walk.at == "event_loop" and .beside.at == "shutdown" and .beside_again.at == "event_loop"'
	json '.enter | .hash == "#zoom=2" and .count == 9'
	json '.back_up.at == "main" and .home.hash == "" and .home.count == 10 and .leave.at == null'
	json '.turned_root[0] > .turned_root[1]'
}

@test "in a browser: what has gone is there to be zoomed to, and is none of what is found" {
	command -v chromium chromium-browser google-chrome >/dev/null || skip "no Chromium"
	{ cat in.folded; echo 'main;was 1000'; } >old.folded
	run -0 memprobe flame in.folded --diff old.folded -o out.svg --width 1024
	browser --dump-dom "file://$PWD/out.svg#search=was%7CMap" >dom || fail "$(cat browser.err)"
	grep -q 'Matched: 40.00 % in 2 frames' dom
	grep -A1 '<title>was$' dom | grep -q 'width="499.5"' || fail "$(grep -A1 '<title>was$' dom)"
	zoom=$(grep -c '<g class="f[ "]' <(sed '/<title>was$/q' dom))
	browser --dump-dom "file://$PWD/out.svg#zoom=$((zoom - 1))" >dom || fail "$(cat browser.err)"
	grep -A1 '<title>was$' dom | grep -q 'width="999.5"' || fail "$(grep -A1 '<title>was$' dom)"
}

@test "in a browser: an address with zoom and search shows the same" {
	command -v chromium chromium-browser google-chrome >/dev/null || skip "no Chromium"
	run -0 memprobe flame in.folded -o out.svg
	browser --dump-dom "file://$PWD/out.svg#zoom=4&search=malloc" >dom || fail "$(cat browser.err)"
	grep -q 'Matched: 70.00 % in 2 frames' dom
	[ "$(grep -c 'class="f gone"' dom)" -eq 2 ]
	[ "$(grep -c 'class="f above"' dom)" -eq 3 ]
}
