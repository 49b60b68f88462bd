#include "leak_mark.h"

#include "memprobe/num.h"
#include "memprobe/sparse_read.h"

/*
 * Depth first, with the blocks that come next in a short queue: what they need is fetched while
 * others are worked on, twice: first where their pointers are noted, then the pointers themselves.
 */
#define QUEUE 16u /* power of two */
#define HALF  (QUEUE / 2)

struct marker {
	struct leak_scan *scan;
	struct heap_index_vec stack;
	heap_index queue[QUEUE];
	unsigned head, size;
	/* Blocks in stretches whose pointers were not kept: they are read stretch by stretch. */
	uint64_t *pending;
	bool *part_pending;
	struct heap_index_vec parts; /* that have some */
	bool failed;
};

static inline void mark(void *data, heap_index index)
{
	struct marker *marker = data;
	uint64_t *word = &marker->scan->reached[index / 64], bit = 1ull << (index % 64);
	struct error *error;

	if (*word & bit)
		return;
	*word |= bit;
	error = heap_index_vec_append(&marker->stack, &index);
	if (error)
		marker->failed = true;
}

/* For blocks whose stretch is to be read again. */
static void put_off(struct marker *marker, heap_index index)
{
	heap_index part = index >> PART_BITS;

	marker->pending[index / 64] |= 1ull << (index % 64);
	if (marker->part_pending[part])
		return;
	marker->part_pending[part] = true;
	if (heap_index_vec_append(&marker->parts, &part))
		marker->failed = true;
}

static inline void visit(struct marker *marker, heap_index index)
{
	const struct leak_scan *scan = marker->scan;
	const struct edges *edges = scan->parts[index >> PART_BITS];
	uint32_t card = index >> CARD_BITS & (CARDS - 1);
	uint8_t source = index & ((1u << CARD_BITS) - 1);

	if (!edges) {
		if (scan->unstored[index >> PART_BITS])
			put_off(marker, index);
		return;
	}
	for (uint32_t i = edges->cards[card]; i < edges->cards[card + 1]; i++)
		if (edges->sources[i] == source)
			mark(marker, edges->targets[i]);
}

static inline void fetch_card(const struct leak_scan *scan, heap_index index)
{
	const struct edges *edges = scan->parts[index >> PART_BITS];

	if (edges)
		__builtin_prefetch(&edges->cards[index >> CARD_BITS & (CARDS - 1)]);
}

static inline void fetch_edges(const struct leak_scan *scan, heap_index index)
{
	const struct edges *edges = scan->parts[index >> PART_BITS];
	uint32_t at;

	if (!edges)
		return;
	at = edges->cards[index >> CARD_BITS & (CARDS - 1)];
	__builtin_prefetch(&edges->sources[at]);
	__builtin_prefetch(&edges->targets[at]);
}

static void drain(struct marker *marker)
{
	const struct leak_scan *scan = marker->scan;

	while (marker->stack.size || marker->size) {
		while (marker->stack.size && marker->size < QUEUE) {
			heap_index index = marker->stack.data[--marker->stack.size];

			fetch_card(scan, index);
			marker->queue[(marker->head + marker->size++) % QUEUE] = index;
		}
		if (marker->size > HALF)
			fetch_edges(scan, marker->queue[(marker->head + HALF) % QUEUE]);
		visit(marker, marker->queue[marker->head % QUEUE]);
		marker->head++;
		marker->size--;
	}
}

/* Reads the blocks of a stretch that are pending. */
static struct error *read_part(struct marker *marker, heap_index part)
{
	heap_index first = part << PART_BITS, end = first + (1u << PART_BITS);

	marker->part_pending[part] = false;
	for (uint64_t at = first / 64; at < end / 64 && at < marker->scan->heap->bits / 64; at++) {
		uint64_t word = marker->pending[at];

		marker->pending[at] = 0;
		for (; word; word &= word - 1) {
			struct error *error = leak_scan_edges(
				marker->scan, at * 64 + __builtin_ctzll(word), mark, marker);

			if (error)
				return error;
		}
	}
	return NULL;
}

static struct error *mark_all(struct marker *marker)
{
	struct error *error = NULL;

	vec_for_each (index, &marker->scan->from_roots)
		mark(marker, *index);
	drain(marker);
	while (!error && !marker->failed && marker->parts.size) {
		error = read_part(marker, marker->parts.data[--marker->parts.size]);
		drain(marker);
	}
	return error ? error : marker->failed ? &error_no_memory : NULL;
}

struct error *leak_mark(struct leak_scan *scan)
{
	struct marker marker = { .scan = scan };
	struct error *error = &error_no_memory;

	marker.pending = calloc(scan->heap->bits / 64 + 1, sizeof(*marker.pending));
	marker.part_pending = calloc(scan->part_count + 1, sizeof(*marker.part_pending));
	if (marker.pending && marker.part_pending)
		error = mark_all(&marker);
	free(marker.pending);
	free(marker.part_pending);
	heap_index_vec_deinit(&marker.stack);
	heap_index_vec_deinit(&marker.parts);
	return error;
}
