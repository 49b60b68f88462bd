/*
 * The bins: rings of free chunks. That their links agree with the chunks that were met is proved by
 * sums; only if they do not are the links followed one by one.
 */
#include <inttypes.h>

#include "memprobe/num.h"
#include "ptmalloc_walk.h"

/* Free chunks whose links are looked at in search of the wrong one, of all arenas. */
#define LINKS_MAX (1u << 20)

struct links {
	struct ptmalloc_walk *walk;
	const struct arena *arena;
	uint64_t bins, bins_end; /* heads, as chunk addresses */
	uint64_t budget;
};

static uint64_t bin_head(const struct links *links, unsigned index)
{
	return links->bins + 2ull * index * links->walk->word;
}

static bool is_free_chunk(const struct links *links, uint64_t chunk)
{
	const struct heap *heap = links->walk->heap;
	heap_index index = heap_block_at(heap, chunk + 2 * links->walk->word);

	return index != HEAP_NONE && !heap_bit(heap->in_use, index) &&
	       heap_region_of(heap, index)->arena == links->arena->index;
}

static bool is_head(const struct links *links, uint64_t chunk)
{
	return chunk >= links->bins && chunk < links->bins_end &&
	       (chunk - links->bins) % (2 * links->walk->word) == 0;
}

/* Whether the neighbours of @chunk are chunks or heads, and point back. */
static struct error *check_node(struct links *links, uint64_t chunk, bool *good_ret)
{
	unsigned word = links->walk->word;
	struct target *target = links->walk->heap->target;
	uint64_t fd, bk, back = 0, forward = 0;
	struct error *error = target_read_word(target, chunk + 2 * word, &fd);

	*good_ret = true;
	if (!error)
		error = target_read_word(target, chunk + 3 * word, &bk);
	if (error)
		return error;
	if ((is_free_chunk(links, fd) || is_head(links, fd)) &&
	    (is_free_chunk(links, bk) || is_head(links, bk))) {
		error = target_read_word(target, fd + 3 * word, &back);
		if (!error)
			error = target_read_word(target, bk + 2 * word, &forward);
		if (error || (back == chunk && forward == chunk))
			return error;
	}
	*good_ret = false;
	return heap_add_issue(links->walk->heap, chunk,
			      "the free chunk at 0x%" PRIx64
			      " (arena %u) is linked wrongly: fd 0x%" PRIx64 ", bk 0x%" PRIx64,
			      chunk, links->arena->index, fd, bk);
}

static struct error *find_wrong_link(struct links *links)
{
	struct heap *heap = links->walk->heap;
	struct error *error = NULL;
	bool good = true;

	for (unsigned i = 0; !error && good && i < PTMALLOC_BINS; i++)
		error = check_node(links, bin_head(links, i), &good);
	vec_for_each (region, &heap->regions) {
		if (region->arena != links->arena->index || region->mmapped)
			continue;
		for (heap_index i = heap_next(heap, region->first);
		     !error && good && i < region->first + region->count && links->budget;
		     i = heap_next(heap, i + 1)) {
			struct heap_chunk chunk;

			heap_chunk(heap, i, &chunk);
			if (chunk.state != HEAP_FREE)
				continue;
			links->budget--;
			error = check_node(links, chunk.address - 2 * links->walk->word, &good);
		}
	}
	if (!error && good)
		error = heap_add_issue(heap, links->arena->address,
				       "the bins of arena %u do not hold its free chunks",
				       links->arena->index);
	return error;
}

static struct error *check_arena(struct links *links)
{
	const struct ptmalloc_walk *walk = links->walk;
	const struct chunk_sums *sums = &walk->sums[links->arena->index];
	uint8_t bytes[PTMALLOC_BINS * 2 * 8];
	unsigned word = walk->word;
	uint64_t fd = sums->fd, bk = sums->bk, nodes = sums->nodes, mask;
	uint64_t bins = links->arena->address + links->arena->layout->bins;
	struct error *error;

	/* An arena that never got memory may have bins that were never set up. */
	if (!links->arena->top)
		return NULL;
	error = target_read(walk->heap->target, bins, bytes, PTMALLOC_BINS * 2 * word);
	if (error)
		return error;
	links->bins = bins - 2 * word;
	links->bins_end = bin_head(links, PTMALLOC_BINS);
	for (unsigned i = 0; i < PTMALLOC_BINS; i++) {
		fd += load_word(bytes + 2 * i * word, word);
		bk += load_word(bytes + (2 * i + 1) * word, word);
		nodes += bin_head(links, i);
	}
	mask = word == 4 ? UINT32_MAX : UINT64_MAX;
	if (((fd ^ nodes) & mask) == 0 && ((bk ^ nodes) & mask) == 0)
		return NULL;
	/* A region whose end was not reached has more free chunks than were met. */
	vec_for_each (region, &walk->heap->regions)
		if (region->is_broken && region->arena == links->arena->index)
			return NULL;
	return find_wrong_link(links);
}

struct error *ptmalloc_check_bins(struct ptmalloc_walk *walk)
{
	struct links links = { .walk = walk, .budget = LINKS_MAX };
	struct error *error = NULL;

	vec_for_each (arena, &walk->arenas) {
		links.arena = arena;
		if (!error)
			error = check_arena(&links);
	}
	return error;
}
