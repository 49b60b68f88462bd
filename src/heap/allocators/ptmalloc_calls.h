/*
 * ptmalloc_calls.h - ops of glibc's malloc that run its functions in the target.
 */
#ifndef PTMALLOC_CALLS_H
#define PTMALLOC_CALLS_H

#include "heap/calls.h"

struct error *ptmalloc_stats(struct allocator_caller *caller, struct heap_stats *ret);
struct error *ptmalloc_text(struct allocator_caller *caller, struct call_text *ret);
struct error *ptmalloc_xml(struct allocator_caller *caller, struct call_text *ret);
struct error *ptmalloc_trim(struct allocator_caller *caller, uint64_t pad, int64_t *returned_ret);

#endif
