/*
 * heap.h - a target's heap, block by block, read from outside.
 *
 * heap_open() finds the arenas, streams their memory once through a small buffer and keeps a few
 * bits for each possible block: where blocks start, which are in use, which lie free in fast bins
 * or thread caches. The contents are not kept: 3 to 4 % of the heap's size in all. Everything sees
 * `struct target` only, live, snapshot, core or fake; nothing is stopped here and nothing runs in
 * the target. A heap that changes meanwhile is read again a few times.
 *
 * A block is what malloc() returned; a chunk is the block and the allocator's words around it.
 * Foreign bytes decide nothing but figures: a chunk that makes no sense ends the walk of its region
 * and becomes a `struct heap_issue`.
 *
 * To add an allocator: `walk` of its ops (allocator.h), which fills regions and bitmaps.
 */
#ifndef MEMPROBE_HEAP_H
#define MEMPROBE_HEAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "memprobe/allocator.h"
#include "memprobe/heap_stats.h"
#include "memprobe/maps.h"
#include "memprobe/target.h"
#include "memprobe/vec.h"

enum heap_state {
	HEAP_IN_USE, /* the program's */
	HEAP_FREE,   /* in a bin */
	HEAP_FAST,   /* freed, in a fast bin */
	HEAP_TCACHE, /* freed, in a thread's cache */
	HEAP_TOP,    /* never handed out, or given back, at the end of its arena */
	HEAP_OWN,    /* the allocator's own block: a thread's cache. No block of the program */
};

/* Block number: a bit in the bitmaps. Ascending with the address. */
typedef uint64_t heap_index;
#define HEAP_NONE UINT64_MAX

struct heap_chunk {
	uint64_t address; /* of the block: what malloc() returned */
	uint64_t size;	  /* that the program may use, bytes: what malloc_usable_size() says */
	enum heap_state state;
	bool mmapped;	/* a mapping of its own */
	unsigned arena; /* index into heap->arenas; 0 for mmapped ones */
	unsigned region;
	heap_index index;
};

/* A contiguous run of chunks; blocks start at multiples of heap->alignment. */
struct heap_region {
	uint64_t start, end; /* bytes that belong to the allocator here, its headers included */
	uint64_t base;	     /* the address that bit @first stands for */
	uint64_t limit;	     /* where a block behind the last one would begin */
	heap_index first;    /* bits [first, first + count); a multiple of 64 */
	uint64_t count;
	unsigned arena;
	bool mmapped;	/* one block: bit @first, at address @base */
	bool has_top;	/* the last chunk is the arena's top */
	bool is_broken; /* the walk ended before its end: what follows is unknown */
};

VEC_DEFINE(heap_region_vec, struct heap_region)

struct heap_arena {
	uint64_t address; /* of its administration: no root of a leak scan */
	uint64_t size;	  /* bytes of it */
	bool is_main;
	/* Which copy of malloc it is of, how many arenas that has (main arenas only), and the path
	 * of its file, lent by the target. */
	unsigned libc, libc_size;
	const char *module;
	struct heap_figures figures;
};

VEC_DEFINE(heap_arena_vec, struct heap_arena)

/* What makes no sense, or was not found, for people. */
struct heap_issue {
	uint64_t address;
	bool is_missing; /* not found: no sign of damage */
	char text[160];	 /* with the address; one line, lower case */
};

VEC_DEFINE(heap_issue_vec, struct heap_issue)

/* Memory of somebody else's between the allocator's, from a break that he moved: it can point to
 * blocks. */
struct heap_gap {
	uint64_t start, end;
};

VEC_DEFINE(heap_gap_vec, struct heap_gap)

