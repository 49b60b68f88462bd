/*
 * Walks glibc's heap chunk by chunk. Source: glibc malloc/malloc.c and malloc/arena.c, 2.12
 * to 2.43.
 *
 * A chunk's own header tells its size, the next one's whether it is in use; chunks in fast bins and
 * thread caches look in use and are taken back afterwards, by the lists they are in.
 */
#include "ptmalloc_walk.h"

#include <inttypes.h>
#include <string.h>

#include "memprobe/num.h"
#include "memprobe/sparse_read.h"

struct error *ptmalloc_window(struct ptmalloc_walk *walk, uint64_t address, size_t size,
			      uint64_t end, const uint8_t **ret)
{
	struct error *error;
	uint64_t to;

	*ret = NULL;
	if (address > end || size > end - address || size > WALK_BUFFER)
		return NULL;
	if (address < walk->buffer_start || address + size > walk->buffer_end) {
		to = min_u64(end, address + WALK_BUFFER);
		walk->buffer_start = walk->buffer_end = 0;
		error = target_read_sparse(walk->heap->target, address, walk->buffer, to - address,
					   NULL);
		if (error)
			return error;
		walk->buffer_start = address;
		walk->buffer_end = to;
	}
	*ret = walk->buffer + (address - walk->buffer_start);
	return NULL;
}

/* ---- one region ---- */

/* The chunk whose use the next header tells. */
struct previous {
	uint64_t address, size; /* 0, 0: none */
	uint64_t fd, bk;
};

struct chain {
	struct ptmalloc_walk *walk;
	struct heap_region *region;
	const struct arena *arena;
	struct chunk_sums *sums;
	struct previous previous;
	uint64_t address; /* of the header at hand */
	uint64_t prev_size, size_field;
	bool ended;
};

static heap_index index_of(const struct chain *chain, uint64_t chunk)
{
	const struct heap *heap = chain->walk->heap;

	return chain->region->first +
	       (chunk + 2 * chain->walk->word - chain->region->base) / heap->alignment;
}

static struct error *end_broken(struct chain *chain, const char *what, uint64_t value)
{
	chain->ended = true;
	chain->region->is_broken = true;
	/* What follows is unknown. */
	chain->walk->heap->missing_bytes += chain->region->end - chain->address;
	return heap_add_issue(chain->walk->heap, chain->address,
			      "the heap makes no sense at 0x%" PRIx64 " (arena %u): %s 0x%" PRIx64,
			      chain->address, chain->arena->index, what, value);
}

/* A block of the size of a thread's cache: whether it could be one is seen while it is at hand. */
static struct error *note_cache(struct chain *chain, const struct previous *previous)
{
	struct ptmalloc_walk *walk = chain->walk;
	uint64_t block = previous->address + 2 * walk->word, size = previous->size - walk->word;
	cleanup(free) uint8_t *copy = NULL;
	const uint8_t *bytes = NULL;
	heap_index index = index_of(chain, previous->address);
	struct error *error;

	/* Mostly it is still at hand. */
	bytes = heap_stream_peek(walk->stream, block, size);
	if (!bytes) {
		copy = malloc(size);
		if (!copy)
			return &error_no_memory;
		error = target_read_sparse(walk->heap->target, block, copy, size, NULL);
		if (error)
			return error;
		bytes = copy;
	}
	return ptmalloc_may_be_tcache(walk, bytes, size)
		       ? heap_index_vec_append(&walk->caches, &index)
		       : NULL;
}

/* What the header at hand says of the chunk before it. */
static struct error *settle(struct chain *chain)
{
	struct previous previous = chain->previous;
	struct chunk_sums *sums = chain->sums;

	chain->previous = (struct previous){ 0 };
	if (!previous.size)
		return NULL;
	if (chain->size_field & CHUNK_PREV_INUSE) {
		heap_set_bit(chain->walk->heap->in_use, index_of(chain, previous.address));
		sums->in_use++;
		return ptmalloc_is_tcache_size(chain->walk, previous.size)
			       ? note_cache(chain, &previous)
			       : NULL;
	}
	sums->free++;
	sums->free_bytes += previous.size;
	sums->fd += previous.fd;
	sums->bk += previous.bk;
	sums->nodes += previous.address;
	if (chain->prev_size != previous.size)
		return heap_add_issue(chain->walk->heap, previous.address,
				      "the free chunk at 0x%" PRIx64 " (arena %u) is of 0x%" PRIx64
				      " bytes, but the one behind it says 0x%" PRIx64,
				      previous.address, chain->arena->index, previous.size,
				      chain->prev_size);
	return NULL;
}

/* Somebody else moved the break: the main arena goes on behind what is his. */
static struct error *bridge(struct chain *chain, uint64_t size)
{
	struct ptmalloc_walk *walk = chain->walk;
	uint64_t next = 0;
	struct error *error = NULL;
	struct heap_gap gap;
	heap_index index = index_of(chain, chain->address);

