/*
 * jemalloc_notes.h - where jemalloc itself keeps addresses of blocks in use. To the leak search
 *they look like references of the program's:
 *
 *	jemalloc_notes_find(target, &threads, &states, &blocks, &notes);
 *	leaks_find(heap, &(struct leak_options){ .erase = jemalloc_notes_erase,
 *						 .erase_data = notes, ... }, &result);
 *
 * Each large block has an extent, which has the block's address; and the stacks of a thread's cache
 * still have what was taken from them last. Told by their form (64 bit, as of jemalloc 5.3 for the
 * caches and 5.0 for extents; extents only where large blocks begin at a random cache line, as they
 * do by default): of other builds nothing is found, and such blocks count as reachable.
 */
#ifndef MEMPROBE_JEMALLOC_NOTES_H
#define MEMPROBE_JEMALLOC_NOTES_H

#include "memprobe/heap_blocks.h"
#include "memprobe/thread_state.h"

struct jemalloc_notes;

/* @states: may be NULL. @blocks: as they were asked for. Reads thread-local storage only. */
struct error *jemalloc_notes_find(struct target *target, const struct thread_vec *threads,
				  const struct thread_state_vec *states,
				  const struct heap_block_vec *blocks, struct jemalloc_notes **ret);

/* As leak_options.erase; @data: the notes. */
void jemalloc_notes_erase(void *data, uint64_t address, uint8_t *bytes, size_t size);

void jemalloc_notes_destroy(struct jemalloc_notes *notes);
CLEANUP_DEFINE(jemalloc_notes, struct jemalloc_notes *, jemalloc_notes_destroy)

#endif
