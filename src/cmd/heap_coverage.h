/*
 * heap_coverage.h - how much of a process's resident memory is the heap that was read.
 */
#ifndef HEAP_COVERAGE_H
#define HEAP_COVERAGE_H

#include "memprobe/diagnose.h"
#include "memprobe/heap.h"
#include "memprobe/records.h"

/* Bytes. Of a live process only: a core does not tell what was resident. */
struct heap_coverage {
	bool known;
	uint64_t rss;
	uint64_t walked;     /* of it: pages of the allocator whose heap was read */
	uint64_t anonymous;  /* of the rest: anonymous memory, stacks of threads included */
	const char *runtime; /* static; who may have that; NULL: nobody is known */
};

/* As good as can be had: where it cannot be read, it stays unknown. @live: the process itself, not
 * its snapshot. */
void heap_coverage_read(struct target *live, const struct heap *heap, struct heap_coverage *ret);

/* A runtime in @target that has memory beside malloc's, and its name for that: static; NULL: none
 * is known. */
const char *heap_coverage_runtime(struct target *target, enum diagnose_runtime *kind_ret);

/* {rss, walked, unexplained}, or null. */
json_t *heap_coverage_json(const struct heap_coverage *coverage);

/* A line, or nothing. */
void heap_coverage_print(FILE *out, struct table_style style, const struct heap_coverage *coverage);

#endif
