/*
 * Kernel logs of the OOM killer: the logs in tests/unit/oom/ are named after the kernel whose
 * messages they have; here is what is true of each.
 */
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

#define DOCKER "/docker/34186d9bd07706222bd427bb647ceed81e8e108eb653ff73c7137099fca1cab6"
#define POD                                                                                 \
	"/docker/428406e4f18a1cb65e9691d40b63f3d92c95c1b0d15b5c427bed470b6832cd6e/kubelet/" \
	"kubepods/pod1788d98a-0700-426a-8701-2312e4cc2163"

/* Of the last kill in a log. 0 or NULL: not to be looked at; NONE: unknown, or there is none. */
#define NONE UINT64_MAX

struct truth {
	const char *log;
	size_t kills; /* 0: one */
	const char *time, *name, *trigger, *cgroup;
	pid_t pid;
	uint64_t rss, total_vm, usage, limit, failures;
	uint64_t anon, file, shmem, kernel, swap; /* of the group or machine */
	size_t processes;			  /* SIZE_MAX: none */
	uint64_t largest;			  /* RSS of the largest, in pages */
	const char *largest_name;
	enum oom_constraint constraint;
	bool is_uncertain;
};

/* What the article's log says, in whatever form. */
#define ARTICLE                                                                                   \
	.name = "main", .trigger = "main", .cgroup = DOCKER, .pid = 11344, .rss = 184728 * KIB,   \
	.total_vm = 390360 * KIB, .usage = 204800 * KIB, .limit = 204800 * KIB, .failures = 4563, \
	.anon = 197168 * KIB, .file = 108 * KIB, .kernel = 7524 * KIB,                            \
	.constraint = OOM_CONSTRAINT_MEMCG
#define ARTICLE_TABLE .processes = 2, .largest = 46185, .largest_name = "main"
#define ARTICLE_TIME  .time = "14808.083306"

#define UWSGI                                                                                      \
	.name = "uwsgi", .trigger = "uwsgi", .cgroup = POD, .pid = 11638,                          \
	.total_vm = 8439228 * KIB, .usage = 524288 * KIB, .limit = 524288 * KIB, .failures = 2041, \
	.anon = 314535936, .kernel = 756472 + 49152 + 8785920, .swap = 4194300 * KIB,              \
	.constraint = OOM_CONSTRAINT_MEMCG
#define UWSGI_TABLE .processes = 3, .largest = 76320, .largest_name = "uwsgi"
#define UWSGI_RSS   .rss = (296940 + 8340) * KIB

#define PYTHON                                                                                     \
	.name = "python3", .trigger = "python3", .cgroup = "/mp_oom", .pid = 14017,                \
	.rss = (16000 + 6584) * KIB, .total_vm = 82104 * KIB, .usage = 16384 * KIB,                \
	.limit = 16384 * KIB, .failures = 99, .anon = 16539648, .file = 4096, .kernel = 236 * KIB, \
	.constraint = OOM_CONSTRAINT_MEMCG
#define PYTHON_TABLE .processes = 2, .largest = 5646, .largest_name = "python3"

