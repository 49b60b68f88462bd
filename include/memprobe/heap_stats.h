/*
 * heap_stats.h - an allocator's figures, whichever way they were had.
 */
#ifndef MEMPROBE_HEAP_STATS_H
#define MEMPROBE_HEAP_STATS_H

#include <stdbool.h>
#include <stdint.h>

#include "memprobe/process.h"
#include "memprobe/vec.h"

/* What the method or the allocator cannot tell: null in the JSON, `-` in tables. */
#define STAT_UNKNOWN UINT64_MAX

/* Bytes, and numbers of chunks. Each is STAT_UNKNOWN or the truth. */
struct heap_figures {
	uint64_t system;     /* had from the kernel */
	uint64_t system_max; /* the most it ever was */
	uint64_t in_use, in_use_chunks;
	uint64_t free, free_chunks; /* fast bins and top included */
	uint64_t fast, fast_chunks; /* of free: in fast bins */
	/* Freed by the program but kept by threads: part of in_use as the allocator counts. */
	uint64_t tcache, tcache_chunks;
	uint64_t top; /* of free: the chunk that borders on the end */
};

struct arena_stats {
	unsigned index;
	bool is_main;
	uint64_t address;	/* 0: unknown */
	unsigned libc;		/* which copy of malloc it is of */
	const char *module;	/* path of that, lent by the target; NULL: unknown */
	bool threads_known;	/* else the vector is empty for want of knowledge */
	struct pid_vec threads; /* those that allocate from it */
	struct heap_figures figures;
};

VEC_DEFINE(arena_stats_vec, struct arena_stats)

/* A figure that only this allocator has, in bytes. */
struct heap_extra {
	const char *name; /* static; its key in `totals` */
	uint64_t value;
};

VEC_DEFINE(heap_extra_vec, struct heap_extra)

struct heap_stats {
	struct arena_stats_vec arenas;
	struct heap_figures totals; /* of the arenas, without what malloc mapped block by block */
	uint64_t mmapped_count, mmapped_bytes;
	struct heap_extra_vec extras;
};

/* Everything unknown, no arenas. */
void heap_stats_init(struct heap_stats *stats);
void heap_stats_deinit(struct heap_stats *stats);

void heap_figures_init(struct heap_figures *figures);

/* Sums up tcache, tcache_chunks and top; what is unknown of one arena is so of all. */
void heap_stats_sum_caches(struct heap_stats *stats);

/* Sums of each figure; what is unknown of one is so of both. */
void heap_figures_add(struct heap_figures *sum, const struct heap_figures *figures);

/* Adds @from, whose arenas are moved behind those of @to and numbered on. @to: initialised, or
 * filled. */
struct error *heap_stats_merge(struct heap_stats *to, struct heap_stats *from);

/* Appends an arena with unknown figures; *ret is valid until the next one. */
struct error *heap_stats_add_arena(struct heap_stats *stats, unsigned index,
				   struct arena_stats **ret);

#endif
