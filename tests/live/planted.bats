#!/usr/bin/env bats
# A leak planted in every server that can load a module, under load: allocs names the function that
# leaks and says how much, to the byte, and tells what is lost from what is kept and what was freed.

load lib
load servers
load postgres

# Servers keep memory of their own to hand out (contexts of postgres, arenas of python), and leave in
# it what was there: stale words that hide up to a third of small leaks under load. Where blocks as
# large as these lie there was little before.
LEAKED=(17 1000003)
KEPT=(59 2003)
FREED=(83 3001)

setup() {
	# Servers start and end threads as they please.
	# shellcheck disable=SC2034
	victim_threads_vary=1
}

# The functions of planted.h, built for this kind of server, where it may read them.
module() { # KIND FILE
	install -m 755 "$VICTIMS/planted_$1" "$2"
}

has_figures() { # FUNCTION FIGURES
	[ "$(figures_of "$1")" = "$2" ] || fail "$1: $(figures_of "$1") instead of $2" "$stderr" \
		"$(json_get '.sites[] | select(any(.frames[]; startswith("plant_")))')"
}

# A recording during which PLANT KIND COUNT SIZE has the server plant; the victim is adopted.
planted_is_found() { # PLANT [OPTION...]
	local plant=$1 unreachable
	shift
	# What a first call loads and resolves is no part of it.
	for kind in leaked kept freed; do
		"$plant" $kind 0 1
	done
	victim_remember
	record_begin allocs "$victim_pid" --sample 1 --all --json "$@"
	"$plant" leaked "${LEAKED[@]}"
	"$plant" kept "${KEPT[@]}"
	"$plant" freed "${FREED[@]}"
	record_end
	status_is 0
	json '.lost == 0 and .remaining == 0 and .counters.truncated == 0 and .rate == 1'
	has_figures plant_leaked "${LEAKED[0]} $((LEAKED[0] * LEAKED[1])) ${LEAKED[0]} $((LEAKED[0] * LEAKED[1]))"
	has_figures plant_kept "${KEPT[0]} $((KEPT[0] * KEPT[1])) ${KEPT[0]} $((KEPT[0] * KEPT[1]))"
	has_figures plant_freed "0 0 ${FREED[0]} $((FREED[0] * FREED[1]))"
	if [[ $* == *--reachable* ]]; then
		[ "$(unreachable_of plant_kept) $(unreachable_of plant_freed)" = '0 0' ]
		# Stale words may hide some all the same; most are not to be.
		unreachable=$(unreachable_of plant_leaked)
		[ "$unreachable" -le "${LEAKED[0]}" ] && [ "$unreachable" -ge $((LEAKED[0] * 3 / 4)) ] ||
			fail "$unreachable of ${LEAKED[0]} unreachable"
	fi
	! grep /memfd:memprobe "/proc/$victim_pid/maps" || fail "tables are left"
	victim_check
}

@test "a leak planted in redis-server by a module" {
	make_public_dir
	dir=$public_dir
	module redis "$dir/planted.so"
	start_redis --loadmodule "$dir/planted.so"
	redis set canary 4711
	load_redis
	adopt "$server"
	plant() {
		[ "$(redis planted "$@")" = "$2" ]
	}
	planted_is_found plant --reachable
	still_under_load
	plant leaked 1 100
	[ "$(redis get canary)" = 4711 ]
}

@test "a leak planted in mariadbd by a function of its users" {
	make_public_dir
	dir=$public_dir
	mkdir -m 755 "$dir/plugins"
	module mariadb "$dir/plugins/planted.so"
	start_mariadbd --plugin-dir="$dir/plugins"
	mariadb_sql "create function planted returns integer soname 'planted.so'"
	load_mariadbd
	adopt "$server"
	plant() {
		[ "$(mariadb_sql "select planted('$1', $2, $3)")" = "$2" ]
	}
	planted_is_found plant --reachable
	still_under_load
	plant leaked 1 100
}

@test "a leak planted in a backend of postgres by a C function" {
	nm -D "$VICTIMS/planted_postgres" | grep -q Pg_magic_func ||
		skip 'built without the headers of a server of PostgreSQL'
	start_postgres
	module postgres "$dir/planted.so"
	sql "create function planted(text, int, int) returns int language c as '$dir/planted.so'" ||
		skip "this server takes no library built with the headers that are here"
	start_session
	adopt "$backend"
	plant() {
		# The same backend has work of its own, before and after.
		say "select string_agg(g::text, ',') is null from generate_series(1, 10000) g;
			select planted('$1', $2, $3);
			select count(*) from pg_class a, pg_class b where a.oid < b.oid;"
		grep -qx "$2" "$session_out"
	}
	planted_is_found plant --reachable
	plant leaked 1 100
}

@test "a leak planted in a worker of nginx through its Lua" {
	modules=/usr/lib/nginx/modules
	[ -e "$modules/ngx_http_lua_module.so" ] || skip 'nginx has no Lua here'
	make_public_dir
	dir=$public_dir
	module library "$dir/planted.so"
	start_nginx "load_module $modules/ndk_http_module.so; load_module $modules/ngx_http_lua_module.so;" "
		location /plant {
			content_by_lua_block {
				local ffi = require 'ffi'
				if not planted then
					ffi.cdef[[
						long plant_leaked(long count, long size);
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
	load_nginx
	adopt "$worker"
	plant() {
		[ "$(get "plant?kind=$1&count=$2&size=$3")" = "$2" ]
	}
	planted_is_found plant --reachable
	still_under_load
	plant leaked 1 100
	[ "$(get canary)" = canary-4711 ]
}

@test "a leak planted in python3 with threads through ctypes" {
	need python3
	make_public_dir
	dir=$public_dir
	mkfifo "$dir/fifo"
	background python python3 "$ROOT/tests/live/planted.py" "$VICTIMS/planted_library" \
		"$dir/fifo" "$dir/socket"
	exec {fifo}<>"$dir/fifo"
	planted=0
	plant() {
		echo "$*" >&"$fifo"
		planted=$((planted + 1))
		wait_until 60 has_planted
	}
	has_planted() {
		[ "$(wc -l <"$dir/python.log")" -ge $planted ]
	}
	wait_for 60 [ -S "$dir/socket" ]
	adopt "$pid"
	planted_is_found plant --reachable
	plant leaked 1 100
	[ "$(tr '\n' ' ' <"$dir/python.log")" = "0 0 0 ${LEAKED[0]} ${KEPT[0]} ${FREED[0]} 1 " ]
}
