/*
 * What the program freed and malloc keeps aside looking in use: the fast bins of the arenas and the
 * threads' caches. Source: glibc malloc/malloc.c; tcache_perthread_struct of 2.26 to 2.29 (char
 * counts), 2.30 to 2.41 (uint16_t counts), 2.42 and later (uint16_t num_slots, counting down, and
 * 12 bins of large blocks); links are mangled from 2.32 on.
 */
#include <inttypes.h>
#include <string.h>

#include "memprobe/num.h"
#include "heap/page_cache.h"
#include "ptmalloc_walk.h"

#define SMALL_BINS 64u
#define BINS_MAX   76u
#define LIST_MAX   65536u /* what a count can say */
/* Counts that a thread caught in malloc may have out of step. */
#define COUNTS_OFF_MAX 2u
/* Two times the longest fast list that 64 GiB can hold is beyond reason. */
#define FAST_MAX (64u << 20)

struct cached {
	struct ptmalloc_walk *walk;
	struct page_cache *pages;
};

enum count_kind { COUNT_CHAR, COUNT_SHORT, COUNT_SLOTS };

struct cache_shape {
	unsigned word;
	unsigned size; /* of the struct */
	unsigned bins;
	enum count_kind kind;
};

static const struct cache_shape shapes[] = {
	{ 8, 640, 64, COUNT_SHORT }, { 8, 760, 76, COUNT_SLOTS }, { 8, 576, 64, COUNT_CHAR },
	{ 4, 384, 64, COUNT_SHORT }, { 4, 456, 76, COUNT_SLOTS }, { 4, 320, 64, COUNT_CHAR },
};

#define SHAPES (sizeof(shapes) / sizeof(shapes[0]))

/* ---- reading ---- */

static struct error *read_word(struct cached *cached, uint64_t address, uint64_t *ret)
{
	unsigned word = cached->walk->word;
	uint8_t bytes[sizeof(*ret)];
	struct error *error = page_cache_get(cached->pages, address, bytes, word);

	if (!error)
		*ret = load_word(bytes, word);
	return error;
}

/* A block of an arena that looks in use: its number, or HEAP_NONE. */
static heap_index block_in_use(const struct ptmalloc_walk *walk, uint64_t block)
{
	heap_index index = heap_block_at(walk->heap, block);

	if (index == HEAP_NONE || !heap_bit(walk->heap->in_use, index) ||
	    heap_region_of(walk->heap, index)->mmapped)
		return HEAP_NONE;
	return index;
}

/*
 * What a link that is stored at @at as @raw points to, mangled or not; @header is what lies between
 * it and the block. False: to nothing that is a block.
 */
static bool follow_link(const struct ptmalloc_walk *walk, uint64_t at, uint64_t raw,
			unsigned header, uint64_t *ret)
{
	uint64_t mangled = raw ^ at >> 12;

	if (mangled == 0 || block_in_use(walk, mangled + header) != HEAP_NONE) {
		*ret = mangled;
		return true;
	}
	*ret = raw;
	return raw == 0 || block_in_use(walk, raw + header) != HEAP_NONE;
}

static uint64_t chunk_size(const struct ptmalloc_walk *walk, heap_index index)
{
	struct heap_chunk chunk;

	heap_chunk(walk->heap, index, &chunk);
	return chunk.size + walk->word;
}

/* ---- fast bins ---- */

static struct error *mark_fast_bin(struct cached *cached, const struct arena *arena, unsigned bin,
				   uint64_t chunk)
{
	struct ptmalloc_walk *walk = cached->walk;
	struct chunk_sums *sums = &walk->sums[arena->index];
	uint64_t size = (uint64_t)(bin + 2) * 2 * walk->word, at = arena->address, raw;

	for (unsigned i = 0; chunk && i < FAST_MAX; i++) {
		heap_index index = block_in_use(walk, chunk + 2 * walk->word);
		struct error *error;

		if (index == HEAP_NONE || chunk_size(walk, index) != size)
			return heap_add_issue(walk->heap, at,
					      "fast bin %u of arena %u is broken: 0x%" PRIx64
					      " links to 0x%" PRIx64
					      ", which is no chunk of its size",
					      bin, arena->index, at, chunk);
		heap_clear_bit(walk->heap->in_use, index);
		heap_set_bit(walk->heap->fast, index);
		sums->fast++;
		sums->fast_bytes += size;
		at = chunk + 2 * walk->word;
		error = read_word(cached, at, &raw);
		if (error)
			return error;
		if (!follow_link(walk, at, raw, 2 * walk->word, &chunk))
			chunk = raw;
	}
	return NULL;
}

