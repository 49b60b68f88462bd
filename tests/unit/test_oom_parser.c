/* What is read of the OOM killer's logs beyond the formats, and of logs made to harm. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "oom_logs.h"

#define KIB  1024ULL
#define PAGE 4096ULL

static struct oom_log parse_file(const char *name)
{
	size_t size;
	char *text = oom_read_log(name, &size);
	struct oom_log log = oom_parse(text, size, size);

	free(text);
	return log;
}

static struct oom_log parse_text(const char *text)
{
	return oom_parse(text, strlen(text), strlen(text));
}

static void test_no_kill(void **state)
{
	struct oom_log log = parse_file("none");

	assert_int_equal(log.kills.size, 0);
	assert_int_equal(log.without_kill, 0);
	oom_log_deinit(&log);
	log = parse_file("6.1-exiting");
	assert_int_equal(log.kills.size, 0);
	assert_int_equal(log.without_kill, 1);
	oom_log_deinit(&log);
	log = oom_parse("", 0, 1);
	assert_int_equal(log.kills.size, 0);
	oom_log_deinit(&log);
}

/* The second line of the node's kill is not another kill; both have one report. */
static void test_group(void **state)
{
	struct oom_log log = parse_file("6.x-group");
	const struct oom_kill *first = log.kills.data;

	assert_int_equal(log.reports.size, 1);
	assert_int_equal(first->pid, 22609);
	assert_int_equal(first->rss, (4116684 + 23132) * KIB);
	assert_int_equal(first->page_tables, 10964 * KIB);
	assert_true(first->has_oom_score_adj);
	assert_int_equal(first->oom_score_adj, 969);
	assert_true(log.reports.data[0].group);
	oom_log_deinit(&log);
}

/* Without reports of their own, kills have nothing of that before. */
static void test_rate_limited(void **state)
{
	struct oom_log log = parse_file("6.x-rate-limited");

	assert_int_equal(log.kills.size, 3);
	assert_int_equal(log.reports.size, 3);
	assert_string_equal(log.reports.data[0].cgroup, "/a");
	assert_null(log.reports.data[1].cgroup);
	assert_int_equal(log.reports.data[1].constraint, OOM_CONSTRAINT_MEMCG);
	assert_int_equal(log.reports.data[1].reached, OOM_COUNTERS);
	oom_log_deinit(&log);
}

static void test_columns(void **state)
{
	struct oom_log log = parse_file("6.8-global");
	const struct oom_process *process = &log.reports.data[0].processes.data[1];

	assert_int_equal(process->pid, 114);
	assert_int_equal(process->rss, 4676 * PAGE);
	assert_int_equal(process->anon, 96 * PAGE);
	assert_int_equal(process->file, 452 * PAGE);
	assert_int_equal(process->shmem, 4128 * PAGE);
	assert_int_equal(process->total_vm, 7500 * PAGE);
	assert_int_equal(process->page_tables, 90112);
	assert_int_equal(process->swap, 0);
	assert_int_equal(process->oom_score_adj, -1000);
	assert_int_equal(log.reports.data[0].memory.ram, (2097022 - 67366) * PAGE);
	oom_log_deinit(&log);

	log = parse_file("4.14-puds");
	process = log.reports.data[0].processes.data;
	assert_int_equal(process->page_tables, (612 + 11 + 4) * PAGE);
	assert_int_equal(process->uid, 1000);
	assert_int_equal(process->anon, OOM_UNKNOWN);
	oom_log_deinit(&log);

	log = parse_file("2.6.32-global");
	process = log.reports.data[0].processes.data;
	assert_false(process->has_oom_score_adj);
	assert_int_equal(process->swap, OOM_UNKNOWN);
	oom_log_deinit(&log);
}

/* A row without blanks could be split in many ways. */
static void test_unreadable_rows(void **state)
{
	struct oom_log log = parse_file("4.4-squeezed");

	assert_int_equal(log.reports.data[0].rows_unreadable, 2);
	oom_log_deinit(&log);
}

static void test_reaper(void **state)
{
	struct oom_log log = parse_file("4.9-reaper");

	assert_true(log.kills.data[0].is_reaped);
	oom_log_deinit(&log);
	log = parse_text(
		"[ 1.5] oom_reaper: reaped process 9 (x), now anon-rss:0kB, file-rss:0kB\n");
	assert_int_equal(log.kills.size, 1);
	assert_int_equal(log.kills.data[0].pid, 9);
	assert_false(log.kills.data[0].is_certain);
	oom_log_deinit(&log);
}