struct heap {
	struct target *target;
	struct allocator allocator;
	/* By which it was read: the allocator's, or of one that is not known what was found. NULL:
	 * heap_of_blocks() made it. */
	const struct allocator_ops *ops;
	const struct mapping_vec *maps; /* as of when it was opened; lent or owned_maps */
	struct mapping_vec owned_maps;
	unsigned alignment;		/* of blocks: 8 or 16; a bit stands for so much */
	unsigned header;		/* bytes of the size field in front of a block */
	struct heap_region_vec regions; /* by address, no overlaps */
	struct heap_arena_vec arenas;
	struct heap_gap_vec gaps;
	uint64_t bits; /* of each bitmap; a multiple of 64 */
	/* in_use: the program's blocks, exactly. The allocator's own have both fast and tcache. */
	uint64_t *starts, *in_use, *fast, *tcache;
	/* By block: usable bytes at its end that are the allocator's (MALLOC_CHECK_). NULL: none.
	 */
	uint16_t *trailers;
	/* Blocks that begin with a header of mcheck(): it is other such headers that point there,
	 * the program points behind it. NULL: none. */
	uint64_t *headed;
	uint64_t mmapped_count, mmapped_bytes; /* as the allocator counts; STAT_UNKNOWN */
	struct heap_issue_vec issues;
	uint64_t missing_bytes; /* that malloc has, by its own figures, but that were not found */
	/* The allocator's own figures and ours differ, or chunks made no sense: it was changing, or
	 * is corrupt. Try a snapshot. */
	bool is_inconsistent;
	bool is_changing;  /* inconsistent, and every time in another way: it is not corrupt */
	bool is_damaged;   /* inconsistent by more than missing bytes */
	bool is_confirmed; /* two looks found the same damage: it is corrupt */
	/* Addresses outside [lowest, highest) are in no region. */
	uint64_t lowest, highest;
};

/*
 * Sees the memory of all arenas once, while the chunks are being walked, so that it need not be
 * read again: in windows, from several threads at once, in no order. What is in use and where
 * blocks begin is not known yet, but where the regions lie and what numbers their blocks have.
 * @first: the number of the block that would begin two words behind @bytes; no window goes beyond
 * the next multiple of HEAP_WINDOW_BLOCKS. Blocks that are mapped by themselves are not among it.
 */
#define HEAP_WINDOW_BLOCKS 65536u
struct heap_observer {
	/* A walk begins, maybe anew: what was seen is void. */
	struct error *(*begin)(void *data, const struct heap *heap);
	struct error *(*window)(void *data, const struct heap *heap, heap_index first,
				const uint8_t *bytes, size_t size);
	void *data;
};

struct heap_options {
	/* Lent for the life of the heap; NULL: read here. Need not be classified. */
	const struct mapping_vec *maps;
	unsigned tries;			      /* how often a changing heap is read; 0: 3 */
	const struct heap_observer *observer; /* may be NULL */
};

/*
 * Reads the heap. NULL @options: the defaults. ERROR_UNSUPPORTED: an allocator that cannot be
 * walked, or no heap is there. ERROR_PERMISSION: memory may not be read. A corrupt heap is no
 * error: see issues.
 */
struct error *heap_open(struct target *target, const struct heap_options *options,
			struct heap **ret);

void heap_destroy(struct heap *heap);
CLEANUP_DEFINE(heap, struct heap *, heap_destroy)

/* Sets is_confirmed and is_changing: @before is what another look, at another time, found. */
void heap_compare_looks(struct heap *heap, const struct heap_issue_vec *before);

/* The block that begins at @index, a set bit of heap->starts. */
void heap_chunk(const struct heap *heap, heap_index index, struct heap_chunk *ret);

/* The block that has @address in it (in the allocator's words behind it counts, too): its number,
 * or HEAP_NONE. Any state. */
heap_index heap_find_index(const struct heap *heap, uint64_t address);
bool heap_find(const struct heap *heap, uint64_t address, struct heap_chunk *ret);

/* The region that an address, or a block, lies in. NULL: the address is in none. */
const struct heap_region *heap_region_at(const struct heap *heap, uint64_t address);
const struct heap_region *heap_region_of(const struct heap *heap, heap_index index);

/* The first block at or behind @index, or HEAP_NONE. */
heap_index heap_next(const struct heap *heap, heap_index index);

/* Every block in the order of addresses, those of all states; false from @visit ends it. */
void heap_walk(const struct heap *heap, bool (*visit)(void *data, const struct heap_chunk *chunk),
	       void *data);

static inline bool heap_bit(const uint64_t *bitmap, heap_index index)
{
	return bitmap[index / 64] >> (index % 64) & 1;
}

/*
 * The first @prefix bytes (or all, if it is shorter) of every block in use, in the order of
 * addresses. Memory is streamed; pages that hold nothing come as zeros,
 * blocks that cannot be read are left out. An error from @visit ends it.
 */
struct error *heap_read_blocks(const struct heap *heap, size_t prefix,
			       struct error *(*visit)(void *data, const struct heap_chunk *chunk,
						      const void *bytes, size_t size),
			       void *data);

/*
 * The figures for `mallinfo`: *ret is initialised. in_use counts as the allocator does, with thread
 * caches and its own blocks. @threads may be NULL: arenas then have no threads_known.
 */
struct error *heap_stats_of(const struct heap *heap, const struct thread_vec *threads,
			    struct heap_stats *ret);

#endif
