#include "fault_pages.h"

#include <stdlib.h>

#include "memprobe/arch.h"
#include "pages.h"

#define BLOCK_BYTES (FAULT_BLOCK_PAGES * PAGE_SIZE)

/* fault_around_bytes of Linux mm/memory.c. Also the usual size of a middle-sized huge page. */
#define AROUND_PAGES 16u

void fault_pages_deinit(struct fault_pages *pages)
{
	vec_for_each (place, &pages->blocks)
		free(place->block);
	fault_block_vec_deinit(&pages->blocks);
	hash_index_deinit(&pages->index);
	range_map_deinit(&pages->calls);
	*pages = (struct fault_pages){ 0 };
}

/* ---- blocks ---- */

struct search {
	const struct fault_pages *pages;
	uint64_t number;
};

static bool is_block(const void *context, uint32_t id)
{
	const struct search *search = context;

	return search->pages->blocks.data[id].block->number == search->number;
}

static uint32_t hash_of(uint64_t number)
{
	return hash_fold(hash_word(HASH_SEED, number));
}

/* NULL: there is none. */
static struct fault_block *find_block(struct fault_pages *pages, uint64_t number)
{
	const struct search search = { pages, number };
	uint32_t id;

	if (pages->last && pages->last->number == number)
		return pages->last;
	id = hash_index_find(&pages->index, hash_of(number), is_block, &search);
	if (id == HASH_INDEX_NONE)
		return NULL;
	pages->last = pages->blocks.data[id].block;
	return pages->last;
}

static struct error *make_block(struct fault_pages *pages, uint64_t number,
				struct fault_block **ret)
{
	struct fault_block *block = calloc(1, sizeof(*block));
	struct error *error;

	if (!block)
		return &error_no_memory;
	block->number = number;
	error = fault_block_vec_append(&pages->blocks, &(struct fault_block_place){ block });
	if (error) {
		free(block);
		return error;
	}
	error = hash_index_add(&pages->index, hash_of(number), (uint32_t)pages->blocks.size - 1);
	if (!error)
		*ret = pages->last = block;
	return error;
}

static struct error *put(struct fault_pages *pages, uint64_t address, uint32_t value)
{
	struct fault_block *block = find_block(pages, address / BLOCK_BYTES);
	struct error *error = NULL;

	if (!block)
		error = make_block(pages, address / BLOCK_BYTES, &block);
	if (!error)
		block->stacks[address / PAGE_SIZE % FAULT_BLOCK_PAGES] = value;
	return error;
}

struct error *fault_pages_set(struct fault_pages *pages, uint64_t address, uint32_t stack)
{
	return put(pages, address, stack + 1);
}

/* ---- what system calls do ---- */

/* The blocks that are there of [start, end), in any order: *at_ret counts from 0. Ranges may be
 * larger than all memory. */
static struct fault_block *next_block(struct fault_pages *pages, uint64_t start, uint64_t end,
				      uint64_t *at_ret)
{
	uint64_t first = start / BLOCK_BYTES, last = (end - 1) / BLOCK_BYTES;

	if (last - first < pages->blocks.size) {
		while (first + *at_ret <= last) {
			struct fault_block *block = find_block(pages, first + (*at_ret)++);

			if (block)
				return block;
		}
		return NULL;
	}
	while (*at_ret < pages->blocks.size) {
		struct fault_block *block = pages->blocks.data[(*at_ret)++].block;

		if (block->number >= first && block->number <= last)
			return block;
	}
	return NULL;
}

static void clear(struct fault_pages *pages, uint64_t start, uint64_t end)
{
	struct fault_block *block;
	uint64_t at = 0;

	while ((block = next_block(pages, start, end, &at)) != NULL)
		for (unsigned i = 0; i < FAULT_BLOCK_PAGES; i++) {
			uint64_t address = block->number * BLOCK_BYTES + i * PAGE_SIZE;

			if (address >= start && address < end)
				block->stacks[i] = 0;
		}
}

struct error *fault_pages_populated(struct fault_pages *pages, uint64_t start, uint64_t end,
				    uint32_t stack)
{
	if (start >= end)
		return NULL;
	clear(pages, start, end);
	return range_map_set(&pages->calls, start, end, stack, NULL, NULL);
}

struct moved_page {
	uint64_t address;
	uint32_t value;
};

VEC_DEFINE(moved_page_vec, struct moved_page)

struct error *fault_pages_moved(struct fault_pages *pages, uint64_t from, uint64_t to,
				uint64_t size, uint32_t stack)
{
	struct moved_page_vec moved = { 0 };
	struct error *error = NULL;
	struct fault_block *block;
	uint64_t at = 0;

	if (!size || from + size < from || to + size < to)
		return NULL;
	while (!error && (block = next_block(pages, from, from + size, &at)) != NULL)
		for (unsigned i = 0; i < FAULT_BLOCK_PAGES && !error; i++) {
			uint64_t address = block->number * BLOCK_BYTES + i * PAGE_SIZE;
			struct moved_page page = { address - from + to, block->stacks[i] };

			if (page.value && address >= from && address < from + size)
				error = moved_page_vec_append(&moved, &page);
		}
	clear(pages, from, from + size);
	if (!error)
		error = range_map_erase(&pages->calls, from, from + size, NULL, NULL);
	if (!error)
		error = fault_pages_populated(pages, to, to + size, stack);
	for (size_t i = 0; i < moved.size && !error; i++)
		error = put(pages, moved.data[i].address, moved.data[i].value);
	moved_page_vec_deinit(&moved);
	return error;
}

/* ---- at the end ---- */

/* The nearest page with a fault in [first, end) of the block; 0: none. */
static uint32_t nearest(const struct fault_block *block, unsigned page, unsigned first,
			unsigned end)
{
	for (unsigned distance = 1; distance < FAULT_BLOCK_PAGES; distance++) {
		if (page >= first + distance && block->stacks[page - distance])
			return block->stacks[page - distance];
		if (page + distance < end && block->stacks[page + distance])
			return block->stacks[page + distance];
	}
	return 0;
}

uint32_t fault_pages_owner(struct fault_pages *pages, uint64_t address, unsigned flags)
{
	struct fault_block *block = find_block(pages, address / BLOCK_BYTES);
	unsigned page = (unsigned)(address / PAGE_SIZE % FAULT_BLOCK_PAGES);
	const struct range_map_entry *call;

	if (block && block->stacks[page])
		return block->stacks[page] - 1;
	call = range_map_find(&pages->calls, address);
	if (call)
		return call->value;
	if (block) {
		unsigned first = flags & PAGES_HUGE ? 0 : page / AROUND_PAGES * AROUND_PAGES;
		unsigned end = flags & PAGES_HUGE ? FAULT_BLOCK_PAGES : first + AROUND_PAGES;
		uint32_t value = nearest(block, page, first, end);

		if (value)
			return value - 1;
	}
	return STACK_NONE;
}