static struct error *mark_fast_of(struct cached *cached, const struct arena *arena)
{
	struct ptmalloc_walk *walk = cached->walk;
	const struct ptmalloc_layout *layout = arena->layout;
	unsigned count = (layout->top - layout->fastbins) / walk->word;
	uint8_t bytes[PTMALLOC_STATE_MAX];
	struct error *error;

	if (!arena->top)
		return NULL;
	error = target_read(walk->heap->target, arena->address + layout->fastbins, bytes,
			    count * walk->word);
	for (unsigned i = 0; !error && i < count; i++)
		error = mark_fast_bin(cached, arena, i,
				      load_word(bytes + i * walk->word, walk->word));
	return error;
}

struct error *ptmalloc_mark_fast(struct ptmalloc_walk *walk)
{
	struct cached cached = { walk, page_cache_create(walk->heap->target) };
	struct error *error = cached.pages ? NULL : &error_no_memory;

	vec_for_each (arena, &walk->arenas)
		if (!error && arena->layout->fastbins)
			error = mark_fast_of(&cached, arena);
	page_cache_destroy(cached.pages);
	return error;
}

/* ---- thread caches ---- */

static uint64_t cache_chunk_size(const struct ptmalloc_walk *walk, const struct cache_shape *shape)
{
	return round_up(shape->size + walk->word, walk->heap->alignment);
}

/* A block may be larger by one step: what is too small to be split off. */
static const struct cache_shape *shape_of(const struct ptmalloc_walk *walk, uint64_t chunk)
{
	for (size_t i = 0; i < SHAPES; i++) {
		uint64_t size = cache_chunk_size(walk, &shapes[i]);

		if (shapes[i].word == walk->word &&
		    (chunk == size || chunk == size + walk->heap->alignment))
			return &shapes[i];
	}
	return NULL;
}

bool ptmalloc_is_tcache_size(const struct ptmalloc_walk *walk, uint64_t chunk_size)
{
	return shape_of(walk, chunk_size) != NULL;
}

/* Counts and heads of the lists. */
struct cache {
	const struct cache_shape *shape;
	unsigned counts[BINS_MAX];
	uint64_t heads[BINS_MAX];
};

static void parse_cache(const struct cache_shape *shape, const uint8_t *bytes, struct cache *ret)
{
	unsigned count_size = shape->kind == COUNT_CHAR ? 1 : 2, most = 0;
	const uint8_t *heads = bytes + shape->bins * count_size;

	ret->shape = shape;
	for (unsigned i = 0; i < shape->bins; i++) {
		ret->counts[i] = load_word(bytes + i * count_size, count_size);
		ret->heads[i] = load_word(heads + i * shape->word, shape->word);
		if (ret->counts[i] > most)
			most = ret->counts[i];
	}
	if (shape->kind != COUNT_SLOTS)
		return;
	/* An empty bin has as many slots as there are. */
	for (unsigned i = 0; i < shape->bins; i++)
		ret->counts[i] = most - ret->counts[i];
}

bool ptmalloc_may_be_tcache(const struct ptmalloc_walk *walk, const uint8_t *bytes, uint64_t size)
{
	const struct cache_shape *shape = shape_of(walk, size + walk->word);
	unsigned filled = 0, off = 0;
	struct cache cache;

	if (!shape)
		return false;
	parse_cache(shape, bytes, &cache);
	for (unsigned i = 0; i < shape->bins; i++) {
		uint64_t head = cache.heads[i];

		if (head && (head < walk->heap->lowest || head >= walk->heap->highest ||
			     head % walk->heap->alignment))
			return false;
		filled += head != 0;
		off += (head != 0) != (cache.counts[i] != 0);
	}
	/* Else any struct of that size with a pointer in it could be one. */
	return filled > off && off <= COUNTS_OFF_MAX;
}

