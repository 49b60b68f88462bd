#!/usr/bin/env bats
# heap --by context: the memory contexts of a PostgreSQL backend, against what it says of itself.

load lib
load postgres

# PostgreSQL 18 counts levels from 1.
from_level_0() {
	awk 'NR == 1 { first = $1 } { $1 -= first; print }'
}

# LEVEL NAME TOTAL BLOCKS FREE CHUNKS, as the backend writes them into the server's log: of itself,
# idle. `level: 1; Timezones: 104120 total in 2 blocks; 2616 free (0 chunks); 101504 used`
logged_contexts() {
	local logged
	logged=$(grep -c 'Grand total' "$dir/postgres.log" || true)
	sql "select pg_log_backend_memory_contexts($backend)" >/dev/null
	wait_until 60 eval '[ "$(grep -c "Grand total" "$dir/postgres.log")" -gt '"$logged"' ]'
	tac "$dir/postgres.log" | sed -nE '/logging memory contexts/q
		s/^.*level: ([0-9]+); (.*): ([0-9]+) total in ([0-9]+) blocks; ([0-9]+) free \(([0-9]+) chunks\); .*$/\1 \2 \3 \4 \5 \6/p' |
		sort -n | from_level_0 | sort
}

walked_contexts() {
	jq -r '.groups[] | "\(.level) \(.key) \(.total) \(.blocks) \(.free) \(.free_chunks)"' \
		<<<"$output" | sort
}

@test "the contexts of an idle backend are as it logs them itself" {
	# Else it tells its statistics, and frees what it had of them, after ten idle seconds.
	start_postgres track_counts=off
	start_session
	[[ $(sql 'show server_version_num') -ge 140000 ]] || skip "it cannot log its contexts"
	say "create table t (n int primary key, s text); insert into t select g, g from generate_series(1, 1000) g;"
	say "prepare one as select * from t where n = \$1; execute one(1);"
	# It logs no more than a hundred children of each.
	adopt "$backend"
	logged=$(logged_contexts)

	probe heap "$backend" --by context --json
	status_is 0
	diff <(echo "$logged") <(walked_contexts) >&2 || fail "they differ"
	# shellcheck disable=SC2016
	json '.totals | "\(.total) bytes in \(.blocks) blocks; \(.free) free" as $text |
		$grand | contains($text)' --arg grand "$(grep 'Grand total' "$dir/postgres.log" | tail -1)"
	json '.by == "context" and .stopped_us == 0 and .warnings == []'
	json '([.groups[].total] | add) == .totals.total and .totals.count == (.groups | length)'
	json '.groups[0] | .path == "TopMemoryContext" and .parent == null and .level == 0'
	json '.groups | any(.path == "TopMemoryContext/CacheMemoryContext/index info" and
		.ident == "t_pkey" and .parent == "CacheMemoryContext")'
	json '.groups | any(.key == "CachedPlanSource" and (.ident | startswith("prepare one")))'
	live=$(jq -S '[.groups, .totals]' <<<"$output")
	total=$(json_get .totals.total)

	probe core "$backend" -o "$BATS_TEST_TMPDIR/core" -q
	status_is 0
	probe heap "$BATS_TEST_TMPDIR/core" --by context --json
	status_is 0
	diff <(echo "$live") <(jq -S '[.groups, .totals]' <<<"$output") >&2 || fail "the core differs"

	probe heap "$backend" --by context --top 3
	status_is 0
	[[ $(sed -n 4p <<<"$output") =~ [[:space:]]1\ \ TopMemoryContext$ ]]
	[[ $(sed -n 5p <<<"$output") =~ [[:space:]]1\ \ \ \ CacheMemoryContext$ ]]
	[[ $(sed -n 6p <<<"$output") =~ [0-9][0-9]\ \ \ \ \ \ index\ info$ ]]
	[[ $(sed -n 7p <<<"$output") =~ \([0-9]+\ more\ rows\)$ ]]
	[ "$(wc -l <<<"$output")" -eq 7 ]
	probe heap "$backend" --by context -f
	status_is 0
	grep -q '^TopMemoryContext;CacheMemoryContext;index info [0-9]*$' <<<"$output" || fail "$output"
	[ "$(awk '{ sum += $NF } END { print sum }' <<<"$output")" -eq "$total" ]
	victim_check
}

@test "a backend at work is read from a snapshot, and unharmed" {
	start_postgres
	start_session
	echo 'do $$ declare n int; begin for i in 1..100000000 loop
		select length(string_agg(g::text, $q$,$q$)) into n from generate_series(1, 100) g; end loop; end $$;' >&"$session_in"
	wait_until 60 eval '[ "$(sql "select state from pg_stat_activity where pid = $backend")" = active ]'
	adopt "$backend"
	for _ in 1 2 3 4 5; do
		probe heap "$backend" --by context --json
		[ "$status" -eq 0 ] || [ "$status" -eq 6 ]
		json '([.groups[].total] | add) == .totals.total and (.groups | length) > 50'
		json '.groups | any(.key == "CacheMemoryContext")'
		[ "$status" -eq 6 ] || json '.warnings == []'
	done
	victim_check
	[ "$(sql 'select 4711')" = 4711 ]
}

@test "what is no PostgreSQL" {
	start_victim requests
	probe heap "$victim_pid" --by context
	status_is 5
	[[ $stderr == *"no PostgreSQL"* ]]
	probe heap "$victim_pid" --by owner
	status_is 2
	victim_check
}
