/*
 * ptmalloc.h - finds the arenas of glibc's malloc, from outside and without symbols.
 *
 * main_arena is recognised by its 127 self-consistent bins in the writable data of libc, a static
 * program, or another library that has a malloc like it (a second libc of dlmopen(),
 * libc_malloc_debug.so, a static copy in a plugin); the others by the ring of `next` that starts
 * there, each checked against the heap_info in front of it. Before the first malloc() main_arena is
 * zeros but for `next`. Nothing is stopped: in a running process a read can be torn, so that
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
	/* As malloc_info counts: main_arena is 0, then along `next`. Those of further copies of
	 * malloc go on with the numbers. */
	unsigned index;
	bool is_main;
	unsigned libc;	    /* which copy of malloc it is of; 0: the one that comes first */
	unsigned libc_size; /* arenas of that copy; of main arenas only */
	const char
		*module; /* path of the file with main_arena; lent by the target; "" if unknown */
	const struct ptmalloc_layout *layout;
	uint64_t top; /* address of the top chunk; 0: it never allocated */
	uint64_t system_mem, max_system_mem;
	/* Newest first, as the heaps are linked. May be short where memory changed under us. */
	struct arena_heap_vec heaps;
};

VEC_DEFINE(arena_vec, struct arena)

/* Frees the heaps, too. */
void arenas_deinit(struct arena_vec *arenas);

/* In the order of their index; *ret has to be empty. No arenas (another libc or allocator) is no
 * error: *ret stays empty. */
struct error *ptmalloc_find_arenas(struct target *target, struct arena_vec *ret);

/* The same for who has read the maps already. */
struct error *ptmalloc_find_arenas_in(struct target *target, const struct mapping_vec *maps,
				      struct arena_vec *ret);

/* The header of a chunk that malloc mapped by itself, and its mapping. */
struct mmapped_header {
	uint64_t start, total;
	unsigned unused; /* bytes at its end that no block has */
};

/* Whether the two words at @bytes, which stand at @address, may be one. */
bool ptmalloc_mmapped_header(const uint8_t *bytes, unsigned word_size, uint64_t address,
			     struct mmapped_header *ret);

/*
 * The arena that @thread allocates from: what its thread-local `thread_arena` holds, found by its
 * value near the thread pointer. NULL: it has not allocated yet, or it is not found. Of several
 * copies of malloc, the nearest hit; arena_of_thread_in() asks for one of them.
 */
const struct arena *arena_of_thread(struct target *target, const struct thread *thread,
				    const struct arena_vec *arenas);
const struct arena *arena_of_thread_in(struct target *target, const struct thread *thread,
				       const struct arena_vec *arenas, unsigned libc);

#endif
