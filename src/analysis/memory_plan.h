/*
 * memory_plan.h - which stretches of a target's memory are to be read, in order, a few at a time.
 */
#ifndef MEMORY_PLAN_H
#define MEMORY_PLAN_H

#include "memprobe/range.h"
#include "memprobe/target.h"

#define PLAN_WINDOW_PAGES 8192u

/* Mapped memory: it holds something (or may), or the process has not touched its pages. */
struct plan_extent {
	uint64_t start, end;
	bool is_untouched;
	bool is_zeros; /* and that says what is in them */
};

/* To be read: [start - (before - untouched), end + after). Zeros lie around it: @untouched bytes
 * before @start, @zeros behind what is read. */
struct plan_piece {
	uint64_t start, end;
	size_t before, untouched, after, zeros;
};

struct plan {
	struct target *target;
	const struct mapping_vec *maps;
	const struct range_vec *ranges;
	size_t before, after; /* how much around a piece is wanted */
	/* Of the ranges, what is not mapped. */
	struct error *(*missing)(void *data, uint64_t start, uint64_t end);
	void *data;
	uint64_t left_out; /* bytes of shared memory that the process has not touched, so far */
	/* private */
	size_t range;
	uint64_t at;
	const struct mapping *mapping, *asked;
	enum page_backing backing; /* of @asked */
	uint64_t window_start, window_end;
	bool present[PLAN_WINDOW_PAGES];
	bool primed;
	struct plan_extent last, current, next; /* in a row; empty: none */
	uint64_t taken;				/* of @current, what comes before this */
	uint64_t data_start; /* since when memory that is read has no break, up to @current */
};

void plan_init(struct plan *plan, struct target *target, const struct mapping_vec *maps,
	       const struct range_vec *ranges);

/*
 * Measured: smaller blocks cost system calls, larger ones leave the cache.
 *
 * The pieces of the next PLAN_SPAN bytes of address space that has any. There may be none, after
 * many stretches of untouched pages; *end_ret: that was all.
 */
#define PLAN_SPAN   (256u << 10)
#define PLAN_PIECES (PLAN_SPAN / PAGE_SIZE)
struct error *plan_block(struct plan *plan, struct plan_piece pieces[PLAN_PIECES],
			 size_t *count_ret, bool *end_ret);

#endif
