/*
 * ptmalloc.h - finds the arenas of glibc's malloc, from outside and without symbols.
 *
 * main_arena is recognised by its 127 self-consistent bins in libc's (or a static program's)
 * writable data, the others by the ring of `next` that starts there, each checked against the
 * heap_info in front of it. Nothing is stopped: in a running process a read can be torn, so that
 * the search tolerates bins in motion and is repeated a few times. Works for 2.12 to 2.43, 64 and
 * 32 bit (layouts: malloc/malloc.c and malloc/arena.c of those releases).
 */
#ifndef MEMPROBE_PTMALLOC_H
#define MEMPROBE_PTMALLOC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "memprobe/maps.h"
#include "memprobe/target.h"
#include "memprobe/vec.h"

/* Offsets in struct malloc_state, bytes. */
struct ptmalloc_layout {
	const char *versions; /* of glibc, for people */
	unsigned word_size;
	unsigned fastbins; /* 0: has none */
	unsigned top, bins, next, system_mem;
	unsigned size;	    /* of the struct */
	unsigned alignment; /* MALLOC_ALIGNMENT: of blocks */
};

/* One heap_info region of a non-main arena; of main_arena the mapping that holds its top chunk. */
struct arena_heap {
	uint64_t start; /* the heap_info */
	uint64_t used;	/* [start, used) is handed out or free; the rest is reserve */
	uint64_t end;	/* of the reserve */
};

VEC_DEFINE(arena_heap_vec, struct arena_heap)

struct arena {
	uint64_t address; /* of its struct malloc_state */
	unsigned index;	  /* as malloc_info counts: main_arena is 0, then along `next` */
	bool is_main;
	uint64_t top; /* address of the top chunk; 0: it never allocated */
	uint64_t system_mem, max_system_mem;
	/* Newest first, as the heaps are linked. May be short where memory changed under us. */
	struct arena_heap_vec heaps;
};

VEC_DEFINE(arena_vec, struct arena)

/* Frees the heaps, too. */
void arenas_deinit(struct arena_vec *arenas);

/*
 * In the order of their index; *ret has to be empty. No arenas (another libc or allocator, or
 * malloc was never called) is no error: *ret stays empty. @layout_ret may be NULL; it is set if
 * arenas were found.
 */
struct error *ptmalloc_find_arenas(struct target *target, struct arena_vec *ret);

/* The same for who has read the maps already and may want the layout. */
struct error *ptmalloc_find_arenas_in(struct target *target, const struct mapping_vec *maps,
				      struct arena_vec *ret,
				      const struct ptmalloc_layout **layout_ret);

/*
 * The arena that @thread allocates from: what its thread-local `thread_arena` holds, found by its
 * value near the thread pointer. NULL: it has not allocated yet, or it is not found.
 */
const struct arena *arena_of_thread(struct target *target, const struct thread *thread,
				    const struct arena_vec *arenas);

#endif
