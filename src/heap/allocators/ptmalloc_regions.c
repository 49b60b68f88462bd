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

struct finder {
	struct ptmalloc_walk *walk;
	const struct arena *arena;
	uint64_t budget;
	uint64_t top_end; /* of the arena's top chunk */
	bool is_brk;	  /* pieces of the break are looked for: they end anywhere */
};

/* ---- chains ---- */

enum chain_end { CHAIN_BROKEN, CHAIN_TOP, CHAIN_FENCE };

static uint64_t first_chunk(const struct ptmalloc_walk *walk, uint64_t address)
{
	return round_up(address + 2 * walk->word, walk->heap->alignment) - 2 * walk->word;
}

/*
 * Whether the headers at @address end an old top, as sysmalloc() leaves it: at the end of a page,
 * or where somebody else moved the break. *end_ret is where the piece ends then.
 */
static struct error *is_fence(struct finder *finder, uint64_t address, uint64_t end, bool *ret,
			      uint64_t *end_ret)
{
	struct ptmalloc_walk *walk = finder->walk;
	unsigned word = walk->word;
	uint64_t page = round_up(address, PAGE_SIZE);
	const uint8_t *headers;
	struct error *error;

	*ret = page - address <= 4 * word + walk->heap->alignment;
	*end_ret = page;
	if (*ret || !finder->is_brk)
		return NULL;
	error = ptmalloc_window(walk, address, 4 * word, end, &headers);
	if (error || !headers)
		return error;
	*ret = (load_word(headers + word, word) | CHUNK_PREV_INUSE) ==
		       (2 * word | CHUNK_PREV_INUSE) &&
	       load_word(headers + 3 * word, word) == (2 * word | CHUNK_PREV_INUSE);
	*end_ret = address + 4 * word;
	return NULL;
}

/*
 * Follows the chunks of the main arena from @address to its top, to the headers that end an old
 * piece (*end_ret is where it ends then), or for @believed chunks (0: however long).
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
		bool fence = false;

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
			if (field & CHUNK_PREV_INUSE || size)
				error = is_fence(finder, address, end, &fence, end_ret);
			*ret = fence ? CHAIN_FENCE : CHAIN_BROKEN;
			return error;
		}
		if (field & (CHUNK_MMAPPED | CHUNK_NON_MAIN_ARENA) || size < walk->chunk_min ||
		    size % walk->heap->alignment || size > end - address ||
		    (!i && !(field & CHUNK_PREV_INUSE)))
			return NULL;
		address += size;
	}
	return NULL;
}

bool ptmalloc_is_memory(const struct mapping *mapping)
{
	if (mapping->perms & PERM_SHARED)
		return false;
	/* Huge pages that the tunable glibc.malloc.hugetlb=2 asks for. */
	if (mapping->inode)
		return !strncmp(mapping->path, "/anon_hugepage", 14);
	return !mapping->path[0] || !strcmp(mapping->path, "[heap]") ||
	       !strncmp(mapping->path, "[anon:", 6);
}

