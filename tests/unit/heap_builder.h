/*
 * heap_builder.h - heaps of glibc's malloc, of any of its layouts, built into a fake target.
 *
 * A process with libc's data (main_arena and malloc_par), the break's heap and a piece of the main
 * arena from mmap(), one more arena with two heaps, a thread cache, fast bins, bins, and three
 * blocks mapped by themselves: one as usual, one in a mapping that the kernel has split, and one at
 * an alignment beyond a page. What lies where is random, but for the seed; what a walk must find is
 * told.
 */
#ifndef HEAP_BUILDER_H
#define HEAP_BUILDER_H

#include "fake.h"
#include "memprobe/heap.h"

enum cache_kind { CACHE_NONE, CACHE_CHAR, CACHE_SHORT, CACHE_SLOTS };

/* As the structs of the release have it. */
struct heap_shape {
	const char *versions;
	const struct arch *arch;
	unsigned fastbins, fastbin_count, top, bins, next, system_mem, size, heap_info, alignment;
	enum cache_kind cache;
	bool mangled;
	unsigned par_ints; /* ints in malloc_par before mmapped_mem: 4, or 5 from 2.35 on */
	bool par_total;	   /* max_total_mem, to 2.25 */
};

extern const struct heap_shape heap_shapes[];
extern const unsigned heap_shape_count;

struct expected_block {
	uint64_t address, size; /* of the block, usable */
	enum heap_state state;
	unsigned arena;
	bool mmapped;
};

VEC_DEFINE(expected_block_vec, struct expected_block)

#define BUILT_ARENAS  2u
#define BUILT_REGIONS 8u

struct built_region {
	uint64_t start;
	size_t size;
	uint8_t *bytes;
	const char *path;
};

struct built_heap {
	const struct heap_shape *shape;
	struct target *target;
	struct built_region regions[BUILT_REGIONS]; /* see lay_out() */
	uint64_t arenas[BUILT_ARENAS];
	struct expected_block_vec blocks; /* by address */
	struct heap_figures figures[BUILT_ARENAS];
	uint64_t mmapped_count, mmapped_bytes;
	uint64_t random;
};

void heap_build(struct built_heap *built, const struct heap_shape *shape, uint64_t seed);
void built_heap_deinit(struct built_heap *built);

/* A number below @limit, from the seed. */
uint64_t built_random(struct built_heap *built, uint64_t limit);

/* A word of the target's. */
uint64_t built_load(const struct built_heap *built, uint64_t address);
void built_store(struct built_heap *built, uint64_t address, uint64_t value);

#endif
