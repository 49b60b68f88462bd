#include <inttypes.h>
#include <string.h>

#include "frozen_heap.h"
#include "heap_contexts.h"
#include "heap_output.h"
#include "memprobe/log.h"
#include "memprobe/num.h"
#include "profile_output.h"

/* The JSON has every group, but of contents there can be millions. */
#define JSON_CONTENTS 10000u

static const struct command_option options[] = {
	{ "by", 0, "type|size|content|context",
	  "C++ classes (default), sizes, how blocks begin, or PostgreSQL's memory contexts" },
	OPTION_NO_FORK,
	PROFILE_FORMAT_OPTIONS,
	{ "top", 0, "N", "the N groups that hold most (default: 20 in a table, else all; 0: all)" },
	{ NULL, 0, NULL, NULL },
};

static struct error *choose_by(const struct command_context *context, enum census_by *ret)
{
	static const char *const names[] = {
		[CENSUS_BY_SIZE] = "size",
		[CENSUS_BY_TYPE] = "type",
		[CENSUS_BY_CONTENT] = "content",
	};
	const char *by = command_option(context, "by");

	*ret = CENSUS_BY_TYPE;
	if (!by)
		return NULL;
	for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		if (strcmp(by, names[i]))
			continue;
		*ret = i;
		return NULL;
	}
	return error_create(ERROR_USAGE, "--by takes type, size, content or context, not '%s'", by);
}

static bool see_own(void *data, const struct heap_chunk *chunk)
{
	struct heap_report *report = data;

	if (chunk->state == HEAP_OWN) {
		report->own_count++;
		report->own_bytes += chunk->size;
	}
	return true;
}

static void warn(struct command_context *context, const struct census *census)
{
	if (census->unread_count) {
		log_warn("%" PRIu64 " blocks of %" PRIu64 " bytes could not be read",
			 census->unread_count, census->unread_bytes);
		context->status = 6;
	}
	frozen_heap_warn_of_types(census->types);
	if (census->missed_max)
		log_warn("there are too many contents to count them all: groups of up to %" PRIu64
			 " blocks may be missing",
			 census->missed_max);
}

static void hint(const struct command_context *context, const struct heap_report *report)
{
	if (report->by == CENSUS_BY_TYPE)
		command_hint(
			context,
			"`memprobe heap %s --by content` shows what is in the blocks, `memprobe "
			"leaks %s` which of them are unreachable",
			context->target_text, context->target_text);
	else if (report->by == CENSUS_BY_CONTENT && report->census.groups.size)
		command_hint(context,
			     "`memprobe find %s TEXT` shows where a text is; in BEGINS WITH, +N is "
			     "its offset in the block and # a number that differs",
			     context->target_text);
}

static struct error *take_census(struct command_context *context, const struct heap *heap,
				 const struct census_options *census_options,
				 struct heap_report *report)
{
	struct error *error = census_take(heap, census_options, &report->census);

	if (!error)
		error = heap_stats_of(heap, NULL, &report->stats);
	if (!error)
		heap_walk(heap, see_own, report);
	return error;
}

/* How many groups are wanted; 0: all. */
static uint64_t choose_top(const struct command_context *context, enum census_by by,
			   const struct profile_output *output)
{
	if (output->format)
		return 0;
	if (!context->json || command_option(context, "top"))
		return output->top;
	return by == CENSUS_BY_CONTENT ? JSON_CONTENTS : 0;
}

static struct error *run_census(struct command_context *context,
				const struct profile_output *output)
{
	struct census_options census_options = { 0 };
	struct frozen_heap frozen = { 0 };
	struct heap_report report = { 0 };
	struct error *error = choose_by(context, &census_options.by);

	census_options.top = choose_top(context, census_options.by, output);
	heap_stats_init(&report.stats);
	if (!error)
		error = frozen_heap_open(context, NULL, &frozen);
	report.by = census_options.by;
	if (!error)
		error = take_census(context, frozen.heap, &census_options, &report);
	if (!error) {
		frozen_heap_release(context, &frozen);
		warn(context, &report.census);
		heap_coverage_read(context->target, frozen.heap, &report.coverage);
		error = heap_report_write(context, &report, output);
	}
	if (!error && !output->format)
		hint(context, &report);
	census_deinit(&report.census);
	heap_stats_deinit(&report.stats);
	frozen_heap_close(context, &frozen);
	return error;
}

static struct error *run(struct command_context *context)
{
	const char *by = command_option(context, "by");
	struct profile_output output;
	struct error *error = profile_output_choose(context, &output);

	if (error)
		return error;
	return by && !strcmp(by, "context") ? heap_contexts_run(context, &output)
					    : run_census(context, &output);
}

const struct command cmd_heap = {
	.name = "heap",
	.arguments = "",
	.summary = "what fills the heap: blocks in use by C++ type, size, content or context",
	.target = TARGET_ANY,
	.options = options,
	.stops = true,
	.run = run,
};
