/*
 * mallinfo_output.h - an allocator's figures as a table and as JSON.
 */
#ifndef MALLINFO_OUTPUT_H
#define MALLINFO_OUTPUT_H

#include "heap_coverage.h"
#include "memprobe/cmd.h"
#include "memprobe/heap_stats.h"

/* @method: `call` or `walk`. @stats NULL: the allocator gave only @text; @text NULL: none was asked
 * for; @coverage NULL: it is not known. */
json_t *mallinfo_json(struct command_context *context, const char *method,
		      const struct heap_stats *stats, const struct heap_coverage *coverage,
		      const char *text);

struct error *mallinfo_print(struct command_context *context, const char *method,
			     const struct heap_stats *stats, const struct heap_coverage *coverage,
			     const char *allocator);

#endif
