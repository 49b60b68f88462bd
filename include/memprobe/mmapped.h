/*
 * mmapped.h - blocks that glibc's malloc mapped by themselves, as they show in the address space.
 *
 * There is no list of them; they are known by the chunk header with IS_MMAPPED at the start of an
 * anonymous mapping. Source: glibc malloc/malloc.c (sysmalloc, sysmalloc_mmap), 2.12 to 2.43.
 */
#ifndef MEMPROBE_MMAPPED_H
#define MEMPROBE_MMAPPED_H

#include "memprobe/target.h"

#define MMAPPED_CHUNKS_MAX 1024

/* Private memory that belongs to no file, whatever name it was given by prctl(). */
bool mapping_is_anonymous(const struct mapping *mapping);

/* It is writable, too, and (where that is known) something was written. */
bool mapping_may_hold_chunks(const struct mapping *mapping);

/*
 * Walks such chunks from the mapping's start while their headers fit together (the kernel merges
 * neighbours to one mapping): how many, and how many bytes they take. 0, 0: none. Stops counting at
 * MMAPPED_CHUNKS_MAX. Pages that are not present are not read. ERROR_PERMISSION where memory may
 * not be read.
 */
struct error *mmapped_chunks(struct target *target, const struct mapping *mapping,
			     size_t *count_ret, uint64_t *bytes_ret);

#endif
