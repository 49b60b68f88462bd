/*
 * Which words point to blocks: those in the heap's ranges are gathered, and looked up some at a
 * time, so that what the next ones need comes from memory meanwhile.
 */
#include "leak_scan.h"
#include "memprobe/num.h"

#define AHEAD 24u

/* The last start at or before @number, or HEAP_NONE. */
heap_index heap_settle_start(const struct heap *heap, heap_index number)
{
	uint64_t at = number / 64, word = heap->starts[at] << (63 - number % 64);

	if (word)
		return number - __builtin_clzll(word);
	while (at-- > 0)
		if (heap->starts[at])
			return at * 64 + 63 - __builtin_clzll(heap->starts[at]);
	return HEAP_NONE;
}

/* Whether a block begins at @number, or one would that follows the last one of its region. */
static bool begins_block(const struct heap *heap, heap_index number)
{
	const struct heap_region *region = heap_region_of(heap, number - 1);

	return number - region->first >= region->count ||
	       number - region->first >= (region->limit - region->base) / heap->alignment ||
	       heap_bit(heap->starts, number);
}

heap_index heap_settle(const struct heap *heap, uint64_t guess)
{
	heap_index index;

	if (guess & GUESS_BEHIND) {
		guess &= ~GUESS_BEHIND;
		if (begins_block(heap, guess + 1))
			return HEAP_NONE;
	}
	/* Most pointers are to a block's beginning. To a header there, only other headers point. */
	if (heap_bit(heap->in_use, guess))
		return heap->headed && heap_bit(heap->headed, guess) ? HEAP_NONE : guess;
	index = heap_settle_start(heap, guess);
	return index != HEAP_NONE && heap_bit(heap->in_use, index) ? index : HEAP_NONE;
}

const struct heap_region *leak_region_behind(const struct heap *heap,
					     const struct heap_region *next, uint64_t value)
{
	/* In pools, what is free begins there, and the pool has a pointer to it. */
	const struct heap_region *region = heap->header ? heap_region_at(heap, value - 1) : NULL;

	if (!region || !region->mmapped || value != region->limit ||
	    (!next && mappings_find(heap->maps, value)))
		return NULL;
	return region;
}

heap_index leak_scan_resolve(const struct leak_scan *scan, uint64_t value)
{
	const struct heap_region *region = NULL;
	uint64_t guess;

	if (!leak_guess(scan->heap, &region, value, &guess) ||
	    (!region->mmapped && value >= region->limit))
		return HEAP_NONE;
	return heap_settle(scan->heap, guess);
}

void sieve_init(struct sieve *sieve, const struct leak_scan *scan, const uint64_t *also, void *data)
{
	sieve->scan = scan;
	sieve->also = also;
	sieve->hit = NULL;
	sieve->data = data;
	sieve->region = NULL;
	sieve->count = 0;
}

void sieve_flush(struct sieve *sieve)
{
	const struct heap *heap = sieve->scan->heap;
	unsigned count = sieve->count;

	sieve->count = 0;
	for (unsigned i = 0; i < count; i++) {
		heap_index target;

		if (i + AHEAD < count) {
			uint64_t next = sieve->guesses[i + AHEAD] & ~GUESS_BEHIND;

			__builtin_prefetch(&heap->in_use[next / 64]);
			if (sieve->also)
				__builtin_prefetch(&sieve->also[next / 64]);
		}
		if (i + AHEAD / 2 < count) {
			uint64_t next = sieve->guesses[i + AHEAD / 2] & ~GUESS_BEHIND;

			if (!heap_bit(heap->in_use, next))
				__builtin_prefetch(&heap->starts[next / 64]);
		}
		target = heap_settle(heap, sieve->guesses[i]);
		if (target != HEAP_NONE)
			sieve->hit(sieve->data, sieve->sources[i], target);
	}
}

void sieve_put(struct sieve *sieve, uint64_t guess, uint32_t source)
{
	sieve->guesses[sieve->count] = guess;
	sieve->sources[sieve->count] = source;
	if (++sieve->count == SIEVE_SIZE)
		sieve_flush(sieve);
}

static inline void gather(struct sieve *sieve, uint64_t value, uint32_t source)
{
	uint64_t guess;

	if (leak_guess(sieve->scan->heap, &sieve->region, value, &guess) &&
	    (sieve->region->mmapped || value < sieve->region->limit))
		sieve_put(sieve, guess, source);
}

void sieve_words(struct sieve *sieve, const uint8_t *bytes, size_t size, uint32_t source)
{
	const struct heap_ranges ranges = sieve->scan->ranges;
	const uint64_t low0 = ranges.low[0], length0 = ranges.length[0];
	const uint64_t low1 = ranges.low[1], length1 = ranges.length[1];

	if (sieve->scan->word == 8) {
		for (size_t i = 0; i + 8 <= size; i += 8) {
			uint64_t value = load_word(bytes + i, 8);

			if (value - low0 < length0 || value - low1 < length1)
				gather(sieve, value, source);
		}
	} else {
		for (size_t i = 0; i + 4 <= size; i += 4) {
			uint64_t value = load_word(bytes + i, 4);

			if (value - low0 < length0 || value - low1 < length1)
				gather(sieve, value, source);
		}
	}
}
