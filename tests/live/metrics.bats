#!/usr/bin/env bats
# watch --listen and --textfile: figures that Prometheus understands.

load lib

teardown() {
	[ -z "${prometheus:-}" ] || { kill "$prometheus" && wait "$prometheus" || true; }
	end_everything
}

rules=$BATS_TEST_DIRNAME/../../contrib/prometheus

# `watch -i 0.1 ARG...` in the background; its address is $url.
serve() {
	record_begin watch -i 0.1 --listen 127.0.0.1:0 "$@"
	wait_until 60 grep -q 'metrics at' "$record_out.err"
	url=$(grep -o 'http://.*/metrics' "$record_out.err")
	wait_until 60 curl -sf -o /dev/null "$url"
}

value() { # NAME: of the victim
	curl -sf "$url" | sed -n "s/^$1{pid=\"$victim_pid\",.*} //p"
}

@test "metrics: by HTTP, as they are" {
	start_victim diseases idle
	serve "$victim_pid"
	[ "$(value memprobe_up)" = 1 ]
	[ "$(value memprobe_resident_bytes)" -gt 30000000 ]
	[ "$(value memprobe_threads)" = "$(ls "/proc/$victim_pid/task" | wc -l)" ]
	[ "$(value memprobe_open_fds)" = "$(ls "/proc/$victim_pid/fd" | wc -l)" ]
	[ "$(value memprobe_restarts_total)" = 0 ]
	curl -sf "$url" | grep -q '^memprobe_cpu_seconds_total{'
	curl -sf "$url" | grep -q "^memprobe_resident_bytes{pid=\"$victim_pid\",name=\"diseases\""
	# What begins a family is there once.
	[ -z "$(curl -sf "$url" | grep '^# TYPE' | sort | uniq -d)" ]
	run -0 curl -sf -i -H 'Accept: application/openmetrics-text; version=1.0.0' "$url"
	[[ $output = *"application/openmetrics-text; version=1.0.0; charset=utf-8"* ]]
	[[ $output = *"# TYPE memprobe_cpu_seconds counter"* && ${lines[-1]} = "# EOF" ]]
	[ "$(curl -s -o /dev/null -w '%{http_code}' "${url%metrics}")" = 404 ]
	[ "$(curl -s -o /dev/null -w '%{http_code}' -X POST "$url")" = 405 ]
	record_end
	status_is 0
	! curl -sf -o /dev/null "$url"
	victim_check
}

@test "metrics: promtool finds nothing to blame; alerts do what they say" {
	command -v promtool >/dev/null || skip "no promtool"
	start_victim diseases idle
	serve "$victim_pid"
	curl -sf "$url" >"$BATS_TEST_TMPDIR/metrics"
	run -0 promtool check metrics <"$BATS_TEST_TMPDIR/metrics"
	[ -z "$output" ] || fail "$output"
	record_end
	run -0 promtool check rules "$rules/memprobe.rules.yml"
	run -0 promtool test rules "$rules/memprobe.rules.test.yml"
	# Each figure that they and the dashboard use is told.
	for name in $(grep -ohE 'memprobe_[a-z_]+' "$rules/memprobe.rules.yml" "$rules/dashboard.json" | sort -u); do
		case $name in memprobe_cgroup_*) continue ;; esac # not in every cgroup
		grep -q "^$name{" "$BATS_TEST_TMPDIR/metrics" || fail "nothing tells $name"
	done
	jq -e '.panels | length > 4' "$rules/dashboard.json" >/dev/null
	victim_check
}

@test "metrics: Prometheus itself scrapes them" {
	command -v prometheus >/dev/null || skip "no prometheus"
	start_victim diseases idle
	serve "$victim_pid"
	cat >"$BATS_TEST_TMPDIR/prometheus.yml" <<-END
		global: { scrape_interval: 1s }
		scrape_configs:
		  - job_name: memprobe
		    static_configs: [{ targets: ['$(cut -d/ -f3 <<<"$url")'] }]
	END
	prometheus --config.file="$BATS_TEST_TMPDIR/prometheus.yml" \
		--storage.tsdb.path="$BATS_TEST_TMPDIR/tsdb" --web.listen-address=127.0.0.1:0 \
		>"$BATS_TEST_TMPDIR/prometheus.log" 2>&1 3>&- &
	prometheus=$!
	listens() { grep -q 'Listening on' "$BATS_TEST_TMPDIR/prometheus.log"; }
	wait_until 60 listens
	at=$(sed -nE 's/.*address=(127\.0\.0\.1:[0-9]+).*/\1/p' "$BATS_TEST_TMPDIR/prometheus.log" | head -1)
	has_it() {
		curl -sf "http://$at/api/v1/query" --data-urlencode \
			"query=memprobe_resident_bytes{pid=\"$victim_pid\"}" |
			jq -e '.data.result | length == 1' >/dev/null
	}
	wait_until 60 has_it
	curl -sf "http://$at/api/v1/targets" |
		jq -e '.data.activeTargets | length == 1 and .[0].health == "up"'
	record_end
	status_is 0
	victim_check
}

@test "metrics: a file for node_exporter, replaced as a whole, gone at the end" {
	start_victim idle
	mkdir "$BATS_TEST_TMPDIR/text"
	record_begin watch "$victim_pid" -i 0.05 --textfile "$BATS_TEST_TMPDIR/text"
	file=$BATS_TEST_TMPDIR/text/memprobe-$victim_pid.prom
	wait_until 60 test -s "$file"
	for _ in $(seq 50); do
		text=$(cat "$file")
		[[ $text = "# HELP memprobe_up "*memprobe_resident_bytes*memprobe_threads*fds* ]] || fail "$text"
	done
	[ "$(stat -c %a "$file")" = 644 ]
	record_end
	status_is 0
	[ -z "$(ls -A "$BATS_TEST_TMPDIR/text")" ]
	probe watch "$victim_pid" -i 0.05 -d 1 --textfile "$BATS_TEST_TMPDIR/none"
	status_is 1
	victim_check
}

@test "metrics: a process that has ended, and one of an odd name" {
	cp "$VICTIMS/idle" "$BATS_TEST_TMPDIR/"'a"b\c'
	start_command "$BATS_TEST_TMPDIR/"'a"b\c'
	first=$victim_pid
	start_victim diseases idle
	serve "$victim_pid" "$first"
	curl -sf "$url" | grep -qF "memprobe_up{pid=\"$first\",name=\"a\\\"b\\\\c\""
	ends_with "$first" TERM
	kill "$first"
	ended() { curl -sf "$url" | grep -q "^memprobe_up{pid=\"$first\",.*} 0$"; }
	wait_until 60 ended
	run -1 grep -F "memprobe_resident_bytes{pid=\"$first\"" <(curl -sf "$url")
	[ "$(value memprobe_up)" = 1 ]
	record_end
	victim_check
}

@test "metrics: an address that is taken, or none" {
	start_victim idle
	serve "$victim_pid"
	taken=$(cut -d/ -f3 <<<"$url")
	probe watch "$victim_pid" -i 0.05 -d 0.2 --listen "$taken"
	status_is 1
	[[ $stderr = *"cannot listen at $taken: "* ]] || fail "$stderr"
	for wrong in 127.0.0.1 x:1 127.0.0.1:99999 127.0.0.1: '[::1' '[::1]'; do
		probe watch "$victim_pid" -i 0.05 -d 0.2 --listen "$wrong"
		status_is 2
	done
	record_end
	victim_check
}