bool ptmalloc_extent(const struct mapping_vec *maps, uint64_t address, uint64_t *start_ret,
		     uint64_t *end_ret)
{
	const struct mapping *at = mappings_find(maps, address), *last = at;

	if (!at || !ptmalloc_is_memory(at))
		return false;
	while (at > maps->data && at[-1].end == at->start && ptmalloc_is_memory(&at[-1]))
		at--;
	while (last + 1 < maps->data + maps->size && last[1].start == last->end &&
	       ptmalloc_is_memory(&last[1]))
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

static const struct heap_region *region_at(const struct ptmalloc_walk *walk, uint64_t address)
{
	vec_for_each (region, &walk->heap->regions)
		if (address >= region->start && address < region->end)
			return region;
	return NULL;
}

/* What is looked through in search of pieces of the main arena. */
struct search_area {
	uint64_t start, end;
	uint64_t limit; /* where chunks must end */
	uint64_t step;
};

/*
 * The pieces in @area: chains of chunks that end at the top chunk or as old tops do. Pieces from
 * mmap() begin with pages; those of the break wherever it was.
 */
static struct error *find_pieces(struct finder *finder, const struct search_area *area,
				 uint64_t *left)
{
	struct ptmalloc_walk *walk = finder->walk;
	uint64_t at = area->start;

	while (at < area->end && *left && finder->budget) {
		const struct heap_region *region = region_at(walk, at);
		uint64_t first = first_chunk(walk, at), end = 0;
		enum chain_end result;
		struct error *error;

		if (region) {
			at = round_up(region->end, area->step);
			continue;
		}
		error = follow(finder, first, area->limit, 0, &result, &end);
		if (error)
			return error;
		if (result == CHAIN_BROKEN) {
			at += area->step;
			continue;
		}
		if (result == CHAIN_TOP)
			end = finder->top_end;
		error = add_region(walk, finder->arena, at, first, end);
		if (error)
			return error;
		*left -= min_u64(*left, end - at);
		at = end;
	}
	return NULL;
}

static struct error *search_mapping(struct finder *finder, const struct mapping *mapping,
				    uint64_t *left)
{
	struct search_area area = { .start = mapping->start, .end = mapping->end };
	uint64_t low;

	finder->is_brk = !strcmp(mapping->path, "[heap]");
	area.step = finder->is_brk ? finder->walk->heap->alignment : PAGE_SIZE;
	if (!ptmalloc_extent(finder->walk->heap->maps, mapping->start, &low, &area.limit))
		return NULL;
	return find_pieces(finder, &area, left);
}

/* Bytes between the pieces of the break, from region @first on: somebody else's. */
static uint64_t foreign_bytes(const struct ptmalloc_walk *walk, size_t first)
{
	uint64_t bytes = 0, last = 0;

	for (size_t i = first; i < walk->heap->regions.size; i++) {
		const struct heap_region *region = &walk->heap->regions.data[i];
		const struct mapping *mapping = mappings_find(walk->heap->maps, region->start);

		if (!mapping || strcmp(mapping->path, "[heap]"))
			continue;
		bytes += last ? region->start - min_u64(last, region->start) : 0;
		last = region->end;
	}
	return bytes;
}

/*
 * What is missing lies in [heap], in front of what was found there: a chain that is broken. The
 * walk will say where.
 */
static struct error *add_damaged(struct finder *finder, uint64_t *left)
{
	struct ptmalloc_walk *walk = finder->walk;
	uint64_t start = 0, end = 0;

	vec_for_each (mapping, walk->heap->maps)
		if (!strcmp(mapping->path, "[heap]") && !start) {
			start = mapping->start;
			end = finder->arena->top >= start && finder->arena->top < mapping->end
				      ? finder->top_end
				      : mapping->end;
		}
	vec_for_each (region, &walk->heap->regions)
		if (region->end > start && region->start < end)
			end = region->start;
	if (end <= start)
		return NULL;
	*left -= min_u64(*left, end - start);
	return add_region(walk, finder->arena, start, first_chunk(walk, start), end);
}

/*
 * Pieces wherever they are, until system_mem is found. What somebody else took between pieces of
 * the break counts in system_mem as long as malloc() believes the break to be its own. *left_ret is
 * what was not found.
 */
static struct error *add_scattered(struct finder *finder, uint64_t *left_ret)
{
	struct ptmalloc_walk *walk = finder->walk;
	const struct arena *arena = finder->arena;
	uint64_t left = arena->system_mem;
	size_t first = walk->heap->regions.size;
	struct error *error = NULL;

	vec_for_each (mapping, walk->heap->maps)
		if (!error && left && mapping->perms & PERM_READ && ptmalloc_is_memory(mapping))
			error = search_mapping(finder, mapping, &left);
	left -= min_u64(left, foreign_bytes(walk, first));
	if (!error && left)
		error = add_damaged(finder, &left);
	*left_ret = left;
	return error;
}

/* Where no chain begins as system_mem says. @start: what it says, if that makes sense; else 0. */
static struct error *add_main_pieces(struct finder *finder, uint64_t start)
{
	struct heap *heap = finder->walk->heap;
	const struct arena *arena = finder->arena;
	size_t regions = heap->regions.size;
	uint64_t left = 0;
	struct error *error = add_scattered(finder, &left);

	if (error || !left)
		return error;
	if (!start)
		return heap_add_missing(heap, arena->address, left,
					"malloc's main arena has %" PRIu64 " bytes; %" PRIu64
					" of them were not found",
					arena->system_mem, left);
	/* Rather a heap with damage, of which the walk will tell. */
	heap->regions.size = regions;
	return add_region(finder->walk, arena, start, first_chunk(finder->walk, start),
			  finder->top_end);
}

static struct error *add_main(struct ptmalloc_walk *walk, const struct arena *arena)
{
	struct finder finder = { .walk = walk, .arena = arena, .budget = HEADERS_MAX };
	uint64_t low, high, top_end, start, field, end = 0;
	enum chain_end result;
	struct error *error;

	if (!arena->top)
		return NULL;
	if (!ptmalloc_extent(walk->heap->maps, arena->top, &low, &high))
		return heap_add_missing(walk->heap, arena->address, arena->system_mem,
					"the top chunk 0x%" PRIx64 " of arena %u is in no memory",
					arena->top, arena->index);
	error = target_read_word(walk->heap->target, arena->top + walk->word, &field);
	if (error)
		return error;
	top_end = arena->top + (field & ~(uint64_t)CHUNK_FLAGS);
	/* The walk will complain of it. */
	if (top_end > high || top_end <= arena->top)
		top_end = high;
	finder.top_end = top_end;
	start = top_end - arena->system_mem;
	if (start < low || start > arena->top || arena->system_mem > top_end)
		return add_main_pieces(&finder, 0);
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
	if (result == CHAIN_BROKEN)
		return add_main_pieces(&finder, start);
	return add_region(walk, arena, start, first_chunk(walk, start), top_end);
}

struct error *ptmalloc_bridge(struct ptmalloc_walk *walk, const struct arena *arena, uint64_t from,
			      uint64_t end, uint64_t *ret)
{
	struct finder finder = { .walk = walk, .arena = arena, .budget = HEADERS_MAX };
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
			is_first ? arena->address + arena->layout->size : piece->start + info_size;
		uint64_t low, high;
		struct error *error;

		sum += piece->used - piece->start;
		if (!ptmalloc_extent(walk->heap->maps, piece->start, &low, &high) ||
		    high < piece->used)
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
