#include "leak_mark.h"

#include "memprobe/num.h"
#include "memprobe/sparse_read.h"

/*
 * Depth first, with the blocks that come next in a short queue: what they need is fetched while
 * others are worked on, twice: first where their pointers are noted, then the pointers themselves.
 */
#define QUEUE 16u /* power of two */
#define HALF  (QUEUE / 2)
/* So many blocks of a MiB are read faster with all that is between them. */
#define MANY 128u
/* What a table of pointers may push at once, 8 bytes each. */
#define STACK_MAX (1u << 20)

struct marker {
	struct leak_scan *scan;
	struct heap_index_vec stack;
	heap_index queue[QUEUE];
	unsigned head, size;
	/* Blocks in stretches whose pointers were not kept, which are read again stretch by
	 * stretch; and those that the stack has no room for. */
	uint64_t *pending;
	uint32_t *part_count;	     /* how many, of each stretch */
	struct heap_index_vec parts; /* that have some, in the order of their first */
	size_t first_part;
	struct reread reread;
	bool failed;
};

/* For blocks that wait until others of their stretch can be worked on with them. */
static void put_off(struct marker *marker, heap_index index)
{
	heap_index part = index >> PART_BITS;

	marker->pending[index / 64] |= 1ull << (index % 64);
	if (marker->part_count[part]++)
		return;
	if (heap_index_vec_append(&marker->parts, &part))
		marker->failed = true;
}

static inline void mark(void *data, heap_index index)
{
	struct marker *marker = data;
	uint64_t *word = &marker->scan->reached[index / 64], bit = 1ull << (index % 64);
	struct error *error;

	if (*word & bit)
		return;
	*word |= bit;
	if (marker->stack.size >= STACK_MAX) {
		put_off(marker, index);
		return;
	}
	error = heap_index_vec_append(&marker->stack, &index);
	if (error)
		marker->failed = true;
}

static void mark_far(struct marker *marker, heap_index index)
{
	size_t i, end;

	for (leak_scan_far(marker->scan, index, &i, &end); i < end; i++)
		mark(marker, marker->scan->far.data[i].target);
}

static inline void visit(struct marker *marker, heap_index index)
{
	const struct leak_scan *scan = marker->scan;
	const struct edges *edges = scan->parts[index >> PART_BITS];
	uint32_t card = index >> CARD_BITS & (CARDS - 1);
	uint8_t source = index & ((1u << CARD_BITS) - 1);

	if (scan->unstored[index >> PART_BITS]) {
		put_off(marker, index);
		return;
	}
	if (scan->has_far[index >> PART_BITS])
		mark_far(marker, index);
	if (!edges)
		return;
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

/* Works on the blocks of a stretch that are pending. Late, so that they are many at once. */
static struct error *read_part(struct marker *marker, heap_index part)
{
	heap_index first = part << PART_BITS, end = first + (1u << PART_BITS);
	bool many = marker->part_count[part] >= MANY;

	marker->part_count[part] = 0;
	marker->reread.start = marker->reread.end = 0;
	for (uint64_t at = first / 64; at < end / 64 && at < marker->scan->heap->bits / 64; at++) {
		uint64_t word = marker->pending[at];

		marker->pending[at] = 0;
		for (; word; word &= word - 1) {
			heap_index index = at * 64 + __builtin_ctzll(word);
			struct error *error = NULL;

			if (marker->scan->unstored[part])
				error = leak_scan_reread(marker->scan, &marker->reread, index, many,
							 mark, marker);
			else
				visit(marker, index);
			if (error)
				return error;
		}
	}
	return NULL;
}

static struct error *read_parts(struct marker *marker)
{
	struct error *error = NULL;

	while (!error && !marker->failed && marker->first_part < marker->parts.size) {
		error = read_part(marker, marker->parts.data[marker->first_part++]);
		drain(marker);
	}
	return error;
}

static struct error *mark_all(struct marker *marker)
{
	struct error *error;

	vec_for_each (index, &marker->scan->from_roots)
		mark(marker, *index);
	drain(marker);
	error = read_parts(marker);
	return error ? error : marker->failed ? &error_no_memory : NULL;
}

struct error *leak_mark(struct leak_scan *scan)
{
	struct marker marker = { .scan = scan };
	struct error *error = &error_no_memory;

	marker.pending = calloc(scan->heap->bits / 64 + 1, sizeof(*marker.pending));
	marker.part_count = calloc(scan->part_count + 1, sizeof(*marker.part_count));
	if (marker.pending && marker.part_count)
		error = mark_all(&marker);
	free(marker.pending);
	free(marker.part_count);
	free(marker.reread.bytes);
	heap_index_vec_deinit(&marker.stack);
	heap_index_vec_deinit(&marker.parts);
	return error;
}
