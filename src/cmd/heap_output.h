/*
 * heap_output.h - a census as a table and as JSON.
 */
#ifndef HEAP_OUTPUT_H
#define HEAP_OUTPUT_H

#include "memprobe/census.h"
#include "memprobe/cmd.h"

struct heap_report {
	enum census_by by;
	struct census census;
	struct heap_stats stats;       /* the allocator's figures of the same instant */
	uint64_t own_count, own_bytes; /* blocks that the allocator has made for itself */
};

struct error *heap_report_write(struct command_context *context, const struct heap_report *report);

#endif
