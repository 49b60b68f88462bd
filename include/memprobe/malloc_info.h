/*
 * malloc_info.h - reads the XML that glibc's malloc_info(3) writes.
 *
 * Format: version 1, malloc/malloc.c of 2.10 and later. The text comes out of another process and
 * is taken for hostile: a small strict tokenizer, no entities, no XML library. Elements and
 * attributes that are not known are skipped.
 *
 * glibc sums up the raw size fields of the free chunks in bins, flag bits included, so that its
 * `rest` is too high by one for each of them (visible in the odd `to` of their size classes). That
 * is taken out here: free, and in_use = system - free, are what mallinfo2() says.
 */
#ifndef MEMPROBE_MALLOC_INFO_H
#define MEMPROBE_MALLOC_INFO_H

#include <stddef.h>

#include "memprobe/heap_stats.h"

/*
 * @text needs no NUL. *ret has to be initialised and is filled: arenas with their index (0 is
 * main_arena), totals and mmapped. ERROR_FAILED with the offset of what is wrong or missing.
 */
struct error *malloc_info_parse(const char *text, size_t size, struct heap_stats *ret);

#endif
