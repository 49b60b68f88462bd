/*
 * leak_scan.h - pointers between blocks, and from roots to blocks: what the leak search works on.
 */
#ifndef LEAK_SCAN_H
#define LEAK_SCAN_H

#include <stdatomic.h>

#include "memprobe/leaks.h"
#include "memprobe/pthread_lists.h"

/* ---- leak_roots.c ---- */

/* Memory that keeps what it points to. */
struct root {
	uint64_t start, end;
	enum leak_root_kind kind;
	pid_t tid;
	/* Of a file: pages that this process has not touched hold something, too. Else NULL. */
	const struct mapping *file;
};

VEC_DEFINE(root_vec, struct root)

/* A register's value. */
struct root_word {
	uint64_t value;
	pid_t tid;
	unsigned number; /* of the words of struct user_regs_struct */
};

VEC_DEFINE(root_word_vec, struct root_word)

struct roots {
	struct root_vec ranges; /* by address, no overlaps, at most ROOT_PART bytes each */
	struct root_word_vec words;
	struct pthread_block_vec ended; /* threads whose stacks glibc still has: no roots */
};

#define ROOT_PART (1u << 20)

struct error *roots_find(const struct heap *heap, const struct leak_options *options,
			 struct roots *ret);
void roots_deinit(struct roots *roots);

/* ---- leak_prescan.c ---- */

/* A word of a window that may be a pointer. */
struct raw {
	uint32_t word;	 /* its place, in words; and RAW_BEHIND */
	uint32_t target; /* number of the block that it points to, if one begins there */
};

#define RAW_BEHIND (1u << 31) /* the guess has GUESS_BEHIND */

struct raw_window {
	struct raw_window *next; /* of the same stretch */
	heap_index first;	 /* of the block that would begin two words into the window */
	size_t count, size;	 /* size: bytes in all */
	struct raw raws[];
};

void raw_window_destroy(struct raw_window *window);

/* The windows of stretch @part, to be freed one by one. *whole_ret: none is missing. */
struct raw_window *leak_prescan_take(struct leak_prescan *prescan, const struct heap *heap,
				     size_t part, bool *whole_ret);

/* Where regions lie: in these two ranges, the break's and the mappings'. */
struct heap_ranges {
	uint64_t low[2], length[2];
};

void heap_ranges_set(const struct heap *heap, struct heap_ranges *ret);

/* Bytes that pointers may take, of a heap. */
uint64_t leak_budget(const struct heap *heap);

/* ---- leak_scan.c ---- */

/*
 * The pointers in the blocks of one stretch of the bitmaps, packed: first the numbers of the first
 * pointer of each card, u16[CARDS + 1]; then the pointers, EDGE bytes each: the low bits of the
 * number of the block that it stands in, and as u32 the number of the block that it points to.
 * Blocks of a card follow each other.
 */
#define CARD_BITS 6u
#define PART_BITS 16u /* of block numbers, in a stretch: a MiB of heap */
#define CARDS	  (1u << (PART_BITS - CARD_BITS))
#define EDGE	  5u
#define EDGES_MAX UINT16_MAX /* of a stretch; if there are more, it is read again */

VEC_DEFINE(heap_index_vec, heap_index)

/* A pointer in a large block, behind the stretch in which the block begins. */
struct far_edge {
	uint32_t source, target;
};

VEC_DEFINE(far_edge_vec, struct far_edge)

struct leak_scan {
	const struct heap *heap;
	struct roots roots;
	unsigned word;
	struct heap_ranges ranges;
	struct leak_options options;
	size_t part_count;
	/* Of each stretch, in @store; NULL: no pointers, or (see @unstored) too many to be kept. */
	const uint8_t **parts;
	uint8_t *store; /* @budget bytes, of which @stored are used */
	bool *unstored;
	struct far_edge_vec far; /* by source */
	bool *has_far;		 /* of each stretch: some of its blocks have such */
	uint64_t *reached;	 /* a bitmap */
	struct heap_index_vec from_roots;
	uint64_t count, bytes, missing, root_bytes; /* of blocks in use; of roots */
	_Atomic uint64_t stored;
	uint64_t budget;
	atomic_size_t next;
};

/* ---- leak_sieve.c ---- */

/*
 * A guess is the number of the block that a pointer points to, if one begins there. A pointer right
 * behind a block is one to that block, as in C; but further on the header of the next one begins,
 * and points to neither. This bit: if a block follows at once, it points into that one's header.
 */