static const struct truth truths[] = {
	/* The article's log, and what happens to logs. */
	{ .log = "4.4-article", ARTICLE, ARTICLE_TABLE, ARTICLE_TIME },
	{ .log = "4.4-article-twice", ARTICLE, ARTICLE_TABLE, ARTICLE_TIME },
	{ .log = "4.4-no-prefix", ARTICLE, ARTICLE_TABLE, .time = "" },
	{ .log = "4.4-one-line", ARTICLE, ARTICLE_TABLE, ARTICLE_TIME },
	{ .log = "4.4-squeezed", ARTICLE, ARTICLE_TIME, .processes = SIZE_MAX },
	{ .log = "4.4-squeezed-no-prefix", ARTICLE, .processes = SIZE_MAX, .time = "" },
	{ .log = "4.4-squeezed-lines", ARTICLE, ARTICLE_TIME, .processes = SIZE_MAX },
	{ .log = "4.4-wrapped-80", ARTICLE, ARTICLE_TABLE, ARTICLE_TIME },
	{ .log = "4.4-wrapped-61", ARTICLE, ARTICLE_TABLE, ARTICLE_TIME },
	{ .log = "4.4-wrapped-no-prefix", ARTICLE, ARTICLE_TABLE, .time = "" },
	{ .log = "4.4-wrapped-arrow", ARTICLE, ARTICLE_TABLE, ARTICLE_TIME },
	{ .log = "4.4-wrapped-squeezed", ARTICLE, ARTICLE_TIME, .processes = SIZE_MAX },
	{ .log = "4.4-crlf", ARTICLE, ARTICLE_TABLE, ARTICLE_TIME },
	{ .log = "4.4-noise", ARTICLE, ARTICLE_TABLE, ARTICLE_TIME },
	{ .log = "4.4-color", ARTICLE, ARTICLE_TABLE, ARTICLE_TIME },
	{ .log = "4.4-interleaved", ARTICLE, ARTICLE_TABLE, ARTICLE_TIME },
	{ .log = "4.4-indented", ARTICLE, ARTICLE_TABLE, ARTICLE_TIME },
	{ .log = "4.4-rows-without-brackets", ARTICLE, ARTICLE_TABLE, ARTICLE_TIME },
	{ .log = "4.4-syslog-imklog", ARTICLE, ARTICLE_TABLE, .time = "Jul 30 18:11:02" },
	{ .log = "4.4-begin-cut",
	  ARTICLE_TABLE,
	  ARTICLE_TIME,
	  .name = "main",
	  .pid = 11344,
	  .rss = 184728 * KIB,
	  .trigger = "",
	  .cgroup = DOCKER,
	  .usage = NONE,
	  .limit = NONE,
	  .anon = 197168 * KIB,
	  .constraint = OOM_CONSTRAINT_MEMCG },
	{ .log = "4.4-end-cut",
	  ARTICLE_TABLE,
	  .name = "main",
	  .pid = 11344,
	  .cgroup = DOCKER,
	  .time = "14808.064125",
	  .rss = 46185 * PAGE,
	  .limit = 204800 * KIB,
	  .is_uncertain = true,
	  .constraint = OOM_CONSTRAINT_MEMCG },
	{ .log = "4.4-end-cut-in-line",
	  ARTICLE_TABLE,
	  ARTICLE_TIME,
	  .name = "main",
	  .pid = 11344,
	  .rss = 46185 * PAGE,
	  .limit = 204800 * KIB,
	  .total_vm = 390360 * KIB,
	  .constraint = OOM_CONSTRAINT_MEMCG },

	/* Kernels. */
	{ .log = "2.6.18-syslog",
	  .time = "Mar  2 04:12:31",
	  .name = "cc1",
	  .trigger = "cc1",
	  .pid = 4711,
	  .rss = NONE,
	  .total_vm = NONE,
	  .constraint = OOM_CONSTRAINT_NONE,
	  .processes = SIZE_MAX },
	{ .log = "2.6.18-rhel5",
	  .time = "Sep 14 23:51:07",
	  .name = "httpd",
	  .pid = 21034,
	  .rss = NONE,
	  .constraint = OOM_CONSTRAINT_NONE },
	{ .log = "2.6.32-global",
	  .time = "8123.416365",
	  .name = "chromium",
	  .trigger = "X",
	  .pid = 3375,
	  .rss = 431877 * PAGE,
	  .total_vm = 512093 * PAGE,
	  .anon = (463522 + 26022 - 6022) * PAGE,
	  .file = (212 + 318) * PAGE,
	  .shmem = 6022 * PAGE,
	  .kernel = (2210 + 5112 + 4100) * PAGE,
	  .processes = 4,
	  .largest = 431877,
	  .largest_name = "chromium",
	  .limit = NONE,
	  .constraint = OOM_CONSTRAINT_NONE },
	{ .log = "2.6.32-memcg",
	  .time = "733.111022",
	  .name = "hog",
	  .trigger = "hog",
	  .cgroup = "/a",
	  .pid = 2376,
	  .rss = 24841 * PAGE,
	  .usage = 102400 * KIB,
	  .limit = 102400 * KIB,
	  .failures = 181,
	  .processes = 2,
	  .largest = 24841,
	  .anon = NONE,
	  .constraint = OOM_CONSTRAINT_MEMCG },
	{ .log = "2.6.32-rhel6",
	  .time = "6710784.707978",
	  .name = "java",
	  .trigger = "java",
	  .cgroup = "/LXC011175068174",
	  .pid = 215701,
	  .rss = (7152432 + 1232) * KIB,
	  .total_vm = 11017300 * KIB,
	  .limit = 8388608 * KIB,
	  .failures = 9811123,
	  .processes = 2,
	  .largest = 1788416,
	  .constraint = OOM_CONSTRAINT_MEMCG },
	{ .log = "2.6.34-vsz",
	  .time = "501.020002",
	  .name = "evince",
	  .pid = 1900,
	  .rss = (719300 + 876) * KIB,
	  .total_vm = 880044 * KIB,
	  .processes = 1,
	  .constraint = OOM_CONSTRAINT_NONE },
	{ .log = "3.2-syslog-memcg",
	  .time = "Sep  5 11:05:35",
	  .name = "apache2",
	  .cgroup = "/1066",
	  .pid = 1046,
	  .rss = (377928 + 4036) * KIB,
	  .limit = 512000 * KIB,
	  .failures = 2371,
	  .processes = 2,
	  .largest = 95491,
	  .largest_name = "apache2",
	  .constraint = OOM_CONSTRAINT_MEMCG },
	{ .log = "3.7-memcg",
	  .time = "204.316361",
	  .name = "mal-80",
	  .cgroup = "/1",
	  .pid = 2376,
	  .rss = (71020 + 344) * KIB,
	  .limit = 102400 * KIB,
	  .failures = 181,
	  .anon = NONE,
	  .processes = 3,
	  .largest = 17841,
	  .constraint = OOM_CONSTRAINT_MEMCG },
	{ .log = "3.10-rhel7",
	  .time = "2486967.060470",
	  .name = "grep",
	  .cgroup = "/site133",
	  .pid = 25892,
	  .rss = (522012 + 80) * KIB,
	  .limit = 524288 * KIB,
	  .failures = 153,
	  .anon = 524288 * KIB,
	  .swap = 772 * KIB,
	  .processes = 3,
	  .largest = 130523,
	  .largest_name = "grep",
	  .constraint = OOM_CONSTRAINT_MEMCG },
	/* Statistics of each child group by itself; memory+swap was full. */
	{ .log = "3.16-children",
	  .time = "269.225766",
	  .name = "mal",
	  .cgroup = "/A",
	  .pid = 4611,
	  .rss = (360632 + 292) * KIB,
	  .usage = 511732 * KIB,
	  .limit = 512000 * KIB,
	  .anon = (100 + 511624) * KIB,
	  .file = 12 * KIB,
	  .swap = 51468 * KIB,
	  .processes = 3,
	  .largest = 90231,
	  .constraint = OOM_CONSTRAINT_MEMCG },
	{ .log = "3.10-global-syslog",
	  .time = "Jun  4 17:19:10",
	  .name = "java",
	  .trigger = "AliYunDun",
	  .pid = 2211,
	  .rss = 7244128 * KIB,
	  .anon = (1832021 + 100212 - 100480) * PAGE,
	  .file = (120 + 231) * PAGE,
	  .processes = 3,
	  .largest = 1811032,
	  .largest_name = "java",
	  .constraint = OOM_CONSTRAINT_NONE },
	{ .log = "3.10-mail-quoted",
	  .time = "Jan  4 15:22:55",
	  .name = "cc1",
	  .trigger = "cc1",
	  .pid = 1303,
	  .rss = (1240100 + 48) * KIB,
	  .total_vm = 1603472 * KIB,
	  .processes = 2,
	  .largest = 310037,
	  .largest_name = "cc1",
	  .constraint = OOM_CONSTRAINT_NONE },
	{ .log = "3.16-mempolicy",
	  .name = "(sd-pam)",
	  .trigger = "numactl",
	  .pid = 991,
	  .rss = 2008 * KIB,
	  .constraint = OOM_CONSTRAINT_MEMORY_POLICY },
	{ .log = "4.9-reaper",
	  .time = "812.100160",
	  .name = "stress",
	  .pid = 921,
	  .rss = (1880300 + 140 + 4) * KIB,
	  .anon = (480111 + 2021 - 2111) * PAGE,
	  .file = (31 + 44) * PAGE,
	  .processes = 2,
	  .largest = 470111,
	  .constraint = OOM_CONSTRAINT_NONE },
	{ .log = "4.14-puds",
	  .name = "node",
	  .cgroup = "/kubepods/burstable/pod7f1c",
	  .pid = 7512,
	  .rss = (254804 + 9240) * KIB,
	  .limit = 262144 * KIB,
	  .failures = 21,
	  .anon = 256972 * KIB,
	  .file = 4 * KIB,
	  .shmem = 2048 * KIB,
	  .processes = 2,
	  .largest = 66011,
	  .largest_name = "node",
	  .constraint = OOM_CONSTRAINT_MEMCG },
	{ .log = "4.19-memcg",
	  .name = "python3",
	  .cgroup = "/lxc/web",
	  .pid = 2212,
	  .rss = (393300 + 8340 + 4) * KIB,
	  .limit = 1048576 * KIB,
	  .shmem = 639000 * KIB,
	  .file = 1000 * KIB,
	  .anon = 394484 * KIB,
	  .processes = 2,
	  .largest = 100411,
	  .constraint = OOM_CONSTRAINT_MEMCG },
	{ .log = "5.0-context-and-choice",
	  .name = "worker",
	  .cgroup = "/jobs/7",
	  .pid = 5021,
	  .rss = (63900 + 4144) * KIB,
	  .limit = 65536 * KIB,
	  .failures = 12,
	  .processes = 1,
	  .largest = 17011,
	  .constraint = OOM_CONSTRAINT_MEMCG },
	{ .log = "5.10-dmesg-T",
	  UWSGI,
	  UWSGI_TABLE,
	  UWSGI_RSS,
	  .time = "Thu Apr  1 16:45:10 2021" },
	{ .log = "5.10-dmesg-T-no-kill-line",
	  .name = "uwsgi",
	  .pid = 11638,
	  .cgroup = POD,
	  .rss = 76320 * PAGE,
	  UWSGI_TABLE,
	  .time = "Thu Apr  1 16:45:10 2021",
	  .is_uncertain = true,
	  .constraint = OOM_CONSTRAINT_MEMCG },
	{ .log = "5.10-kmsg", UWSGI, UWSGI_TABLE, UWSGI_RSS, .time = "3703.930616" },
	{ .log = "5.10-journal-iso",
	  UWSGI,
	  UWSGI_TABLE,
	  UWSGI_RSS,
	  .time = "2021-04-01T16:45:10+0200" },
	{ .log = "5.10-rsyslog-escaped", UWSGI, UWSGI_TABLE, UWSGI_RSS, .time = "Apr  1 16:45:10" },
	{ .log = "5.10-squeezed", UWSGI, UWSGI_RSS, .processes = SIZE_MAX, .time = "" },
	{ .log = "5.10-backslashes",
	  .time = "Apr 15 23:04:52",
	  .name = "tail",
	  .trigger = "head",
	  .cgroup = "/ecstasks.slice/ecstasks-488f.slice",
	  .pid = 51947,
	  .rss = (458176 + 772) * KIB,
	  .constraint = OOM_CONSTRAINT_MEMCG },
	{ .log = "5.15-caller",
	  .time = "599.537757",
	  .name = "syz-executor.1",
	  .cgroup = "/syz1",
	  .trigger = "syz-executor.1",
	  .pid = 23028,
	  .rss = (436 + 8888 + 48) * KIB,
	  .limit = 307200 * KIB,
	  .kernel = 306492 * KIB,
	  .constraint = OOM_CONSTRAINT_MEMCG },
	{ .log = "5.15-cpuset",
	  .name = "Web Content",
	  .pid = 8812,
	  .rss = 2001024 * KIB,
	  .constraint = OOM_CONSTRAINT_CPUSET },
	{ .log = "6.1-short-unix",
	  .time = "1787068905.418280",
	  .name = "chrome-headless",
	  .trigger = "chrome-headless",
	  .pid = 2664087,
	  .rss = (3258100 + 81560 + 6312) * KIB,
	  .cgroup = "/user.slice/user-1000.slice/user@1000.service/app.slice/"
		    "run-p2663687-i11052929.scope",
	  .constraint = OOM_CONSTRAINT_MEMCG },
	{ .log = "6.6-lines", UWSGI, UWSGI_TABLE, UWSGI_RSS, .time = "9123.123456" },
	{ .log = "6.6-no-prefix", UWSGI, UWSGI_TABLE, UWSGI_RSS, .time = "" },
	{ .log = "6.8-global",
	  .name = "stress-ng-vm",
	  .trigger = "stress-ng-vm",
	  .pid = 116,
	  .rss = (7980628 + 564) * KIB,
	  .anon = (4193 + 1995298 - 4172) * PAGE,
	  .shmem = 4172 * PAGE,
	  .processes = 3,
	  .largest = 1995298,
	  .largest_name = "stress-ng-vm",
	  .constraint = OOM_CONSTRAINT_NONE },
	{ .log = "6.8-dmesg-T-other-language",
	  .name = "astar-collator",
	  .trigger = "systemd",
	  .pid = 1888,
	  .rss = 15096608 * KIB,
	  .constraint = OOM_CONSTRAINT_NONE },
	{ .log = "6.8-next-build",
	  .time = "2026-09-19T17:27:56.877095+00:00",
	  .name = "next-build (v16",
	  .pid = 3963629,
	  .rss = (1615396 + 112520) * KIB,
	  .processes = 1,
	  .largest = 431979,
	  .largest_name = "next-build (v16",
	  .constraint = OOM_CONSTRAINT_MEMCG },
	{ .log = "6.18-kmsg", PYTHON, PYTHON_TABLE, .time = "3703.930635" },
	{ .log = "6.18-raw", PYTHON, PYTHON_TABLE, .time = "3703.930845" },
	{ .log = "6.18-squeezed", PYTHON, .processes = SIZE_MAX, .time = "3703.930845" },
	{ .log = "6.18-kernel-tag", PYTHON, PYTHON_TABLE, .time = "" },
	{ .log = "twice-console-and-journal", PYTHON, PYTHON_TABLE, .time = "3703.930845" },

	/* Several. */
	{ .log = "6.x-group",
	  .kills = 2,
	  .name = "tini",
	  .pid = 22600,
	  .rss = 4 * KIB,
	  .cgroup = "/kubepods.slice/kubepods-burstable-pod94eb.slice",
	  .processes = 2,
	  .limit = 4194304 * KIB,
	  .failures = 1273284,
	  .constraint = OOM_CONSTRAINT_MEMCG },
	{ .log = "6.x-rate-limited",
	  .kills = 3,
	  .name = "c",
	  .pid = 103,
	  .rss = 908 * KIB,
	  .processes = SIZE_MAX,
	  .limit = NONE,
	  .constraint = OOM_CONSTRAINT_NONE },
};

