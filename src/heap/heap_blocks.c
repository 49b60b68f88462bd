#include "memprobe/heap_blocks.h"

#include <stdlib.h>

#include "walk.h"

static int compare_blocks(const void *left, const void *right)
{
	const struct heap_block *a = left, *b = right;

	return a->address < b->address ? -1 : a->address > b->address;
}

static struct error *add_region(struct heap *heap, const struct heap_block *block)
{
	const struct heap_region region = {
		.start = block->address,
		.end = block->address + block->size,
		.base = block->address,
		.limit = block->address + block->size,
		.mmapped = true,
	};

	return heap_region_vec_append(&heap->regions, &region);
}

struct error *heap_of_blocks(struct target *target, const struct mapping_vec *maps,
			     struct heap_block_vec *blocks, struct heap **ret)
{
	cleanup(heap) struct heap *heap = calloc(1, sizeof(*heap));
	struct error *error = NULL;
	uint64_t end = 0;

	if (!heap)
		return &error_no_memory;
	heap->target = target;
	heap->maps = maps;
	heap->alignment = target->arch->word_size;
	if (blocks->size)
		qsort(blocks->data, blocks->size, sizeof(*blocks->data), compare_blocks);
	vec_for_each (block, blocks) {
		uint64_t block_end;

		if (error || !block->size || block->address < end ||
		    __builtin_add_overflow(block->address, block->size, &block_end))
			continue;
		error = add_region(heap, block);
		end = block_end;
	}
	if (!error)
		error = heap_lay_out(heap);
	if (error)
		return error;
	vec_for_each (region, &heap->regions) {
		heap_set_bit(heap->starts, region->first);
		heap_set_bit(heap->in_use, region->first);
	}
	*ret = take_pointer(heap);
	return NULL;
}
