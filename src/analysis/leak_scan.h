/*
 * leak_scan.h - pointers between blocks, and from roots to blocks: what the leak search works on.
 */
#ifndef LEAK_SCAN_H
#define LEAK_SCAN_H

#include <stdatomic.h>

#include "memprobe/leaks.h"

/* ---- leak_roots.c ---- */

/* Memory that keeps what it points to. */
struct root {
	uint64_t start, end;
	enum leak_root_kind kind;
	pid_t tid;
	bool shared; /* with other processes: pages that this one has not touched are there, too */
};

VEC_DEFINE(root_vec, struct root)

/* A register's value. */
struct root_word {
	uint64_t value;
	pid_t tid;
};

VEC_DEFINE(root_word_vec, struct root_word)

struct roots {
	struct root_vec ranges; /* by address, no overlaps, at most ROOT_PART bytes each */
	struct root_word_vec words;
};

#define ROOT_PART (1u << 20)

struct error *roots_find(const struct heap *heap, const struct leak_options *options,
			 struct roots *ret);
void roots_deinit(struct roots *roots);

/* ---- leak_scan.c ---- */

/*
 * The pointers in the blocks of one stretch of the bitmaps, as arrays: @targets of u32, block
 * numbers; @sources, the low bits of the number of the block it stands in. Blocks of a card follow
 * each other.
 */
#define CARD_BITS 8u
#define PART_BITS 16u /* of block numbers, in a stretch: a MiB of heap */
#define CARDS	  (1u << (PART_BITS - CARD_BITS))

struct edges {
	uint32_t *targets;
	uint8_t *sources;
	uint32_t cards[CARDS + 1];
};

VEC_DEFINE(heap_index_vec, heap_index)

struct leak_scan {
	const struct heap *heap;
	struct roots roots;
	unsigned word;
	/* Regions lie in these two ranges: the break's and the mappings'. */
	uint64_t low[2], length[2];
	size_t part_count;
	/* Of each stretch; NULL: no pointers, or (see @unstored) too many to be kept. */
	struct edges **parts;
	bool *unstored;
	uint64_t *reached; /* a bitmap */
	struct heap_index_vec from_roots;
	uint64_t count, bytes, missing, root_bytes; /* of blocks in use; of roots */
	_Atomic uint64_t stored, budget;	    /* bytes of edges */
	atomic_size_t next;
};

/* Finds the roots and reads all of them and all blocks in use, once, in several threads. */
struct error *leak_scan_run(struct leak_scan *scan, const struct heap *heap,
			    const struct leak_options *options);
void leak_scan_deinit(struct leak_scan *scan);

/* Calls @visit for the pointers of a block to others. Reads it again where they were not kept. */
struct error *leak_scan_edges(const struct leak_scan *scan, heap_index index,
			      void (*visit)(void *data, heap_index target), void *data);

/* The block in use that @value points into, or HEAP_NONE. */
heap_index leak_scan_resolve(const struct leak_scan *scan, uint64_t value);

#endif