static bool is_text(const char *log, const char *what, const char *is, const char *should)
{
	if (!should || !strcmp(is ? is : "(none)", should))
		return true;
	print_error("%s: %s is `%s`, not `%s`\n", log, what, is ? is : "(none)", should);
	return false;
}

static bool is_number(const char *log, const char *what, uint64_t is, uint64_t should)
{
	if (!should || is == should)
		return true;
	print_error("%s: %s is %lld, not %lld\n", log, what, (long long)is, (long long)should);
	return false;
}

static bool is_report(const struct truth *truth, const struct oom_report *report)
{
	const char *log = truth->log;
	const struct oom_counter *counter = &report->counters[OOM_COUNTER_MEMORY];
	const struct oom_memory *memory = &report->memory;
	const struct oom_process *largest = report->processes.data;
	bool right = is_text(log, "trigger", report->trigger, truth->trigger);

	right &= is_text(log, "cgroup", report->cgroup, truth->cgroup);
	right &= is_number(log, "constraint", report->constraint, truth->constraint);
	right &= is_number(log, "usage", counter->usage, truth->usage);
	right &= is_number(log, "limit", counter->limit, truth->limit);
	right &= is_number(log, "failures", counter->failures, truth->failures);
	right &= is_number(log, "anon", memory->anon, truth->anon);
	right &= is_number(log, "file", memory->file, truth->file);
	right &= is_number(log, "shmem", memory->shmem, truth->shmem);
	right &= is_number(log, "kernel", memory->kernel, truth->kernel);
	right &= is_number(log, "swap", memory->swap, truth->swap);
	if (truth->processes)
		right &= is_number(log, "processes", report->processes.size + 1,
				   truth->processes + 1 ? truth->processes + 1 : 1);
	if (truth->largest && largest) {
		right &= is_number(log, "largest", largest->rss, truth->largest * PAGE);
		right &= is_text(log, "largest", largest->name, truth->largest_name);
	}
	return right;
}

