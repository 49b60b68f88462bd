/*
 * heap_blocks.h - a heap that is made of given blocks: what a pool has handed out.
 */
#ifndef MEMPROBE_HEAP_BLOCKS_H
#define MEMPROBE_HEAP_BLOCKS_H

#include "memprobe/heap.h"

struct heap_block {
	uint64_t address, size; /* bytes */
};

VEC_DEFINE(heap_block_vec, struct heap_block)

/*
 * All of @blocks are in use, each in a region of its own; all other memory is none of the heap's,
 * and so a root for leaks_find(). Sorts @blocks; what is empty or overlaps the one before is left
 * out. Nothing is read. @maps is lent for the life of the heap.
 */
struct error *heap_of_blocks(struct target *target, const struct mapping_vec *maps,
			     struct heap_block_vec *blocks, struct heap **ret);

#endif
