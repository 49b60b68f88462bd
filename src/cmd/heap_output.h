/*
 * heap_output.h - a census as a table, as JSON, and in the formats of stacks.
 */
#ifndef HEAP_OUTPUT_H
#define HEAP_OUTPUT_H

#include "heap_coverage.h"
#include "memprobe/census.h"
#include "memprobe/cmd.h"
#include "profile_output.h"

struct heap_report {
	enum census_by by;
	struct census census;
	struct heap_stats stats;       /* the allocator's figures of the same instant */
	uint64_t own_count, own_bytes; /* blocks that the allocator has made for itself */
	struct heap_coverage coverage;
};

/* With output->format, @report has to have all groups. */
struct error *heap_report_write(struct command_context *context, const struct heap_report *report,
				const struct profile_output *output);

#endif
