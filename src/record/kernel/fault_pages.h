/*
 * fault_pages.h - who brought which page: the last fault on each.
 *
 * In blocks of 2 MiB, the size of a huge page, with a stack's number for each page.
 */
#ifndef RECORD_FAULT_PAGES_H
#define RECORD_FAULT_PAGES_H

#include <stdint.h>

#include "memprobe/hash_index.h"
#include "memprobe/stack_set.h"
#include "memprobe/vec.h"
#include "range_map.h"

#define FAULT_BLOCK_PAGES 512u

struct fault_block {
	uint64_t number;		    /* address / 2 MiB */
	uint32_t stacks[FAULT_BLOCK_PAGES]; /* number + 1; 0: no fault */
};

struct fault_block_place {
	struct fault_block *block;
};

VEC_DEFINE(fault_block_vec, struct fault_block_place)

/* A zeroed struct is empty. */
struct fault_pages {
	struct fault_block_vec blocks;
	struct hash_index index;
	struct range_map calls; /* what system calls brought or moved: the stack of the call */
	struct fault_block *last;
};

void fault_pages_deinit(struct fault_pages *pages);

struct error *fault_pages_set(struct fault_pages *pages, uint64_t address, uint32_t stack);

/* mmap(MAP_POPULATE), madvise(MADV_POPULATE_WRITE): earlier faults there are void. */
struct error *fault_pages_populated(struct fault_pages *pages, uint64_t start, uint64_t end,
				    uint32_t stack);

/*
 * mremap(2) has moved @size bytes. Pages that were brought meanwhile stay charged to who brought
 * them; others are charged to the call.
 */
struct error *fault_pages_moved(struct fault_pages *pages, uint64_t from, uint64_t to,
				uint64_t size, uint32_t stack);

/*
 * The stack that a page which is there now is charged to, STACK_NONE: nobody knows. @flags are
 * those of pages.h: a huge page is charged to a fault anywhere in it, a page of a file to one near
 * enough for the kernel's fault-around.
 */
uint32_t fault_pages_owner(struct fault_pages *pages, uint64_t address, unsigned flags);

#endif