static bool fits_bin(const struct ptmalloc_walk *walk, unsigned bin, uint64_t size)
{
	uint64_t small = walk->chunk_min + (uint64_t)bin * walk->heap->alignment;

	return bin < SMALL_BINS
		       ? size == small
		       : size >= walk->chunk_min + SMALL_BINS * (uint64_t)walk->heap->alignment;
}

/* Appends the blocks of one list to @ret; *whole_ret: it ended as lists do. */
static struct error *follow_list(struct cached *cached, const struct cache *cache, unsigned bin,
				 struct heap_index_vec *ret, bool *whole_ret)
{
	struct ptmalloc_walk *walk = cached->walk;
	uint64_t block = cache->heads[bin], raw;
	unsigned length = 0;

	*whole_ret = false;
	for (; block && length <= cache->counts[bin] + 1 && length < LIST_MAX; length++) {
		heap_index index = block_in_use(walk, block);
		struct error *error;

		if (index == HEAP_NONE || !fits_bin(walk, bin, chunk_size(walk, index)))
			return NULL;
		error = heap_index_vec_append(ret, &index);
		if (!error)
			error = read_word(cached, block, &raw);
		if (error)
			return error;
		if (!follow_link(walk, block, raw, 0, &block))
			return NULL;
	}
	/* A thread caught in malloc has one more or less. */
	*whole_ret = !block && length + 1 >= cache->counts[bin] && length <= cache->counts[bin] + 1;
	return NULL;
}

static void mark_cached(struct ptmalloc_walk *walk, const struct heap_index_vec *blocks)
{
	vec_for_each (index, blocks) {
		struct chunk_sums *sums = &walk->sums[heap_region_of(walk->heap, *index)->arena];

		/* Twice in a list: freed twice. */
		if (!heap_bit(walk->heap->in_use, *index))
			continue;
		sums->tcache++;
		sums->tcache_bytes += chunk_size(walk, *index);
		heap_clear_bit(walk->heap->in_use, *index);
		heap_set_bit(walk->heap->tcache, *index);
	}
}

static struct error *mark_cache(struct cached *cached, heap_index owner)
{
	struct ptmalloc_walk *walk = cached->walk;
	struct heap_index_vec blocks = { 0 };
	unsigned good = 0, bad = 0, bad_bin = 0;
	struct heap_chunk chunk;
	uint8_t bytes[1024];
	struct error *error;
	struct cache cache;

	heap_chunk(walk->heap, owner, &chunk);
	cache.shape = shape_of(walk, chunk.size + walk->word);
	if (!cache.shape)
		return NULL;
	error = target_read(walk->heap->target, chunk.address, bytes, cache.shape->size);
	if (error)
		return error;
	parse_cache(cache.shape, bytes, &cache);
	for (unsigned i = 0; !error && i < cache.shape->bins; i++) {
		size_t before = blocks.size;
		bool whole;

		if (!cache.heads[i])
			continue;
		error = follow_list(cached, &cache, i, &blocks, &whole);
		if (whole) {
			good++;
		} else {
			bad++;
			bad_bin = i;
			blocks.size = before;
		}
	}
	/* Else it is something of the program's. */
	if (!error && good > bad) {
		mark_cached(walk, &blocks);
		heap_clear_bit(walk->heap->in_use, owner);
		heap_set_bit(walk->heap->fast, owner);
		heap_set_bit(walk->heap->tcache, owner);
		if (bad)
			error = heap_add_issue(walk->heap, chunk.address,
					       "list %u of the thread cache at 0x%" PRIx64
					       " is broken",
					       bad_bin, chunk.address);
	}
	heap_index_vec_deinit(&blocks);
	return error;
}

struct error *ptmalloc_mark_tcache(struct ptmalloc_walk *walk)
{
	struct cached cached = { walk, page_cache_create(walk->heap->target) };
	struct error *error = cached.pages ? NULL : &error_no_memory;

	vec_for_each (owner, &walk->caches)
		if (!error && heap_bit(walk->heap->in_use, *owner))
			error = mark_cache(&cached, *owner);
	page_cache_destroy(cached.pages);
	return error;
}