#define GUESS_BEHIND (1ull << 63)

/*
 * The block mapped by itself that ends at @value, where another one's header is (of region @next)
 * or nothing: what else may be there is more likely what the pointer is to. NULL: none.
 */
const struct heap_region *leak_region_behind(const struct heap *heap,
					     const struct heap_region *next, uint64_t value);

/* What @value may point to; false: to nothing. *@cached: the region of the last one, or NULL;
 * then that of this one. */
static inline bool leak_guess(const struct heap *heap, const struct heap_region **cached,
			      uint64_t value, uint64_t *ret)
{
	const struct heap_region *region = *cached;
	uint64_t offset;

	if (!region || value < region->start || value >= region->end)
		region = heap_region_at(heap, value);
	if (!region || value < region->base) {
		region = leak_region_behind(heap, region, value);
		if (!region)
			return false;
	}
	*cached = region;
	*ret = region->first;
	if (region->mmapped)
		return value <= region->limit;
	offset = value - region->base;
	/* A power of two; a division would take most of the time. */
	*ret += offset >> __builtin_ctz(heap->alignment);
	if ((offset & (heap->alignment - 1)) > heap->alignment - heap->header)
		*ret |= GUESS_BEHIND;
	return true;
}

#define SIEVE_SIZE 512u

/* Words that may be pointers, until they are looked up. */
struct sieve {
	const struct leak_scan *scan;
	/* A bitmap that @hit will look into, or NULL. */
	const uint64_t *also;
	/* Once for each that points to a block in use, in their order. */
	void (*hit)(void *data, uint32_t source, heap_index target);
	void *data;
	const struct heap_region *region; /* the last that was hit */
	unsigned count;
	uint64_t guesses[SIEVE_SIZE];
	uint32_t sources[SIEVE_SIZE];
};

/* @hit is to be set before it is used. */
void sieve_init(struct sieve *sieve, const struct leak_scan *scan, const uint64_t *also,
		void *data);
/* All words of memory. */
void sieve_words(struct sieve *sieve, const uint8_t *bytes, size_t size, uint32_t source);
/* One word of which the guess is known. */
void sieve_put(struct sieve *sieve, uint64_t guess, uint32_t source);
/* Looks up what is left. */
void sieve_flush(struct sieve *sieve);

/* The block that @number lies in, or the block in use that a guess is of; HEAP_NONE: none. */
heap_index heap_settle_start(const struct heap *heap, heap_index number);
heap_index heap_settle(const struct heap *heap, uint64_t guess);

/* The block in use that @value points into, or HEAP_NONE. */
heap_index leak_scan_resolve(const struct leak_scan *scan, uint64_t value);

/* ---- leak_edges.c ---- */

/*
 * Keeps the pointers of stretch @part: @sources are block numbers from its beginning, ascending. If
 * they are too many, the stretch is unstored instead. Several threads may store different ones.
 */
void leak_scan_store(struct leak_scan *scan, size_t part, const uint32_t *targets,
		     const uint32_t *sources, size_t size);

/* Puts scan->far in order. */
void leak_scan_sort_far(struct leak_scan *scan);

/* Finds the roots and reads all of them and all blocks in use, once, in several threads. */
struct error *leak_scan_run(struct leak_scan *scan, const struct heap *heap,
			    const struct leak_options *options);
void leak_scan_deinit(struct leak_scan *scan);

/* Memory that blocks are read again through, which lie close together. A zeroed one is empty. */
struct reread {
	uint8_t *bytes;
	uint64_t start, end; /* what it holds */
};

void reread_deinit(struct reread *reread);

/* Puts the words of a block, whose pointers were not kept, through the sieve, with source 0.
 * @many: others close behind will follow. */
struct error *leak_scan_reread(const struct leak_scan *scan, struct reread *reread,
			       heap_index index, bool many, struct sieve *sieve);

/* Calls @visit for the pointers of a block to others. Reads it again where they were not kept. */
struct error *leak_scan_edges(const struct leak_scan *scan, struct reread *reread, heap_index index,
			      bool many, void (*visit)(void *data, heap_index target), void *data);

/* Those of @index in scan->far: [*first_ret, *end_ret). */
void leak_scan_far(const struct leak_scan *scan, heap_index index, size_t *first_ret,
		   size_t *end_ret);

#endif
