/*
 * trim_forecast.h - what glibc's malloc_trim() would give back, and what keeps the rest.
 *
 * The same sums as mtrim() and systrim() (malloc/malloc.c, 2.12 to 2.43) do, after the
 * consolidation of fast bins that precedes them, crossed with the pages that are there: bytes that
 * really come back. Thread caches are not given back.
 */
#ifndef MEMPROBE_TRIM_FORECAST_H
#define MEMPROBE_TRIM_FORECAST_H

#include "memprobe/heap.h"

/* Bytes, of pages that are present (or swapped out). */
struct trim_arena {
	uint64_t inner; /* whole pages inside free chunks */
	uint64_t top;	/* from the end of the main arena */
	uint64_t
		top_kept; /* pages in the top chunk that stay: malloc_trim() leaves other arenas' */
	uint64_t free;	  /* in free chunks but the top, whether their pages are present or not */
	/* Of that, beside live blocks on the same pages, so that it stays. */
	uint64_t pinned;
	uint64_t pinning_blocks, pinning_bytes; /* the neighbours of what is pinned */
};

/* A block, without which more could be given back. */
struct trim_pin {
	uint64_t address, size;
	enum heap_state state; /* HEAP_IN_USE or HEAP_TCACHE */
	unsigned arena;
	uint64_t pins; /* bytes around it in whole pages, its own not counted */
};

VEC_DEFINE(trim_arena_vec, struct trim_arena)
VEC_DEFINE(trim_pin_vec, struct trim_pin)

#define TRIM_PINS_MAX 20u

struct trim_forecast {
	struct trim_arena_vec arenas; /* as heap->arenas */
	uint64_t released;	      /* inner and top of all */
	struct trim_pin_vec pins;     /* that pin most, at most TRIM_PINS_MAX, most first */
};

/* *ret has to be zeroed. @pad: as malloc_trim() takes it. */
struct error *trim_forecast(const struct heap *heap, uint64_t pad, struct trim_forecast *ret);
void trim_forecast_deinit(struct trim_forecast *forecast);

#endif