	if (chain->arena->is_main && size && chain->region->has_top)
		error = ptmalloc_bridge(walk, chain->arena, chain->address + 4 * walk->word,
					chain->region->end, &next);
	if (error)
		return error;
	if (!next)
		return end_broken(chain, "a chunk's size is", chain->size_field);
	error = settle(chain);
	heap_set_bit(walk->heap->starts, index);
	heap_set_bit(walk->heap->fast, index);
	heap_set_bit(walk->heap->tcache, index);
	gap = (struct heap_gap){ chain->address + 4 * walk->word, next };
	chain->address = next;
	return error ? error : heap_gap_vec_append(&walk->heap->gaps, &gap);
}

/* Old tops end in one or two headers of no chunk (sysmalloc). */
static struct error *end_at_fence(struct chain *chain, uint64_t size)
{
	struct ptmalloc_walk *walk = chain->walk;
	uint64_t left = chain->region->end - chain->address;

	if (left > 4 * walk->word + walk->heap->alignment || chain->region->has_top)
		return bridge(chain, size);
	chain->ended = true;
	/* Where too little was left to be freed, it bears the size of a smallest chunk. */
	if (size == 0 && !chain->arena->is_main && chain->previous.size == walk->chunk_min &&
	    (chain->size_field & CHUNK_PREV_INUSE)) {
		heap_clear_bit(walk->heap->starts, index_of(chain, chain->previous.address));
		chain->region->limit = chain->previous.address + 2 * walk->word;
		chain->previous = (struct previous){ 0 };
		return NULL;
	}
	return settle(chain);
}

static struct error *end_at_top(struct chain *chain, uint64_t size)
{
	struct error *error = settle(chain);

	if (error)
		return error;
	if (size < chain->walk->chunk_min || size != chain->region->end - chain->address)
		return end_broken(chain, "the top chunk's size is", chain->size_field);
	chain->ended = true;
	heap_set_bit(chain->walk->heap->starts, index_of(chain, chain->address));
	/* Nothing follows it whose words it could use. */
	chain->region->limit = chain->region->end + chain->walk->word;
	chain->sums->top++;
	chain->sums->top_bytes += size;
	return NULL;
}

static const char *wrong_with(const struct chain *chain, uint64_t size)
{
	const struct ptmalloc_walk *walk = chain->walk;

	if (size % walk->heap->alignment || size < walk->chunk_min ||
	    size >= chain->region->end - chain->address)
		return "a chunk's size is";
	if (chain->size_field & CHUNK_MMAPPED)
		return "a chunk of an arena claims to be mapped, by its size";
	if (chain->arena->is_main && (chain->size_field & CHUNK_NON_MAIN_ARENA))
		return "a chunk of the main arena claims another, by its size";
	return NULL;
}

static struct error *walk_chunk(struct chain *chain)
{
	struct ptmalloc_walk *walk = chain->walk;
	unsigned word = walk->word;
	uint64_t size, end = chain->region->end;
	const uint8_t *header = NULL;
	const char *wrong;
	struct error *error;

	chain->region->limit = chain->address + 2 * word;
	if (end - chain->address < 2 * word)
		return end_broken(chain, "no header fits between it and", end);
	/* With the links that it has if it is free. */
	error = heap_stream_get(walk->stream, chain->address,
				min_u64(4 * word, end - chain->address), &header);
	if (error)
		return error;
	chain->prev_size = load_word(header, word);
	chain->size_field = load_word(header + word, word);
	size = chain->size_field & ~(uint64_t)CHUNK_FLAGS;
	if (chain->address == chain->arena->top)
		return end_at_top(chain, size);
	if (size == 0 || size == 2 * word)
		return end_at_fence(chain, size);
	wrong = wrong_with(chain, size);
	if (wrong)
		return end_broken(chain, wrong, chain->size_field);
	error = settle(chain);
	if (error)
		return error;
	heap_set_bit(walk->heap->starts, index_of(chain, chain->address));
	chain->previous = (struct previous){
		.address = chain->address,
		.size = size,
		.fd = load_word(header + 2 * word, word),
		.bk = load_word(header + 3 * word, word),
	};
	chain->address += size;
	return NULL;
}

static struct error *walk_region(struct ptmalloc_walk *walk, struct heap_region *region)
{
	struct chain chain = {
		.walk = walk,
		.region = region,
		.arena = &walk->arenas.data[region->arena],
		.sums = &walk->sums[region->arena],
		.address = region->base - 2 * walk->word,
	};
	struct error *error = NULL;

	/* Every chunk is of some size: it cannot be endless. */
	while (!error && !chain.ended)
		error = walk_chunk(&chain);
	if (!error && chain.previous.size) {
		/* The chunk in front of what is broken: nobody tells. */
		heap_set_bit(walk->heap->in_use, index_of(&chain, chain.previous.address));
		chain.sums->in_use++;
	}
	return error;
}

