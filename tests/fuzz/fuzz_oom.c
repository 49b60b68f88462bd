/* libFuzzer: any bytes as a kernel log, in pieces, too. */
#include <assert.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "memprobe/oom.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

static struct oom_log parse(const char *text, size_t size, size_t step)
{
	struct oom_parser *parser;
	struct oom_log log;

	if (oom_parser_create(&parser))
		abort();
	for (size_t at = 0; at < size; at += step)
		if (oom_parser_feed(parser, text + at, size - at < step ? size - at : step))
			abort();
	if (oom_parser_finish(parser, &log))
		abort();
	oom_parser_destroy(parser);
	return log;
}

static void check_size(uint64_t bytes)
{
	assert(bytes <= OOM_LARGEST || bytes == OOM_UNKNOWN);
}

static void check_report(const struct oom_report *report)
{
	uint64_t before = UINT64_MAX;

	assert(report->reached <= OOM_COUNTERS);
	assert(memchr(report->trigger, '\0', sizeof(report->trigger)));
	assert(!report->cgroup || *report->cgroup);
	assert(!report->task_cgroup || *report->task_cgroup);
	for (size_t i = 0; i < OOM_COUNTERS; i++) {
		check_size(report->counters[i].usage);
		check_size(report->counters[i].limit);
	}
	check_size(report->memory.anon);
	check_size(report->memory.file);
	check_size(report->memory.kernel);
	check_size(report->memory.swap);
	vec_for_each (process, &report->processes) {
		assert(process->pid > 0 && memchr(process->name, '\0', sizeof(process->name)));
		assert(process->rss <= before);
		before = process->rss;
		check_size(process->total_vm);
		check_size(process->page_tables);
	}
}

/* Whatever the sizes of the pieces. */
static void check_same(const struct oom_log *one, const struct oom_log *two)
{
	assert(one->kills.size == two->kills.size && one->reports.size == two->reports.size);
	for (size_t i = 0; i < one->kills.size; i++) {
		const struct oom_kill *kill = &one->kills.data[i];
		const struct oom_kill *other = &two->kills.data[i];

		assert(kill->pid == other->pid && kill->rss == other->rss);
		assert(!strcmp(kill->time, other->time) && !strcmp(kill->name, other->name));
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
	struct oom_log log = parse((const char *)bytes, size, size ? size : 1), pieces;
	size_t last = 0;

	vec_for_each (kill, &log.kills) {
		assert(kill->pid > 0 && kill->report < log.reports.size && kill->report >= last);
		assert(memchr(kill->name, '\0', sizeof(kill->name)));
		assert(memchr(kill->time, '\0', sizeof(kill->time)));
		check_size(kill->rss);
		last = kill->report;
	}
	vec_for_each (report, &log.reports)
		check_report(report);
	pieces = parse((const char *)bytes, size, size ? 1 + bytes[0] % 64 : 1);
	check_same(&log, &pieces);
	oom_log_deinit(&pieces);
	oom_log_deinit(&log);
	return 0;
}
