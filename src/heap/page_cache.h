/*
 * page_cache.h - scattered small reads of a target, by pages that are kept.
 *
 * For walks along pointers: what lies close together is read once. Stale by design: forget all
 * before another look.
 */
#ifndef PAGE_CACHE_H
#define PAGE_CACHE_H

#include <stdbool.h>

#include "memprobe/target.h"

struct page_cache;

/* NULL: out of memory. */
struct page_cache *page_cache_create(struct target *target);
void page_cache_destroy(struct page_cache *cache);
CLEANUP_DEFINE(page_cache, struct page_cache *, page_cache_destroy)

void page_cache_forget(struct page_cache *cache);

/* All of @size bytes at @address, which are known not to wrap around. */
struct error *page_cache_get(struct page_cache *cache, uint64_t address, void *buffer, size_t size);
/* All of @size bytes; false: they cannot be read. */
bool page_cache_read(struct page_cache *cache, uint64_t address, void *buffer, size_t size);

/* At most @size - 1 bytes up to a NUL, always terminated. False: nothing of it can be read. */
bool page_cache_read_string(struct page_cache *cache, uint64_t address, char *buffer, size_t size);

#endif
