/*
 * Where the chunks of an arena lie. Heaps of other arenas are linked; the main arena's memory is
 * not: it ends with the top chunk and is system_mem long, unless brk() failed it once (then it has
 * pieces from mmap(), which are known by their chains of chunks) or somebody else moved the break
 * (then a gap is bridged while walking).
 */
#include <inttypes.h>
#include <string.h>

#include "memprobe/num.h"
#include "ptmalloc_walk.h"

/* Headers that are looked at in search of pieces, in all. */
#define HEADERS_MAX (16u << 20)
/* What it costs of them to move the window: chains of large chunks may go back and forth. */
#define WINDOW_COST 256u
/* A chain of so many is believed although its end was not reached. */
#define CHAIN_BELIEVED 64u
/* How far into [heap] the first chunk of a static program may lie: its TLS is in front. */
#define HEAD_MAX (64u << 10)

struct finder {
	struct ptmalloc_walk *walk;
	const struct arena *arena;
	uint64_t budget;
};

/* ---- chains ---- */

enum chain_end { CHAIN_BROKEN, CHAIN_TOP, CHAIN_FENCE };

static uint64_t first_chunk(const struct ptmalloc_walk *walk, uint64_t address)
{
	return round_up(address + 2 * walk->word, walk->heap->alignment) - 2 * walk->word;
}

/*
 * Follows the chunks of the main arena from @address to its top, to the headers that end an old
 * piece (*end_ret is the end of its last page then), or for @believed chunks (0: however long).
 */
static struct error *follow(struct finder *finder, uint64_t address, uint64_t end,
			    unsigned believed, enum chain_end *ret, uint64_t *end_ret)
{
	struct ptmalloc_walk *walk = finder->walk;
	unsigned word = walk->word;

	*ret = CHAIN_BROKEN;
	for (unsigned i = 0; finder->budget; i++, finder->budget--) {
		uint64_t field, size, window = walk->buffer_start;
		const uint8_t *header;
		struct error *error;

		if (address == finder->arena->top || (believed && i >= believed)) {
			*ret = CHAIN_TOP;
			return NULL;
		}
		error = ptmalloc_window(walk, address, 2 * word, end, &header);
		if (error || !header)
			return error;
		if (walk->buffer_start != window)
			finder->budget -= min_u64(finder->budget - 1, WINDOW_COST);
		field = load_word(header + word, word);
		size = field & ~(uint64_t)CHUNK_FLAGS;
		if (i && (size == 2 * word || size == 0)) {
			uint64_t page = round_up(address, PAGE_SIZE);

			if ((field & CHUNK_PREV_INUSE || size) &&
			    page - address <= 4 * word + walk->heap->alignment) {
				*ret = CHAIN_FENCE;
				*end_ret = page;
			}
			return NULL;
		}
		if (field & (CHUNK_MMAPPED | CHUNK_NON_MAIN_ARENA) || size < walk->chunk_min ||
		    size % walk->heap->alignment || size > end - address ||
		    (!i && !(field & CHUNK_PREV_INUSE)))
			return NULL;
		address += size;
	}
	return NULL;
}

static bool is_memory(const struct mapping *mapping)
{
	unsigned perms = PERM_READ | PERM_WRITE;

	return (mapping->perms & (perms | PERM_SHARED)) == perms && mapping->inode == 0 &&
	       (!mapping->path[0] || !strcmp(mapping->path, "[heap]") ||
		!strncmp(mapping->path, "[anon:", 6));
}

/* Adjacent memory around @address: [*start_ret, *end_ret). False: there is none. */
static bool extent(const struct mapping_vec *maps, uint64_t address, uint64_t *start_ret,
		   uint64_t *end_ret)
{
	const struct mapping *at = mappings_find(maps, address), *last = at;

	if (!at || !is_memory(at))
		return false;
	while (at > maps->data && at[-1].end == at->start && is_memory(&at[-1]))
		at--;
	while (last + 1 < maps->data + maps->size && last[1].start == last->end &&
	       is_memory(&last[1]))
		last++;
	*start_ret = at->start;
	*end_ret = last->end;
	return true;
}

static struct error *add_region(struct ptmalloc_walk *walk, const struct arena *arena,
				uint64_t start, uint64_t first, uint64_t end)
{
	struct heap_region region = {
		.start = start,
		.end = end,
		.base = first + 2 * walk->word,
		.limit = first + 2 * walk->word,
		.arena = arena->index,
		.has_top = arena->top >= first && arena->top < end,
	};

	if (region.base >= end)
		return heap_add_issue(walk->heap, start,
				      "no chunk fits into 0x%" PRIx64 "-0x%" PRIx64 " (arena %u)",
				      start, end, arena->index);
	return heap_region_vec_append(&walk->heap->regions, &region);
}

/* ---- the main arena ---- */

/* A piece without top, somewhere in the mapping. */
static struct error *find_pieces(struct finder *finder, const struct mapping *mapping,
				 uint64_t *left)
{
	struct ptmalloc_walk *walk = finder->walk;
	bool is_brk = !strcmp(mapping->path, "[heap]");
	uint64_t step = is_brk ? walk->heap->alignment : PAGE_SIZE, end = 0;
	uint64_t stop = is_brk ? min_u64(mapping->end, mapping->start + HEAD_MAX) : mapping->end;

	for (uint64_t at = mapping->start; at < stop && *left && finder->budget; at += step) {
		enum chain_end result;
		struct error *error;

		/* What has been found already. */
		vec_for_each (region, &walk->heap->regions)
			if (at >= region->start && at < region->end)
				return NULL;
		error = follow(finder, first_chunk(walk, at), mapping->end, 0, &result, &end);
		if (error)
			return error;
		if (result != CHAIN_FENCE || end - at > *left)
			continue;
		error = add_region(walk, finder->arena, at, first_chunk(walk, at), end);
		if (error)
			return error;
		*left -= end - at;
		if (is_brk)
			return NULL;
		at = end - step;
	}
	return NULL;
}

