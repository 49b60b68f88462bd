/*
 * ptmalloc_layout.h - the shapes that struct malloc_state and heap_info had.
 */
#ifndef PTMALLOC_LAYOUT_H
#define PTMALLOC_LAYOUT_H

#include "memprobe/ptmalloc.h"

#define PTMALLOC_BINS	   127u /* (fd, bk) pairs; all versions */
#define PTMALLOC_STATE_MAX 2304u

/* Every layout, the ones whose fields are more telling first; ends with a NULL `versions`. */
extern const struct ptmalloc_layout ptmalloc_layouts[];

/* struct heap_info: { ar_ptr, prev, size, mprotect_size, ... }, words. */
#define HEAP_INFO_WORDS 4u

/* Whether @offset into its first heap is one where an arena lies: sizeof(heap_info). */
bool ptmalloc_is_heap_info_size(unsigned word_size, uint64_t offset);

/* HEAP_MAX_SIZE, the alignment of heaps: the usual one first, then those of the hugetlb tunable
 * (2.35 to 2.41). 0 ends the list. */
const uint64_t *ptmalloc_heap_sizes(unsigned word_size);

#endif