static void test_counter_reached(void **state)
{
	struct oom_log log =
		parse_text("Task in /a killed as a result of limit of /a\n"
			   "memory: usage 700kB, limit 1000kB, failcnt 0\n"
			   "memory+swap: usage 2000kB, limit 2000kB, failcnt 31\n"
			   "kmem: usage 0kB, limit 18014398509481983kB, failcnt 0\n"
			   "Killed process 7 (a) total-vm:9kB, anon-rss:8kB, file-rss:0kB\n");

	assert_int_equal(log.kills.size, 1);
	assert_int_equal(log.reports.data[0].reached, OOM_COUNTER_MEMORY_SWAP);
	assert_int_equal(log.reports.data[0].counters[OOM_COUNTER_KMEM].limit, OOM_UNKNOWN);
	oom_log_deinit(&log);
}

static void test_order(void **state)
{
	struct oom_log log = parse_file("3.16-mempolicy");

	assert_int_equal(log.reports.data[0].order, 1);
	oom_log_deinit(&log);
	log = parse_text("kworker/0:2 invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=-1, "
			 "oom_score_adj=0\nOut of memory: Killed process 651 (a)\n");
	assert_int_equal(log.reports.data[0].order, OOM_ORDER_BY_HAND);
	assert_string_equal(log.reports.data[0].trigger, "kworker/0:2");
	oom_log_deinit(&log);
	log = parse_file("6.1-short-unix");
	assert_int_equal(log.reports.data[0].order, 0);
	oom_log_deinit(&log);
	log = parse_file("4.4-begin-cut");
	assert_int_equal(log.reports.data[0].order, OOM_ORDER_UNKNOWN);
	oom_log_deinit(&log);
}

/* node-problem-detector repeats the kernel's line, kubelet that. */
static void test_repeated_lines(void **state)
{
	struct oom_log log = parse_text(
		"Aug  1 10:00:00 n kernel: Memory cgroup out of memory: Killed process 7 (cat) "
		"total-vm:360kB, anon-rss:300kB, file-rss:20kB, shmem-rss:0kB\n"
		"Aug  1 10:00:02 n npd[9]: Memory cgroup out of memory: Killed process 7 (cat) "
		"total-vm:360kB, anon-rss:300kB, file-rss:20kB, shmem-rss:0kB\n"
		"Aug  2 10:00:00 n kernel: Memory cgroup out of memory: Killed process 7 (cat) "
		"total-vm:364kB, anon-rss:304kB, file-rss:20kB, shmem-rss:0kB\n");

	assert_int_equal(log.kills.size, 2);
	assert_string_equal(log.kills.data[0].time, "Aug  1 10:00:00");
	assert_string_equal(log.kills.data[1].time, "Aug  2 10:00:00");
	oom_log_deinit(&log);
}

/* Of arm64 and ppc64: 64 KiB, as the victim's virtual size shows in both units. */
static void test_page_size(void **state)
{
	struct oom_log log = parse_text(
		"a invoked oom-killer: gfp_mask=0xd0, order=0, oom_score_adj=0\n"
		"Mem-Info:\n"
		"active_anon:100 inactive_anon:10 isolated_anon:0\n"
		"Free swap  = 64kB\n"
		"[ pid ]   uid  tgid total_vm      rss nr_ptes swapents oom_score_adj name\n"
		"[    7]     0     7       90       80       3        2             0 cat\n"
		"[    8]     0     8       70       60       3        1             0 dog\n"
		"Out of memory: Killed process 7 (cat) total-vm:5824kB, anon-rss:5000kB, file-rss:64kB\n");
	const struct oom_report *report = log.reports.data;

	assert_int_equal(report->page_size, 65536);
	assert_int_equal(report->processes.data[0].rss, 80 * 65536);
	assert_int_equal(report->processes.data[1].total_vm, 70 * 65536);
	assert_int_equal(report->processes.data[1].swap, 65536);
	assert_int_equal(report->memory.anon, 110 * 65536);
	assert_int_equal(report->memory.swap_free, 64 * KIB);
	assert_int_equal(log.kills.data[0].rss, 5064 * KIB);
	oom_log_deinit(&log);
	log = parse_file("4.4-article");
	assert_int_equal(log.reports.data[0].page_size, 4096);
	oom_log_deinit(&log);
}

