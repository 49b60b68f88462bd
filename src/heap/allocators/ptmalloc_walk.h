/*
 * ptmalloc_walk.h - what the parts of the walker of glibc's heap share.
 */
#ifndef PTMALLOC_WALK_H
#define PTMALLOC_WALK_H

#include "memprobe/ptmalloc.h"
#include "ptmalloc_layout.h"
#include "heap/stream.h"
#include "heap/walk.h"

/* Flags in a chunk's size field. */
#define CHUNK_PREV_INUSE     1u
#define CHUNK_MMAPPED	     2u
#define CHUNK_NON_MAIN_ARENA 4u
#define CHUNK_FLAGS	     7u

VEC_DEFINE(heap_index_vec, heap_index)

/* What the chunks of an arena add up to. */
struct chunk_sums {
	uint64_t in_use, free, top; /* chunks */
	uint64_t free_bytes, top_bytes;
	/* fd and bk of the free chunks, and their own addresses: since the bins are rings, the
	 * three agree once the bins' heads are added, if no link was overwritten. */
	uint64_t fd, bk, nodes;
	uint64_t fast, fast_bytes, tcache, tcache_bytes;
};

struct ptmalloc_walk {
	struct heap *heap;
	struct arena_vec arenas;
	unsigned word;
	unsigned chunk_min;	 /* MINSIZE */
	struct chunk_sums *sums; /* of each arena */
	/* Blocks in use that could be a tcache_perthread_struct by size and looks. */
	struct heap_index_vec caches;
	const struct heap_observer *observer; /* NULL: none */
	struct heap_stream *stream;	      /* while chunks are walked */
	/* A window of the memory, for what is looked at before. */
	uint8_t *buffer;
	uint64_t buffer_start, buffer_end;
};

/* [address, address + size) through the window, which is moved if need be, at most to @end. NULL:
 * it reaches beyond. The error is for memory that may not be read at all. */
#define WALK_BUFFER (1u << 20)
struct error *ptmalloc_window(struct ptmalloc_walk *walk, uint64_t address, size_t size,
			      uint64_t end, const uint8_t **ret);

/* ---- ops: ptmalloc_walk.c, ptmalloc_threads.c ---- */

struct error *ptmalloc_walk(struct heap *heap, const struct heap_observer *observer);
struct error *ptmalloc_add_threads(const struct heap *heap, const struct thread_vec *threads,
				   struct heap_stats *stats);

/* ---- ptmalloc_regions.c ---- */

/* Private memory without a file, of any permissions: what malloc may have got from the kernel. */
bool ptmalloc_is_memory(const struct mapping *mapping);

/* Adjacent memory around @address: [*start_ret, *end_ret). False: there is none. */
bool ptmalloc_extent(const struct mapping_vec *maps, uint64_t address, uint64_t *start_ret,
		     uint64_t *end_ret);

/* Adds the regions of all arenas, from what is linked and what system_mem says. */
struct error *ptmalloc_add_regions(struct ptmalloc_walk *walk);

/* Where the main arena goes on behind @from, the end of one of its pieces; 0: it does not. */
struct error *ptmalloc_bridge(struct ptmalloc_walk *walk, const struct arena *arena, uint64_t from,
			      uint64_t end, uint64_t *ret);

/* ---- ptmalloc_mmapped.c ---- */

/* Adds a region for each mmapped chunk and sets the heap's figures of them. */
struct error *ptmalloc_add_mmapped(struct ptmalloc_walk *walk);

/* ---- ptmalloc_cached.c ---- */

/* Whether @bytes, a block of @size bytes, look like a tcache_perthread_struct with contents. */
bool ptmalloc_may_be_tcache(const struct ptmalloc_walk *walk, const uint8_t *bytes, uint64_t size);
/* Chunk sizes of tcache_perthread_struct. */
bool ptmalloc_is_tcache_size(const struct ptmalloc_walk *walk, uint64_t chunk_size);
/* Follows the fast bins of all arenas: their chunks are free. */
struct error *ptmalloc_mark_fast(struct ptmalloc_walk *walk);
/* Follows the caches: what is in them is free, they themselves are the allocator's own. */
struct error *ptmalloc_mark_tcache(struct ptmalloc_walk *walk);

/* ---- ptmalloc_check.c ---- */

/* Sets the heap's trailers, if there is a copy of malloc that makes them. */
struct error *ptmalloc_read_trailers(struct ptmalloc_walk *walk);

/* ---- ptmalloc_mcheck.c ---- */

/* Sets the heap's headed, if something like mcheck() may have been called. */
struct error *ptmalloc_find_headers(struct ptmalloc_walk *walk);

/* ---- ptmalloc_bins.c ---- */

/* Compares the links of the bins with the free chunks that were met; what does not fit becomes an
 * issue that says where. */
struct error *ptmalloc_check_bins(struct ptmalloc_walk *walk);

#endif
