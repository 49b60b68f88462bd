#include "leak_mark.h"

#include "leak_packed.h"
#include "memprobe/num.h"
#include "memprobe/big_array.h"

/*
 * Depth first, with the blocks that come next in a short queue: what they need is fetched while
 * others are worked on, twice: first where their pointers are noted, then the pointers themselves.
 */
#define QUEUE 16u /* power of two */
#define HALF  (QUEUE / 2)
/* So many blocks of a MiB are read faster with all that is between them. */
#define MANY 128u
/* What a table of pointers may push at once, 8 bytes each. */
#define STACK_MAX (1u << 19)

/* Blocks visited between two looks whether memprobe is to end. */
#define INTERRUPT_LOOKS 65536u

struct marker {
	struct leak_scan *scan;
	struct heap_index_vec stack;
	heap_index queue[QUEUE];
	unsigned head, size;
	/* Stretches with blocks that were reached, but not @done: their pointers were not kept, and
	 * they are read again when others of their stretch can be read with them; or the stack had
	 * no room for them. */
	uint64_t *done; /* a bitmap */
	bool *is_waiting;
	heap_index *waiting; /* a ring, with room for all stretches */
	size_t first_waiting, waiting_count;
	/* The stretch that is being read again, and its blocks that are to be worked on. */
	heap_index at_hand;
	struct heap_index_vec near;
	struct reread reread;
	struct sieve sieve;
	bool failed;
	uint64_t visits;
};

#define NO_PART HEAP_NONE

static void put_off(struct marker *marker, heap_index index)
{
	heap_index part = index >> PART_BITS;

	if (part == marker->at_hand) {
		marker->done[index / 64] |= 1ull << (index % 64);
		if (heap_index_vec_append(&marker->near, &index))
			marker->failed = true;
		return;
	}
	if (marker->is_waiting[part])
		return;
	marker->is_waiting[part] = true;
	marker->waiting[(marker->first_waiting + marker->waiting_count++) %
			marker->scan->part_count] = part;
}

static heap_index next_waiting(struct marker *marker)
{
	heap_index part = marker->waiting[marker->first_waiting];

	marker->first_waiting = (marker->first_waiting + 1) % marker->scan->part_count;
	marker->waiting_count--;
	marker->is_waiting[part] = false;
	return part;
}

static inline void mark(struct marker *marker, heap_index index)
{
	uint64_t *word = &marker->scan->reached[index / 64], bit = 1ull << (index % 64);

	if (*word & bit)
		return;
	*word |= bit;
	if (marker->scan->unstored[index >> PART_BITS] || marker->stack.size >= STACK_MAX)
		put_off(marker, index);
	else if (heap_index_vec_append(&marker->stack, &index))
		marker->failed = true;
}

static void mark_hit(void *data, uint32_t source, heap_index target)
{
	mark(data, target);
}

static void mark_far(struct marker *marker, heap_index index)
{
	size_t i, end;

	for (leak_scan_far(marker->scan, index, &i, &end); i < end; i++)
		mark(marker, marker->scan->far.data[i].target);
}

/* Of a stretch whose pointers were kept. */
static void visit(struct marker *marker, heap_index index)
{
	const struct leak_scan *scan = marker->scan;
	const uint8_t *packed = scan->parts[index >> PART_BITS];
	uint8_t source = packed_source_of(index);

	if (scan->has_far[index >> PART_BITS])
		mark_far(marker, index);
	if (!packed)
		return;
	packed_for_each(edge, packed, index) if (packed_source(edge) == source)
		mark(marker, packed_target(edge));
}

static inline void fetch_card(const struct leak_scan *scan, heap_index index)
{
	const uint8_t *packed = scan->parts[index >> PART_BITS];

	if (packed)
		__builtin_prefetch(packed_card(packed, index));
}

static inline void fetch_edges(const struct leak_scan *scan, heap_index index)
{
	const uint8_t *packed = scan->parts[index >> PART_BITS];

	if (packed)
		__builtin_prefetch(packed_first(packed, index, 0));
}

static void drain(struct marker *marker)
{
	const struct leak_scan *scan = marker->scan;

	while (marker->stack.size || marker->size) {
		if (!(++marker->visits % INTERRUPT_LOOKS) &&
		    target_is_interrupted(marker->scan->heap->target))
			return;
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

/* Calls for the blocks of a stretch that wait. */
static void take_waiting(struct marker *marker, heap_index part,
			 void (*take)(struct marker *marker, heap_index index))
{
	uint64_t first = (part << PART_BITS) / 64;
	uint64_t end = min_u64(first + (1u << PART_BITS) / 64, marker->scan->heap->bits / 64);

	for (uint64_t at = first; at < end; at++) {
		uint64_t word = marker->scan->reached[at] & ~marker->done[at];

		marker->done[at] |= word;
		for (; word; word &= word - 1)
			take(marker, at * 64 + __builtin_ctzll(word));
	}
}

/* Late, so that they are many at once; what they point to in the same stretch comes next. */
static struct error *read_waiting(struct marker *marker, heap_index part)
{
	struct error *error = NULL;
	unsigned count = 0;

	marker->at_hand = part;
	marker->near.size = 0;
	marker->reread.start = marker->reread.end = 0;
	take_waiting(marker, part, put_off);
	if (marker->near.size > MANY)
		count = MANY + 1;
	while (!error && !marker->failed && (marker->near.size || marker->sieve.count)) {
		if (!marker->near.size) {
			sieve_flush(&marker->sieve);
			continue;
		}
		error = leak_scan_reread(marker->scan, &marker->reread,
					 marker->near.data[--marker->near.size], count++ > MANY,
					 &marker->sieve);
	}
	marker->at_hand = NO_PART;
	return error;
}

static struct error *mark_all(struct marker *marker)
{
	struct error *error = NULL;

	vec_for_each (index, &marker->scan->from_roots)
		mark(marker, *index);
	drain(marker);
	while (!error && !marker->failed && marker->waiting_count) {
		heap_index part = next_waiting(marker);

		if (marker->scan->unstored[part])
			error = read_waiting(marker, part);
		else
			take_waiting(marker, part, visit);
		drain(marker);
		if (!error)
			error = target_check_interrupted(marker->scan->heap->target);
	}
	if (!error)
		error = target_check_interrupted(marker->scan->heap->target);
	return error ? error : marker->failed ? &error_no_memory : NULL;
}

struct error *leak_mark(struct leak_scan *scan)
{
	struct marker marker = { .scan = scan, .at_hand = NO_PART };
	struct error *error = &error_no_memory;
	size_t done_size = (scan->heap->bits / 64 + 1) * sizeof(*marker.done);

	sieve_init(&marker.sieve, scan, scan->reached, &marker);
	marker.sieve.hit = mark_hit;
	marker.done = big_array_create(done_size);
	marker.is_waiting = calloc(scan->part_count + 1, sizeof(*marker.is_waiting));
	marker.waiting = calloc(scan->part_count + 1, sizeof(*marker.waiting));
	if (marker.done && marker.is_waiting && marker.waiting)
		error = mark_all(&marker);
	big_array_destroy(marker.done, done_size);
	free(marker.is_waiting);
	free(marker.waiting);
	reread_deinit(&marker.reread);
	heap_index_vec_deinit(&marker.stack);
	heap_index_vec_deinit(&marker.near);
	return error;
}