/* With each line of a report behind it. */
static void test_prefixes(void **state)
{
	static const struct {
		const char *prefix, *time;
	} rows[] = {
		{ "", "" },
		{ "[11686.888109] ", "11686.888109" },
		{ "[    1.5] ", "1.5" },
		{ "<4>[ 1.5] ", "1.5" },
		{ "<4>", "" },
		{ "[ 1.5][T12] ", "1.5" },
		{ "[ 1.5] [    T12] ", "1.5" },
		{ "4,1,1500000,-;", "1.500000" },
		{ "4,1,1500000,-,caller=T12;", "1.500000" },
		{ "kern  :warn  : [ 1.5] ", "1.5" },
		{ "kern  :warn  : [Sun Jan  1 00:00:00 2023] ", "Sun Jan  1 00:00:00 2023" },
		{ "[Sun Jan  1 00:00:00 2023] ", "Sun Jan  1 00:00:00 2023" },
		{ "[Di Aug 12 03:54:03 2025] ", "Di Aug 12 03:54:03 2025" },
		{ "Apr 01 14:13:32 mysrv: ", "Apr 01 14:13:32" },
		{ "Apr 01 14:13:32 mysrv kernel: ", "Apr 01 14:13:32" },
		{ "Apr 01 14:13:32 mysrv kernel:", "Apr 01 14:13:32" },
		{ "Apr 01 14:13:32 mysrv kernel: [ 1.5] ", "Apr 01 14:13:32" },
		{ "Apr 01 14:13:32 kernel: ", "Apr 01 14:13:32" },
		{ "Apr 01 14:13:32 mysrv <kern.warning> kernel: ", "Apr 01 14:13:32" },
		{ "Apr 01 14:13:32 mysrv <kern.warning> ", "Apr 01 14:13:32" },
		{ "Apr  1 14:13:32 ", "Apr  1 14:13:32" },
		{ "Jan  1 00:00:00 host kern.warn kernel: [  12.123456] ", "Jan  1 00:00:00" },
		{ "Sun Jan  1 00:00:00 2023 host kernel: ", "Sun Jan  1 00:00:00" },
		{ "2021-01-01T00:00:00.123456+01:00 host kernel: [11.5] ",
		  "2021-01-01T00:00:00.123456+01:00" },
		{ "2023-01-01 00:00:00 host kernel: ", "2023-01-01 00:00:00" },
		{ "2023-01-01 00:00:00,123 ", "2023-01-01 00:00:00,123" },
		{ "1787068905.416344 host kernel: ", "1787068905.416344" },
		{ "kernel: ", "" },
		{ "kernel:", "" },
		{ "> > Apr 01 14:13:32 mysrv kernel: ", "Apr 01 14:13:32" },
		{ " | [ 1.5] ", "1.5" },
		{ "\t", "" },
		{ "[\xc2\xa0\xc2\xa0 1.5]\xc2\xa0", "1.5" },
	};
	static const char *const lines[] = {
		"sed invoked oom-killer: gfp_mask=0xd0, order=0, oom_score_adj=0",
		"memory: usage 700kB, limit 1000kB, failcnt 3",
		"Memory cgroup stats for /a:",
		"anon 4096",
		"[ pid ]   uid  tgid total_vm      rss nr_ptes swapents oom_score_adj name",
		"[    7]     0     7       90       80       3        0             0 cat",
		"Out of memory: Killed process 7 (cat) total-vm:360kB, anon-rss:300kB, file-rss:20kB",
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
		char text[2048] = "";
		struct oom_log log;

		for (size_t j = 0; j < sizeof(lines) / sizeof(*lines); j++)
			snprintf(text + strlen(text), sizeof(text) - strlen(text), "%s%s\n",
				 rows[i].prefix, lines[j]);
		log = parse_text(text);
		assert_int_equal(log.kills.size, 1);
		assert_string_equal(log.kills.data[0].time, rows[i].time);
		assert_int_equal(log.kills.data[0].rss, 320 * KIB);
		assert_string_equal(log.reports.data[0].trigger, "sed");
		assert_string_equal(log.reports.data[0].cgroup, "/a");
		assert_int_equal(log.reports.data[0].constraint, OOM_CONSTRAINT_NONE);
		assert_int_equal(log.reports.data[0].counters[OOM_COUNTER_MEMORY].failures, 3);
		assert_int_equal(log.reports.data[0].processes.size, 1);
		assert_string_equal(log.reports.data[0].processes.data[0].name, "cat");
		oom_log_deinit(&log);
	}
}

