# A PostgreSQL server and sessions of it, for tests: `load postgres` after `load lib`.
#
#	start_postgres [SETTING...]	in $dir; sets server (the postmaster); skips where it is not installed
#	sql QUERY			in a session of its own
#	start_session			sets backend; its input is ...
#	say SQL				... which goes on only when that is done and the backend idle again

start_postgres() {
	local setting settings=()
	bin=$(find /usr/lib/postgresql /usr/bin -name initdb 2>/dev/null | sort -V | tail -1)
	[ -n "$bin" ] || skip "postgres is not installed"
	bin=${bin%/*}
	make_public_dir
	dir=$public_dir
	(unprivileged "$bin/initdb" -D "$dir/data" -U tester -A trust --no-sync) \
		>"$dir/initdb.log" 2>&1 || fail "$(tail "$dir/initdb.log")"
	for setting; do
		settings+=(-c "$setting")
	done
	(unprivileged "$bin/postgres" -D "$dir/data" -k "$dir" -c listen_addresses= -c fsync=off \
		"${settings[@]}") >"$dir/postgres.log" 2>&1 </dev/null 3>&- &
	server=$!
	ends_with "$server" INT # "fast": without waiting for the sessions
	wait_until 60 answers || fail "$(tail "$dir/postgres.log")"
}

answers() {
	sql 'select 1' >/dev/null 2>&1
}

sql() {
	timeout "$(patience 60)" "$bin/psql" -h "$dir" -U tester -d postgres -At -c "$1"
}

start_session() {
	session_out=$dir/session.out
	mkfifo "$dir/session.in"
	exec {session_in}<>"$dir/session.in"
	"$bin/psql" -h "$dir" -U tester -d postgres -At -v ON_ERROR_STOP=1 \
		<"$dir/session.in" >"$session_out" 2>&1 3>&- &
	ends_with $!
	said=0
	say 'select pg_backend_pid();'
	backend=$(head -1 "$session_out")
}

say() {
	said=$((said + 1))
	printf '%s\n\\echo said %s\n' "$1" $said >&"$session_in"
	wait_until 60 grep -q "^said $said\$" "$session_out" || fail "$(tail "$session_out")"
	[ -z "${backend:-}" ] || wait_until 60 is_asleep "$backend"
}

is_asleep() {
	grep -q '^State:[[:space:]]*S' "/proc/$1/status"
}