static bool is_true(const struct truth *truth, const struct oom_log *log)
{
	const struct oom_kill *kill;
	bool right = true;

	if (!is_number(truth->log, "kills", log->kills.size, truth->kills ? truth->kills : 1) ||
	    !log->kills.size)
		return false;
	right &= is_number(truth->log, "without kill", log->without_kill + 1, 1);
	kill = &log->kills.data[log->kills.size - 1];
	right &= is_text(truth->log, "time", kill->time, truth->time);
	right &= is_text(truth->log, "name", kill->name, truth->name);
	right &= is_number(truth->log, "pid", (uint64_t)kill->pid, (uint64_t)truth->pid);
	right &= is_number(truth->log, "rss", kill->rss, truth->rss);
	right &= is_number(truth->log, "total_vm", kill->total_vm, truth->total_vm);
	right &=
		is_number(truth->log, "certain", kill->is_certain + 1, truth->is_uncertain ? 1 : 2);
	return is_report(truth, &log->reports.data[kill->report]) && right;
}

static void test_logs(void **state)
{
	bool right = true;

	for (size_t i = 0; i < sizeof(truths) / sizeof(*truths); i++) {
		size_t size;
		char *text = oom_read_log(truths[i].log, &size);

		for (size_t step = 1; step <= size * 7; step *= 7) {
			struct oom_log log = oom_parse(text, size, step);

			right &= is_true(&truths[i], &log);
			oom_log_deinit(&log);
		}
		free(text);
	}
	assert_true(right);
}

