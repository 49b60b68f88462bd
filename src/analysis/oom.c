#include "memprobe/oom.h"

#include <stdlib.h>

#include "oom_parser.h"

struct error *oom_parser_create(struct oom_parser **ret)
{
	struct oom_parser *parser = calloc(1, sizeof(*parser));

	if (!parser)
		return &error_no_memory;
	parser->line = malloc(OOM_LINE_MAX);
	parser->record = malloc(OOM_RECORD_MAX);
	if (!parser->line || !parser->record) {
		oom_parser_destroy(parser);
		return &error_no_memory;
	}
	*ret = parser;
	return NULL;
}

struct error *oom_parser_feed(struct oom_parser *parser, const char *bytes, size_t size)
{
	return oom_lines_feed(parser, bytes, size);
}

struct error *oom_parser_finish(struct oom_parser *parser, struct oom_log *ret)
{
	struct error *error = oom_lines_finish(parser);

	if (!error)
		error = oom_report_close(parser);
	if (error)
		return error;
	*ret = parser->log;
	parser->log = (struct oom_log){ 0 };
	return NULL;
}

void oom_parser_destroy(struct oom_parser *parser)
{
	if (!parser)
		return;
	free(parser->now.statistics_path);
	free(parser->line);
	free(parser->record);
	oom_log_deinit(&parser->log);
	free(parser);
}

const char *oom_constraint_name(enum oom_constraint constraint)
{
	static const char *const names[] = {
		[OOM_CONSTRAINT_NONE] = "none",
		[OOM_CONSTRAINT_CPUSET] = "cpuset",
		[OOM_CONSTRAINT_MEMORY_POLICY] = "memory_policy",
		[OOM_CONSTRAINT_MEMCG] = "memcg",
	};

	return names[constraint];
}

const char *oom_counter_name(enum oom_counter_kind kind)
{
	static const char *const names[] = {
		[OOM_COUNTER_MEMORY] = "memory", [OOM_COUNTER_MEMORY_SWAP] = "memory+swap",
		[OOM_COUNTER_KMEM] = "kmem",	 [OOM_COUNTER_SWAP] = "swap",
		[OOM_COUNTERS] = NULL,
	};

	return names[kind];
}
