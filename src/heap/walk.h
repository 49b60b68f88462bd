/*
 * walk.h - what the walkers of allocators share: regions, bitmaps, issues.
 */
#ifndef WALK_H
#define WALK_H

#include "memprobe/heap.h"

static inline void heap_set_bit(uint64_t *bitmap, heap_index index)
{
	bitmap[index / 64] |= 1ull << (index % 64);
}

static inline void heap_clear_bit(uint64_t *bitmap, heap_index index)
{
	bitmap[index / 64] &= ~(1ull << (index % 64));
}

static inline uint64_t heap_address(const struct heap *heap, const struct heap_region *region,
				    heap_index index)
{
	return region->base + (index - region->first) * heap->alignment;
}

/* The number of the block that begins at exactly @address, or HEAP_NONE. */
heap_index heap_block_at(const struct heap *heap, uint64_t address);

/* Sorts the regions, drops those that overlap (an issue), gives the others their bits, and
 * allocates the bitmaps. */
struct error *heap_lay_out(struct heap *heap);

/* At most HEAP_ISSUES_MAX are kept. */
#define HEAP_ISSUES_MAX 32u
struct error *heap_add_issue(struct heap *heap, uint64_t address, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/* The same for @bytes of the heap that were not found, which says nothing against the heap. */
struct error *heap_add_missing(struct heap *heap, uint64_t address, uint64_t bytes,
			       const char *format, ...) __attribute__((format(printf, 4, 5)));

/* Forgets what a walk has found. */
void heap_reset(struct heap *heap);

#endif
