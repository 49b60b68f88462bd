/*
 * memory_walk.h - the bytes of a range of a target, in order, with bounded memory.
 */
#ifndef MEMPROBE_MEMORY_WALK_H
#define MEMPROBE_MEMORY_WALK_H

#include "memprobe/target.h"

/* Called in the order of addresses, without overlaps or gaps; an error ends the walk. */
struct memory_visitor {
	struct error *(*bytes)(void *data, uint64_t address, const void *bytes, size_t size);
	/* Private memory that was never written: nothing was read there, nothing faulted in. */
	struct error *(*zeros)(void *data, uint64_t address, uint64_t size);
	/* Not mapped, or not readable. */
	struct error *(*missing)(void *data, uint64_t address, uint64_t size);
	void *data;
};

/*
 * Visits [start, end). @maps is sorted and may be older than the memory: what was unmapped since
 * is missing. Never stops the target. ERROR_PERMISSION where memory may not be read.
 */
struct error *memory_walk(struct target *target, const struct mapping_vec *maps, uint64_t start,
			  uint64_t end, const struct memory_visitor *visitor);

/* Whether any of [start, end) is mapped. */
bool memory_is_mapped(const struct mapping_vec *maps, uint64_t start, uint64_t end);

/* The first mapping that ends behind @address: maps->data + maps->size if there is none. */
const struct mapping *memory_first_behind(const struct mapping_vec *maps, uint64_t address);

/* Whether a page of it that is neither present nor swapped out is all zeros. */
bool memory_is_private(const struct mapping *mapping);

#endif