/* As a terminal of @width columns shows it, and as it comes out of its clipboard. */
static char *wrap(const char *text, size_t size, size_t width, size_t *size_ret)
{
	char *wrapped = malloc(size * 2);
	size_t to = 0, column = 0;

	for (size_t i = 0; i < size; i++) {
		if (column == width && text[i] != '\n') {
			wrapped[to++] = '\n';
			column = 0;
		}
		wrapped[to++] = text[i];
		column = text[i] == '\n' ? 0 : column + 1;
	}
	*size_ret = to;
	return wrapped;
}

static void test_wrapped(void **state)
{
	static const char *const logs[] = {
		"2.6.32-global",      "2.6.32-rhel6",	"3.10-rhel7",
		"3.10-global-syslog", "3.16-children",	"4.4-article",
		"4.14-puds",	      "4.19-memcg",	"5.0-context-and-choice",
		"5.15-caller",	      "6.1-short-unix", "6.8-global",
		"6.18-raw",
	};
	bool right = true;

	for (size_t i = 0; i < sizeof(logs) / sizeof(*logs); i++) {
		const struct truth *truth = truths;
		size_t size, wrapped_size;
		char *text = oom_read_log(logs[i], &size);

		while (strcmp(truth->log, logs[i]) != 0)
			truth++;
		for (size_t width = 60; width < 200; width += 3) {
			char *wrapped = wrap(text, size, width, &wrapped_size);
			struct oom_log log = oom_parse(wrapped, wrapped_size, wrapped_size);

			if (!is_true(truth, &log)) {
				print_error("... at width %zu\n", width);
				right = false;
			}
			oom_log_deinit(&log);
			free(wrapped);
		}
		free(text);
	}
	assert_true(right);
}

