#include "page_cache.h"

#include <stdlib.h>
#include <string.h>

#include "memprobe/num.h"

#define PAGE  4096u
#define SLOTS 256u
#define EMPTY 1u /* no address of a page */

/*
 * Direct-mapped: neighbours in lists are mostly neighbours in memory. The addresses lie apart from
 * the bytes: a new cache touches none of those.
 */
struct page_cache {
	struct target *target;
	uint64_t pages[SLOTS];
	uint8_t bytes[SLOTS][PAGE];
};

struct page_cache *page_cache_create(struct target *target)
{
	struct page_cache *cache = malloc(sizeof(*cache));

	if (!cache)
		return NULL;
	cache->target = target;
	page_cache_forget(cache);
	return cache;
}

void page_cache_destroy(struct page_cache *cache)
{
	free(cache);
}

void page_cache_forget(struct page_cache *cache)
{
	for (unsigned i = 0; i < SLOTS; i++)
		cache->pages[i] = EMPTY;
}

static struct error *get_page(struct page_cache *cache, uint64_t page, const uint8_t **ret)
{
	size_t slot = page / PAGE % SLOTS;
	struct error *error;

	*ret = cache->bytes[slot];
	if (cache->pages[slot] == page)
		return NULL;
	cache->pages[slot] = EMPTY;
	error = target_read(cache->target, page, cache->bytes[slot], PAGE);
	if (!error)
		cache->pages[slot] = page;
	return error;
}

struct error *page_cache_get(struct page_cache *cache, uint64_t address, void *buffer, size_t size)
{
	uint8_t *to = buffer;

	while (size) {
		uint64_t page = round_down(address, PAGE), offset = address - page;
		size_t part = min_u64(size, PAGE - offset);
		const uint8_t *bytes;
		struct error *error = get_page(cache, page, &bytes);

		if (error)
			return error;
		memcpy(to, bytes + offset, part);
		to += part;
		address += part;
		size -= part;
	}
	return NULL;
}

static const uint8_t *page_at(struct page_cache *cache, uint64_t page)
{
	const uint8_t *bytes;
	struct error *error = get_page(cache, page, &bytes);

	if (!error)
		return bytes;
	error_destroy(error);
	return NULL;
}

bool page_cache_read(struct page_cache *cache, uint64_t address, void *buffer, size_t size)
{
	struct error *error;

	if (address + size < address)
		return false;
	error = page_cache_get(cache, address, buffer, size);
	if (!error)
		return true;
	error_destroy(error);
	return false;
}

bool page_cache_read_string(struct page_cache *cache, uint64_t address, char *buffer, size_t size)
{
	size_t done = 0;

	while (done + 1 < size && address + done >= address) {
		uint64_t page = round_down(address + done, PAGE), offset = address + done - page;
		size_t part = min_u64(size - 1 - done, PAGE - offset);
		const uint8_t *bytes = page_at(cache, page), *end;

		if (!bytes)
			break;
		end = memchr(bytes + offset, 0, part);
		memcpy(buffer + done, bytes + offset, end ? (size_t)(end - bytes - offset) : part);
		if (end) {
			buffer[done + (size_t)(end - bytes - offset)] = '\0';
			return true;
		}
		done += part;
	}
	buffer[done] = '\0';
	return done > 0;
}