static struct error *walk_regions(struct ptmalloc_walk *walk)
{
	struct error *error = NULL;

	if (walk->observer)
		error = walk->observer->begin(walk->observer->data, walk->heap);
	if (!error)
		error = heap_stream_open(walk->heap, walk->observer, &walk->stream);
	vec_for_each (region, &walk->heap->regions) {
		if (error)
			break;
		if (region->mmapped) {
			heap_set_bit(walk->heap->starts, region->first);
			heap_set_bit(walk->heap->in_use, region->first);
		} else {
			error = walk_region(walk, region);
		}
	}
	if (!error)
		error = heap_stream_finish(walk->stream);
	heap_stream_close(walk->stream);
	walk->stream = NULL;
	return error;
}

/* ---- figures ---- */

static struct error *add_arenas(struct ptmalloc_walk *walk)
{
	struct error *error = NULL;

	vec_for_each (found, &walk->arenas) {
		struct heap_arena arena = {
			.address = found->address,
			.size = found->layout->size,
			.is_main = found->is_main,
			.libc = found->libc,
			.libc_size = found->libc_size,
			.module = found->module,
		};

		heap_figures_init(&arena.figures);
		error = heap_arena_vec_append(&walk->heap->arenas, &arena);
		if (error)
			return error;
	}
	return NULL;
}

static struct error *set_figures(struct ptmalloc_walk *walk)
{
	for (size_t i = 0; i < walk->arenas.size; i++) {
		const struct arena *arena = &walk->arenas.data[i];
		const struct chunk_sums *sums = &walk->sums[i];
		struct heap_figures *figures = &walk->heap->arenas.data[i].figures;
		struct error *error = NULL;

		*figures = (struct heap_figures){
			.system = arena->system_mem,
			.system_max = arena->max_system_mem,
			.in_use_chunks = sums->in_use - sums->fast,
			.free = sums->free_bytes + sums->top_bytes + sums->fast_bytes,
			.free_chunks = sums->free + sums->top + sums->fast,
			.fast = sums->fast_bytes,
			.fast_chunks = sums->fast,
			.tcache = sums->tcache_bytes,
			.tcache_chunks = sums->tcache,
			.top = sums->top_bytes,
		};
		if (figures->free > figures->system)
			error = heap_add_issue(walk->heap, arena->address,
					       "arena %u has more free than it has", arena->index);
		if (error)
			return error;
		figures->in_use = figures->system - min_u64(figures->free, figures->system);
	}
	return NULL;
}

/* ---- all of it ---- */

static struct error *walk_all(struct ptmalloc_walk *walk)
{
	struct error *error = add_arenas(walk);

	if (!error)
		error = ptmalloc_add_regions(walk);
	if (!error)
		error = ptmalloc_add_mmapped(walk);
	if (!error)
		error = heap_lay_out(walk->heap);
	if (!error)
		error = walk_regions(walk);
	if (!error)
		error = ptmalloc_check_bins(walk);
	if (!error)
		error = ptmalloc_mark_fast(walk);
	if (!error)
		error = ptmalloc_mark_tcache(walk);
	if (!error)
		error = ptmalloc_read_trailers(walk);
	if (!error)
		error = ptmalloc_find_headers(walk);
	return error ? error : set_figures(walk);
}

static struct error *find_nothing(const struct heap *heap)
{
	return error_hint(error_create(ERROR_UNSUPPORTED, "%s has no heap of glibc's malloc",
				       heap->target->name ? heap->target->name : "the target"),
			  "it may use an allocator of its own; `memprobe maps --by-type` shows "
			  "what is mapped");
}

struct error *ptmalloc_walk(struct heap *heap, const struct heap_observer *observer)
{
	struct ptmalloc_walk walk = {
		.heap = heap,
		.observer = observer,
		.word = heap->target->arch->word_size,
	};
	struct error *error = ptmalloc_find_arenas_in(heap->target, heap->maps, &walk.arenas);

	if (!error && !walk.arenas.size)
		error = find_nothing(heap);
	if (error)
		return error;
	walk.chunk_min = 4 * walk.word;
	/* Copies of several versions may differ in it. */
	heap->alignment = walk.arenas.data[0].layout->alignment;
	vec_for_each (arena, &walk.arenas)
		heap->alignment = min_u64(heap->alignment, arena->layout->alignment);
	heap->header = walk.word;
	walk.buffer = malloc(WALK_BUFFER);
	walk.sums = calloc(walk.arenas.size, sizeof(*walk.sums));
	error = walk.buffer && walk.sums ? walk_all(&walk) : &error_no_memory;
	free(walk.buffer);
	free(walk.sums);
	heap_index_vec_deinit(&walk.caches);
	arenas_deinit(&walk.arenas);
	return error;
}
