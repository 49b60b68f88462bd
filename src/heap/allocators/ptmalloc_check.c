/*
 * Blocks of libc_malloc_debug.so (MALLOC_CHECK_), which have what the program asked for and a
 * trailer: at the last usable byte a chain of distances begins that leads back to a magic byte, and
 * that stands right behind the program's bytes. Source: glibc malloc/malloc-check.c (magicbyte,
 * mem2mem_check, malloc_check_get_size), 2.34 to 2.43. Nothing but MALLOC_CHECK_ uses the copy of
 * malloc in that library.
 */
#include <string.h>

#include "memprobe/num.h"
#include "ptmalloc_walk.h"

static bool is_checked(const struct arena *arena)
{
	const char *name = strrchr(arena->module, '/');

	return !strncmp(name ? name + 1 : arena->module, "libc_malloc_debug", 17);
}

static uint8_t magic_byte(uint64_t chunk)
{
	uint8_t magic = chunk >> 3 ^ chunk >> 11;

	return magic == 1 ? 2 : magic;
}

/* Usable bytes of @chunk that are the trailer's; 0: it has none. */
static struct error *trailer_size(struct ptmalloc_walk *walk, const struct heap_chunk *chunk,
				  uint64_t end, uint64_t *ret)
{
	uint8_t magic = magic_byte(chunk->address - 2 * walk->word);
	uint64_t at = chunk->address + chunk->size - 1;

	*ret = 0;
	while (at >= chunk->address) {
		const uint8_t *byte;
		struct error *error = ptmalloc_window(walk, at, 1, end, &byte);

		if (error || !byte)
			return error;
		if (*byte == magic) {
			*ret = chunk->address + chunk->size - at;
			return NULL;
		}
		if (*byte == 0 || *byte > at - chunk->address)
			return NULL;
		at -= *byte;
	}
	return NULL;
}

static struct error *read_region(struct ptmalloc_walk *walk, const struct heap_region *region)
{
	struct heap *heap = walk->heap;
	struct error *error = NULL;

	for (heap_index i = heap_next(heap, region->first);
	     !error && i < region->first + region->count; i = heap_next(heap, i + 1)) {
		struct heap_chunk chunk;
		uint64_t size;

		heap_chunk(heap, i, &chunk);
		if (chunk.state != HEAP_IN_USE)
			continue;
		error = trailer_size(walk, &chunk, region->end + walk->word, &size);
		if (!error && size <= UINT16_MAX)
			heap->trailers[i] = size;
	}
	return error;
}

struct error *ptmalloc_read_trailers(struct ptmalloc_walk *walk)
{
	struct heap *heap = walk->heap;
	struct error *error = NULL;
	bool any = false;

	vec_for_each (arena, &walk->arenas)
		any |= is_checked(arena);
	if (!any)
		return NULL;
	heap->trailers = calloc(heap->bits + 1, sizeof(*heap->trailers));
	if (!heap->trailers)
		return &error_no_memory;
	/* Of a mmapped block nobody tells whose it is: its trailer does. */
	vec_for_each (region, &heap->regions)
		if (!error && (region->mmapped || is_checked(&walk->arenas.data[region->arena])))
			error = read_region(walk, region);
	return error;
}
