#!/usr/bin/env bats
# allocs --pool: PostgreSQL's contexts, and the pools of libraries, exactly; files that are wrong.

load lib
load postgres
load servers

# Of leak.svg: names and bytes of the frames of a depth; how much lower those of depth 1 are drawn.
frames_at() { # DEPTH
	sed -nE 's/^<g class="f" data-f="'"$1"',[0-9]+,([0-9]+)"><title>(.*)$/\2 \1/p' \
		"$BATS_TEST_TMPDIR/leak.svg"
}

y_of() { # DEPTH
	grep -m1 -A1 "data-f=\"$1," "$BATS_TEST_TMPDIR/leak.svg" | sed -nE 's/.* y="([0-9]+)".*/\1/p'
}

rows_between() {
	echo $(($(y_of 1) - $(y_of 0)))
}

leak() { # FIRST LAST: prepared statements that nobody deallocates
	local i
	for ((i = $1; i <= $2; i++)); do
		echo "prepare p$i as select * from pg_class where relname = \$1 and relpages > $i;"
	done
}

@test "allocs --pool postgres: who fills the contexts, by stack and by context" {
	start_postgres
	start_session
	say "select count(*) from pg_class; $(leak 1000 1002)"
	adopt "$backend"
	record_begin allocs "$backend" --pool postgres --sample 1 --json
	say "$(leak 1 60)"
	record_end
	status_is 0
	json '.pool == "postgres.pool" and .lost == 0 and .rate == 1 and .remaining == 0'
	json '[.contexts[] | select(.name == "CachedPlanSource")] | length == 60'
	json '[.contexts[] | select(.name == "CachedPlanQuery")] | length == 60 and all(.bytes > 1000)'
	json '.contexts | all(.name != null) and (map(.bytes) | add) == ($all | .totals.bytes)' \
		--argjson all "$output"
	json '(.contexts | map(.count) | add) == .totals.count and .allocs - .frees == .totals.count'
	json '.sites | map(select(any(.frames[]; . == "PrepareQuery"))) | map(.bytes) | add > 60000'
	json 'all(.hooks[]; .hooked) and any(.hooks[]; .name == "MemoryContextDelete")'
	echo "$output" >"$BATS_TEST_TMPDIR/leak.json"
	victim_check

	# Merged from the leaf on: next to the root is who asked for memory, whoever called it; inverted,
	# the root is on top.
	for option in --reverse --inverted; do
		probe flame "$BATS_TEST_TMPDIR/leak.json" $option --min-width 0 -o "$BATS_TEST_TMPDIR/leak.svg"
		status_is 0
		first=$([ $option = --reverse ] && echo -1 || echo 0)
		diff <(frames_at 1 | sort) <(jq -r '.sites | group_by(.frames[$n])[] |
			"\(.[0].frames[$n]) \(map(.bytes) | add)"' --argjson n "$first" \
			"$BATS_TEST_TMPDIR/leak.json" | sort) >&2
		# The rectangles of the root and of what is next to it.
		[ "$(rows_between)" $([ $option = --reverse ] && echo -lt || echo -gt) 0 ]
		grep -q '<title>PrepareQuery$' "$BATS_TEST_TMPDIR/leak.svg"
	done

	# What is deallocated again is not there: each has its contexts deleted.
	record_begin allocs "$backend" --pool postgres --sample 1 --json
	say "$(leak 2001 2060)"
	say 'deallocate all;'
	record_end
	status_is 0
	json 'all(.contexts[]; .name != "CachedPlanSource" and .name != "CachedPlanQuery")'
	json '.totals.bytes < 60000 and .counters.recorded > 3000'
	victim_check

	probe allocs "$backend" --pool postgres --sample 1 -d 1
	status_is 0
	[ "$(sql 'select 4711')" = 4711 ]
}

@test "a recording agrees with the walk of the contexts to the byte" {
	start_postgres
	start_session
	# Also loads the library of PL/pgSQL, which would be a change of the process.
	say 'select count(*) from pg_class; do $$ begin perform 1; end $$;'
	adopt "$backend"
	mkfifo "$dir/exact.in"
	exec {exact_in}<>"$dir/exact.in"
	timeout "$(patience 100)" "$BUILD/tests/tools/pg_exact" "$backend" "$ROOT/contrib/pools/postgres.pool" \
		<"$dir/exact.in" >"$dir/exact" 2>&1 3>&- &
	exact=$!
	wait_until 60 grep -q recording "$dir/exact"
	say "$(leak 1 40)"
	for i in 1 2 3 4 5; do
		say "create temp table t$i (a int primary key, b text);
			insert into t$i select g, repeat('x', g) from generate_series(1, 300) g;
			select string_agg(b, ',') is null from t$i; execute p$i('t$i');
			do \$\$ begin for i in 1..50 loop perform a from t$i where a = i; end loop; end \$\$;"
	done
	echo end >&"$exact_in"
	wait $exact || fail "$(cat "$dir/exact")"
	[ "$(sed -n 's/^exact //p' "$dir/exact")" -ge 80 ]
	victim_check
}

@test "what a function leaks into a backend's contexts, and what it only keeps there" {
	nm -D "$VICTIMS/planted_contexts" | grep -q Pg_magic_func ||
		skip 'built without the headers of a server of PostgreSQL'
	start_postgres
	install -m 755 "$VICTIMS/planted_contexts" "$dir/planted.so"
	sql "create function planted_contexts(text, int, int) returns int language c as '$dir/planted.so'" ||
		skip "this server takes no library built with the headers that are here"
	start_session
	plant() { # KIND COUNT SIZE
		say "select planted_contexts('$1', $2, $3);
			select string_agg(g::text, ',') is null from generate_series(1, 1000) g;"
	}
	for kind in leaked kept freed deleted moved; do
		plant $kind 1 10
	done
	adopt "$backend"
	record_begin allocs "$backend" --pool postgres --sample 1 --json --reachable
	plant leaked 17 1000003
	plant kept 70 2000
	plant freed 90 3000
	plant deleted 30 400
	plant moved 20 600
	record_end
	status_is 0
	json '.lost == 0 and .remaining == 0'
	for figures in "leaked 17 17000051" "kept 70 140000" "freed 0 0" "deleted 0 0" "moved 20 12000"; do
		[ "$(json_get '[.sites[] | select(any(.frames[]; . == $f))] |
			"\(map(.count) | add // 0) \(map(.bytes) | add // 0)"' \
			--arg f "plant_${figures%% *}")" = "${figures#* }" ] ||
			fail "not $figures" "$(json_get -c '.sites[] | [.frames[-3:], .count, .bytes]')"
	done
	# Of small ones a third is hidden by old words in memory that was used before.
	json '[.sites[] | select(any(.frames[]; . == "plant_leaked")) | .unreachable_count] | add >= 16'
	json '[.sites[] | select(any(.frames[]; . == "plant_kept")) | .unreachable_count] | add == 0'
	json '[.contexts[] | select(.name == "planted")] | length == 1 and .[0].bytes == 12000'

	# Sampled: a context that holds samples is not lost sight of when it moves.
	record_begin allocs "$backend" --pool postgres --sample 100 --json
	plant moved 200 600
	plant deleted 200 600
	plant freed 200 600
	record_end
	status_is 0
	json '.lost == 0 and ([.sites[] | select(any(.frames[]; . == "plant_moved")) | .bytes] |
		add | . > 110000 and . < 130000)'
	json 'all(.sites[]; all(.frames[]; . != "plant_deleted" and . != "plant_freed"))'
	victim_check
}

wrong() { # LINE MESSAGE
	printf '%s\n' "# a comment" "$1" >"$BATS_TEST_TMPDIR/x.pool"
	probe allocs "$victim_pid" --pool "$BATS_TEST_TMPDIR/x.pool" -d 1
	status_is 2
	[[ $stderr == *"x.pool:2:$2"* ]] || fail "$stderr"
}

@test "what is wrong in a pool file is said with its place" {
	start_victim idle
	wrong 'allot malloc size=arg0' "1: alloc, realloc, free"
	wrong 'alloc malloc' '7: size=ARGUMENT is missing'
	wrong 'alloc malloc size=arg9+' "19: this is no name: 'arg9+'"
	wrong 'alloc maloc size=arg0' "7: idle has no function 'maloc'"
	[[ $stderr == *"hint: there is"*"malloc"* ]] || fail "$stderr"
	wrong 'alloc malloc size=arg0 context=*enviro' "32: idle has no variable 'enviro'"
	[[ $stderr == *"environ"* ]]
	probe allocs "$victim_pid" --pool nothing -d 1
	status_is 2
	[[ $stderr == *"no pool is called 'nothing'"* ]]
	probe allocs "$victim_pid" --pool postgres -d 1
	status_is 2
	[[ $stderr == *"postgres.pool:4:9: idle has no function 'palloc'"* ]]
	probe allocs "$victim_pid" --pool postgres --engine uprobe -d 1
	status_is 2
	[[ $stderr == *"--pool needs the agent"* ]]
	victim_check
}

@test "a program that is copied elsewhere has its pools with it, and files override them" {
	local alone="$BATS_TEST_TMPDIR/alone"
	mkdir -p "$alone/bin" "$alone/config/memprobe/pools"
	cp "$MEMPROBE" "$alone/bin/memprobe"
	export XDG_CONFIG_HOME="$alone/config"
	start_victim idle
	MEMPROBE="$alone/bin/memprobe"
	for pool in contrib/pools/*.pool; do
		pool=$(basename "$pool" .pool)
		probe allocs "$victim_pid" --pool "$pool" -d 1
		status_is 2
		[[ $stderr == *"$pool.pool:"*"idle has no function"* ]] || fail "$stderr"
		probe allocs "$victim_pid" --pool nothing -d 1
		[[ $stderr == *"hint: there are "*"$pool"* ]] || fail "$stderr"
	done
	echo 'alloc of_the_user size=arg0' >"$alone/config/memprobe/pools/apr.pool"
	probe allocs "$victim_pid" --pool apr -d 1
	status_is 2
	[[ $stderr == *"idle has no function 'of_the_user'"* ]] || fail "$stderr"
	mkdir -p "$alone/share/memprobe/pools"
	echo 'alloc installed size=arg0' >"$alone/share/memprobe/pools/glib.pool"
	probe allocs "$victim_pid" --pool glib -d 1
	[[ $stderr == *"idle has no function 'installed'"* ]] || fail "$stderr"
	victim_check
}

@test "a file of one's own: parameters by name, contexts emptied with those below" {
	start_victim poolwork
	cat >"$BATS_TEST_TMPDIR/own.pool" <<-EOF2
		alloc pool_get   context=owner size=bytes
		reset pool_clear context=which
		tree  child=8 next=16
	EOF2
	record_begin allocs "$victim_pid" --pool "$BATS_TEST_TMPDIR/own.pool" --sample 1 --json
	victim_say go
	victim_wait '^done 1$' >/dev/null
	record_end
	status_is 0
	[ "$(json_get '"\(.totals.bytes) \(.totals.count)"')" = "$(victim_truth truth)" ]
	json '.lost == 0 and (.contexts | length) == 1 and .counters.recorded == 10 + 50 * (29 * 2 + 1)'
	json 'all(.sites[]; any(.frames[]; startswith("keep")))'
	sed -i s/bytes/octets/ "$BATS_TEST_TMPDIR/own.pool"
	probe allocs "$victim_pid" --pool "$BATS_TEST_TMPDIR/own.pool" -d 1
	status_is 2
	[[ $stderr == *"own.pool:1:37: it has no parameter 'octets', but owner, scale, bytes, flags"* ]] ||
		fail "$stderr"
	victim_check
}

@test "blocks of before the recording that grow, in contexts that move" {
	start_victim poolwork
	cat >"$BATS_TEST_TMPDIR/own.pool" <<-EOF2
		realloc pool_more  pointer=block size=bytes context=pool_owner(return)
		reset   pool_empty context=which
		move    pool_move  context=pool parent=parent
		tree    child=8 next=16 parent=0
	EOF2
	record_begin allocs "$victim_pid" --pool "$BATS_TEST_TMPDIR/own.pool" --sample 1 --json
	victim_say grow
	victim_wait '^grown' >/dev/null
	record_end
	status_is 0
	[ "$(json_get '"\(.totals.bytes) \(.totals.count)"')" = "$(victim_truth grown)" ]
	json '.lost == 0 and (.contexts | length) == 2'
	stop_victim

	start_victim poolwork
	record_begin allocs "$victim_pid" --pool "$BATS_TEST_TMPDIR/own.pool" --sample 1 --json
	victim_say grow
	victim_say empty
	wait_until 60 eval '[ "$(grep -c ^grown "$victim_out")" = 2 ]'
	record_end
	status_is 0
	[ "$(json_get '"grown \(.totals.bytes) \(.totals.count)"')" = "$(tail -1 "$victim_out")" ]
	json '.lost == 0 and (.contexts | length) == 1'
	sed -i s/pool_owner/pool_owned/ "$BATS_TEST_TMPDIR/own.pool"
	probe allocs "$victim_pid" --pool "$BATS_TEST_TMPDIR/own.pool" -d 1
	status_is 2
	[[ $stderr == *"own.pool:1:53: poolwork has no function 'pool_owned'"*"pool_owner"* ]] || fail "$stderr"
	victim_check
}

@test "what nothing in the program points to, of a pool's blocks" {
	start_victim poolwork
	cat >"$BATS_TEST_TMPDIR/own.pool" <<-EOF2
		alloc pool_get   context=owner size=bytes
		reset pool_clear context=which
		tree  child=8 next=16 parent=0
	EOF2
	for option in -q --no-fork; do
		record_begin allocs "$victim_pid" --pool "$BATS_TEST_TMPDIR/own.pool" --sample 1 \
			--json --reachable $option
		victim_say go
		victim_say lose
		wait_until 60 grep -q '^lost' "$victim_out"
		record_end
		status_is 0
		json '.lost == 0 and .remaining == 0 and .totals.count == 400 + 10'
		json '[.sites[] | select(any(.frames[]; . == "hold"))] |
			(map(.count) | add) == 200 and (map(.unreachable_count) | add) == 0'
		# Words that are left somewhere may still point to the last of them.
		json '[.sites[] | select(any(.frames[]; . == "lose"))] |
			(map(.count) | add) == 200 and (map(.unreachable_count) | add) >= 196'
		victim_check
		stop_victim
		start_victim poolwork
	done
}

# Twice: bytes and counts by the function that left them are those of one round each.
real_library() { # POOL PACKAGE
	start_victim poollibs "$1"
	! grep -q ^missing "$victim_out" || skip "$2 is not installed"
	for round in 1 2; do
		record_begin allocs "$victim_pid" --pool "$1" --sample 1 --json
		victim_say go
		victim_wait "^done $round\$" >/dev/null
		record_end
		status_is 0
		json '.lost == 0 and .remaining == 0 and .pool == $pool' --arg pool "$1.pool"
		[ "$(json_get '"\(.totals.bytes) \(.totals.count)"')" = "$(victim_truth truth)" ] ||
			fail "$(victim_truth truth)" "$(json_get .totals)"
		diff <(sed -n '1,/^done 1/s/^site //p' "$victim_out" | sort) <(json_get '[.sites[] |
			{ name: first(.frames[] | select(startswith("keep"))), bytes, count }] |
			group_by(.name)[] |
			"\(.[0].name) \(map(.bytes) | add) \(map(.count) | add)"' | sort) >&2
	done
	# Sampled: what was freed again was freed here, too.
	record_begin allocs "$victim_pid" --pool "$1" --sample 256 --json
	victim_say go
	victim_wait '^done 3$' >/dev/null
	record_end
	status_is 0
	json '.lost == 0 and .counters.recorded > 20 and all(.sites[]; any(.frames[]; startswith("keep")))'
	victim_check
}

@test "apr: pools below pools, strings" {
	real_library apr libapr1
}

@test "talloc: blocks below blocks, stolen, strings" {
	real_library talloc libtalloc2
}

@test "glib: slices and lists" {
	real_library glib libglib2.0-0
}


nginx_record() { # COMMAND...: while it runs
	record_begin allocs "$victim_pid" --pool nginx --sample 1 --json
	"$@"
	wait_until 60 is_asleep "$victim_pid"
	record_end
	status_is 0
	json '.lost == 0 and .remaining == 0 and .counters.truncated == 0 and all(.hooks[]; .hooked)'
}

# Connections whose requests are not complete, until its input ends.
hold_connections() { # COUNT
	python3 -c 'import socket, sys
held = [socket.socket(socket.AF_UNIX) for _ in range(int(sys.argv[2]))]
for connection in held:
    connection.connect(sys.argv[1])
    connection.sendall(b"GET /canary HTTP/1.1\r\nHost: te")
print("held", flush=True)
sys.stdin.read()' "$dir/socket" "$1"
}

begin_to_hold() {
	mkfifo "$dir/held.in"
	exec {held_in}<>"$dir/held.in"
	hold_connections 12 <"$dir/held.in" >"$dir/held.out" 2>&1 {held_in}>&- 3>&- &
	ends_with $!
	wait_until 60 grep -q held "$dir/held.out"
}

@test "nginx: what is served is freed with its pools, what is held is not" {
	make_public_dir
	dir=$public_dir
	start_nginx
	adopt "$worker"
	load_some() {
		curl -sf --unix-socket "$dir/socket" "http://test/canary?[1-500]" -o /dev/null
	}
	# The same load twice leaves nothing, each time.
	for round in 1 2; do
		nginx_record load_some
		json '.totals.bytes == 0 and .counters.recorded >= 500 * 20 and .contexts == []'
	done
	nginx_record begin_to_hold
	json '(.contexts | length) == 24 and .totals.bytes > 12 * 1024 and
		any(.sites[]; any(.frames[]; . == "ngx_create_temp_buf"))'
	json '(.contexts | map(.bytes) | add) == .totals.bytes'
	[ "$(get canary)" = canary-4711 ]
	victim_check
}

@test "nginx: a leak in the pool of its cycle, planted through its Lua, under load" {
	modules=/usr/lib/nginx/modules
	[ -e "$modules/ngx_http_lua_module.so" ] || skip 'nginx has no Lua here'
	make_public_dir
	dir=$public_dir
	install -m 755 "$VICTIMS/planted_nginx" "$dir/planted.so"
	start_nginx "load_module $modules/ndk_http_module.so; load_module $modules/ngx_http_lua_module.so;" "
		location /plant {
			content_by_lua_block {
				local ffi = require 'ffi'
				if not package.loaded.planted then
					ffi.cdef[[
						long plant_kept(long count, long size);
						long plant_freed(long count, long size);
					]]
					package.loaded.planted = ffi.load('$dir/planted.so')
				end
				local args = ngx.req.get_uri_args()
				local plant = require('planted')['plant_' .. args.kind]
				ngx.say(tonumber(plant(tonumber(args.count), tonumber(args.size))))
			}
		}"
	plant() { # KIND COUNT SIZE RESULT
		[ "$(get "plant?kind=$1&count=$2&size=$3")" = "$4" ]
	}
	planted_of() { # FUNCTION
		json_get '[.sites[] | select(any(.frames[]; . == $f))] |
			"\(map(.count) | add // 0) \(map(.bytes) | add // 0)"' --arg f "$1"
	}
	plant kept 0 1 0
	plant freed 0 1 0
	load_nginx
	adopt "$worker"
	record_begin allocs "$victim_pid" --pool nginx --sample 1 --json --reachable
	plant kept 20 100 20
	plant kept 7 10000 7
	plant freed 13 10007 13
	# These it does not take back.
	plant freed 11 48 0
	still_under_load
	record_end
	status_is 0
	json '.lost == 0 and .remaining == 0 and .counters.recorded > 500'
	[ "$(planted_of plant_kept)" = "27 72000" ]
	[ "$(planted_of plant_freed)" = "11 528" ]
	# The pool itself has a list of the large ones; a stale word may know one of the others.
	json '[.sites[] | select(any(.frames[]; . == "plant_kept")) | .unreachable_count] |
		add | . >= 15 and . <= 20'
	# All of it is in one context, and first.
	json '.contexts[0].bytes == 72000 + 528 and .contexts[0].count == 38'

	# Sampled it stands out, too.
	record_begin allocs "$victim_pid" --pool nginx --sample 4K --json
	plant kept 40000 96 40000
	still_under_load
	record_end
	status_is 0
	json '.lost == 0 and (.contexts[0].bytes | . > 2.8e6 and . < 4.9e6)'
	json '.sites[0].frames | any(.[]; . == "plant_kept")'
	[ "$(get canary)" = canary-4711 ]
	victim_check
}

@test "apache2: requests' pools are gone, what a module keeps is not" {
	make_public_dir
	dir=$public_dir
	install -m 755 "$VICTIMS/planted_apache" "$dir/planted.so"
	start_apache "LoadModule planted_module $dir/planted.so"
	adopt "$worker"
	# shellcheck disable=SC2034
	victim_threads_vary=1
	for round in 1 2; do
		record_begin allocs "$victim_pid" --pool apr --sample 1 --json
		curl -sf "http://127.0.0.1:$port/canary?[1-400]" -o /dev/null
		record_end
		status_is 0
		json '.lost == 0 and .remaining == 0 and .counters.recorded > 400 * 50'
		json '[.sites[] | select(any(.frames[]; . == "plant_kept"))] |
			(map(.count) | add) == 400 and (map(.bytes) | add) == 40000'
		json 'all(.sites[]; all(.frames[]; . != "plant_freed"))'
		# What a pool's cleanups take from it while it is destroyed is freed with the next one there;
		# of each of the 8 threads a connection may still be closing.
		json '.totals.bytes - 40000 < 50000 and (.contexts | length) < 60'
	done
	background_load curl -sf "http://127.0.0.1:$port/canary?[1-20000]" -o /dev/null
	record_begin allocs "$victim_pid" --pool apr --sample 1K --json
	for _ in 1 2 3 4 5; do
		[ "$(get canary)" = canary-4711 ]
	done
	still_under_load
	record_end
	status_is 0
	json '.lost == 0 and .remaining == 0'
	[ "$(get canary)" = canary-4711 ]
	victim_check
}