/* Numbers that no kernel prints. */
static void test_absurd_numbers(void **state)
{
	struct oom_log log = parse_text(
		"[ pid ]   uid  tgid total_vm      rss nr_ptes swapents oom_score_adj name\n"
		"[7]     0 7    99999999999999999999999 18446744073709551615 8 0 0 a\n"
		"[99999999999]     0 7    1 1 8 0 0 b\n"
		"[8]     0 8    1 1 8 0 1001 c\n"
		"Killed process 7 (a) total-vm:18446744073709551615kB, anon-rss:18446744073709551615kB, "
		"file-rss:18446744073709551615kB\n"
		"Killed process 99999999999 (b)\n"
		"Killed process 0 (c)\n");

	assert_int_equal(log.kills.size, 1);
	assert_int_equal(log.reports.data[0].processes.size, 1);
	assert_int_equal(log.kills.data[0].rss, OOM_LARGEST);
	oom_log_deinit(&log);
}

/* ---- hostile logs ---- */

static struct oom_log parse_repeated(const char *text, size_t size)
{
	size_t length = strlen(text);
	char *all = malloc(size);
	struct oom_log log;

	for (size_t at = 0; at < size; at++)
		all[at] = text[at % length];
	log = oom_parse(all, size, 65521);
	free(all);
	return log;
}

/* Megabytes without a line break, of what begins messages and does not end them. */
static void test_endless_lines(void **state)
{
	static const char *const texts[] = {
		"Task in ",
		"oom-kill:constraint=",
		"Memory cgroup stats for /",
		"K i l l e d ",
		"Killed process 1 (",
		"((((",
		"[",
		"[1",
		"[1] 1 1 ",
		"anon 1 ",
		"invoked oom-killer:",
		"[ pid ] uid tgid total_vm rss name",
		"\\x0a",
		"memory: usage 1kB, limit",
		"oom-kill:constraint=CONSTRAINT_MEMCG,oom_memcg=/a,task_memcg=",
		"1 pages RAM ",
		"[ pid ] uid tgid total_vm rss name\n[ 1 ",
	};

	for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); i++) {
		struct oom_log log = parse_repeated(texts[i], 3 << 20);

		assert_int_equal(log.kills.size, 0);
		oom_log_deinit(&log);
	}
}

/* What stands around the borders of the pieces that long lines are read in. */
static void test_kill_in_long_line(void **state)
{
	static const char kill[] = "Memory cgroup out of memory: Killed process 11344 (main) "
				   "total-vm:390360kB, anon-rss:183712kB, file-rss:1016kB ";
	size_t size = 400 << 10;

	for (size_t at = 60 << 10; at < 300 << 10; at += 997) {
		char *text = malloc(size);
		struct oom_log log;

		memset(text, '.', size);
		memcpy(text + at, kill, strlen(kill));
		log = oom_parse(text, size, size);
		assert_int_equal(log.kills.size, 1);
		assert_int_equal(log.kills.data[0].rss, 184728 * KIB);
		assert_int_equal(log.reports.data[0].constraint, OOM_CONSTRAINT_MEMCG);
		oom_log_deinit(&log);
		free(text);
	}
}

static void test_many_kills(void **state)
{
	struct oom_parser *parser;
	struct oom_log log;
	char line[128];

	assert_null(oom_parser_create(&parser));
	for (int i = 1; i <= OOM_KILLS_MAX + 10; i++) {
		int length = snprintf(line, sizeof(line), "[ %d.5] Killed process %d (a)\n", i, i);

		assert_null(oom_parser_feed(parser, line, (size_t)length));
	}
	assert_null(oom_parser_finish(parser, &log));
	oom_parser_destroy(parser);
	assert_int_equal(log.kills.size, OOM_KILLS_MAX);
	assert_int_equal(log.kills_left_out, 10);
	oom_log_deinit(&log);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_no_kill),		cmocka_unit_test(test_order),
		cmocka_unit_test(test_prefixes),	cmocka_unit_test(test_page_size),
		cmocka_unit_test(test_repeated_lines),	cmocka_unit_test(test_group),
		cmocka_unit_test(test_rate_limited),	cmocka_unit_test(test_columns),
		cmocka_unit_test(test_unreadable_rows), cmocka_unit_test(test_reaper),
		cmocka_unit_test(test_counter_reached), cmocka_unit_test(test_absurd_numbers),
		cmocka_unit_test(test_endless_lines),	cmocka_unit_test(test_kill_in_long_line),
		cmocka_unit_test(test_many_kills),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