/* The top chunk's piece, and the others until system_mem is found. */
static struct error *add_scattered(struct finder *finder, uint64_t low, uint64_t top_end)
{
	struct ptmalloc_walk *walk = finder->walk;
	const struct arena *arena = finder->arena;
	const struct mapping *mapping = mappings_find(walk->heap->maps, low);
	bool is_brk = mapping && !strcmp(mapping->path, "[heap]");
	uint64_t step = is_brk ? walk->heap->alignment : PAGE_SIZE;
	uint64_t at = low, end = 0, left = arena->system_mem;
	enum chain_end result = CHAIN_BROKEN;
	struct error *error = NULL;

	for (; at <= arena->top && finder->budget; at += step) {
		error = follow(finder, first_chunk(walk, at), top_end, 0, &result, &end);
		if (error || result == CHAIN_TOP)
			break;
		if (is_brk && at - low > HEAD_MAX)
			break;
	}
	if (error)
		return error;
	if (result != CHAIN_TOP)
		at = low;
	error = add_region(walk, arena, at, first_chunk(walk, at), top_end);
	left -= min_u64(left, top_end - at);
	vec_for_each (other, walk->heap->maps)
		if (!error && left && is_memory(other))
			error = find_pieces(finder, other, &left);
	return error;
}

static struct error *add_main(struct ptmalloc_walk *walk, const struct arena *arena)
{
	struct finder finder = { walk, arena, HEADERS_MAX };
	uint64_t low, high, top_end, start, field, end = 0;
	enum chain_end result;
	struct error *error;

	if (!arena->top)
		return NULL;
	if (!extent(walk->heap->maps, arena->top, &low, &high))
		return heap_add_issue(walk->heap, arena->address,
				      "the top chunk 0x%" PRIx64 " of arena 0 is in no memory",
				      arena->top);
	error = target_read_word(walk->heap->target, arena->top + walk->word, &field);
	if (error)
		return error;
	top_end = arena->top + (field & ~(uint64_t)CHUNK_FLAGS);
	/* The walk will complain of it. */
	if (top_end > high || top_end <= arena->top)
		top_end = high;
	start = top_end - arena->system_mem;
	if (start < low || start > arena->top || arena->system_mem > top_end)
		return add_scattered(&finder, low, top_end);
	error = follow(&finder, first_chunk(walk, start), top_end, CHAIN_BELIEVED, &result, &end);
	if (error)
		return error;
	if (result == CHAIN_BROKEN && start != low) {
		uint64_t other = low;

		/* Should system_mem not be true, a heap begins where the memory does. */
		error = follow(&finder, first_chunk(walk, other), top_end, CHAIN_BELIEVED, &result,
			       &end);
		if (error)
			return error;
		start = result == CHAIN_TOP ? other : start;
	}
	return add_region(walk, arena, start, first_chunk(walk, start), top_end);
}

struct error *ptmalloc_bridge(struct ptmalloc_walk *walk, const struct arena *arena, uint64_t from,
			      uint64_t end, uint64_t *ret)
{
	struct finder finder = { walk, arena, HEADERS_MAX };
	struct error *error = NULL;

	*ret = 0;
	for (uint64_t at = first_chunk(walk, from); !error && at < end && finder.budget;
	     at += walk->heap->alignment) {
		enum chain_end result;
		uint64_t unused;

		error = follow(&finder, at, end, CHAIN_BELIEVED, &result, &unused);
		if (!error && result == CHAIN_TOP) {
			*ret = at;
			break;
		}
	}
	return error;
}

/* ---- the others ---- */

static struct error *add_heaps(struct ptmalloc_walk *walk, const struct arena *arena)
{
	unsigned info_size = arena->address & ((1u << 20) - 1);
	uint64_t sum = 0;

	vec_for_each (piece, &arena->heaps) {
		bool is_first = arena->address >= piece->start && arena->address < piece->end;
		uint64_t first =
			is_first ? arena->address + walk->layout->size : piece->start + info_size;
		uint64_t low, high;
		struct error *error;

		sum += piece->used - piece->start;
		if (!extent(walk->heap->maps, piece->start, &low, &high) || high < piece->used)
			error = heap_add_issue(walk->heap, piece->start,
					       "the heap at 0x%" PRIx64
					       " (arena %u) is not all in memory",
					       piece->start, arena->index);
		else
			error = add_region(walk, arena, piece->start, first_chunk(walk, first),
					   piece->used);
		if (error)
			return error;
	}
	if (sum != arena->system_mem)
		return heap_add_issue(walk->heap, arena->address,
				      "arena %u has heaps of %" PRIu64 " bytes, but says %" PRIu64,
				      arena->index, sum, arena->system_mem);
	return NULL;
}

struct error *ptmalloc_add_regions(struct ptmalloc_walk *walk)
{
	struct error *error = NULL;

	vec_for_each (arena, &walk->arenas) {
		if (!error)
			error = arena->is_main ? add_main(walk, arena) : add_heaps(walk, arena);
	}
	return error;
}