/* Every line break as @by: a blank, or nothing at all ('\0'). */
static bool is_true_joined(const char *name, char by)
{
	const struct truth *truth = truths;
	size_t size, to = 0;
	char *text = oom_read_log(name, &size);
	struct oom_log log;
	bool right;

	while (strcmp(truth->log, name) != 0)
		truth++;
	for (size_t i = 0; i < size; i++)
		if (text[i] != '\n' || by)
			text[to++] = text[i] == '\n' ? by : text[i];
	log = oom_parse(text, to, to);
	right = is_true(truth, &log);
	oom_log_deinit(&log);
	free(text);
	return right;
}

static void test_joined(void **state)
{
	static const char *const logs[] = { "2.6.32-memcg",  "3.10-rhel7", "4.4-article",
					    "4.4-no-prefix", "4.14-puds",  "6.8-global",
					    "6.18-raw",	     "6.6-lines",  "6.6-no-prefix" };
	bool right = true;

	for (size_t i = 0; i < sizeof(logs) / sizeof(*logs); i++) {
		right &= is_true_joined(logs[i], ' ');
		right &= is_true_joined(logs[i], '\0');
	}
	assert_true(right);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_logs),
		cmocka_unit_test(test_wrapped),
		cmocka_unit_test(test_joined),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
