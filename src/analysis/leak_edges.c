/*
 * The pointers that were found, kept small: five bytes each, or not at all where they would be too
 * many; then their blocks are read again.
 */
#include <string.h>

#include "leak_packed.h"
#include "memprobe/lower_bound.h"
#include "memprobe/num.h"
#include "memprobe/sparse_read.h"

/* ---- keeping the edges ---- */

/* Room in the store, or NULL. */
static uint8_t *take_room(struct leak_scan *scan, uint64_t size)
{
	uint64_t stored = atomic_load(&scan->stored);

	do {
		if (size > scan->budget - stored)
			return NULL;
	} while (!atomic_compare_exchange_weak(&scan->stored, &stored, stored + size));
	return scan->store + stored;
}

void leak_scan_store(struct leak_scan *scan, size_t part, const uint32_t *targets,
		     const uint32_t *sources, size_t size)
{
	uint8_t *room, *at;
	uint32_t card = 0;

	if (!size)
		return;
	room = size > EDGES_MAX ? NULL : take_room(scan, round_up(packed_size(size), 64));
	if (!room) {
		scan->unstored[part] = true;
		return;
	}
	at = room + PACKED_CARDS;
	for (size_t i = 0; i < size; i++, at += EDGE) {
		uint32_t source = sources[i];

		while (card <= source >> CARD_BITS)
			packed_set_card(room, card++, i);
		at[0] = source & ((1u << CARD_BITS) - 1);
		memcpy(at + 1, &targets[i], 4);
	}
	while (card <= CARDS)
		packed_set_card(room, card++, size);
	scan->parts[part] = room;
}

/* ---- far ones ---- */

static int compare_far(const void *left, const void *right)
{
	const struct far_edge *a = left, *b = right;

	return a->source < b->source ? -1 : a->source > b->source;
}

void leak_scan_sort_far(struct leak_scan *scan)
{
	if (scan->far.size)
		qsort(scan->far.data, scan->far.size, sizeof(*scan->far.data), compare_far);
	vec_for_each (edge, &scan->far)
		scan->has_far[edge->source >> PART_BITS] = true;
}

void leak_scan_far(const struct leak_scan *scan, heap_index index, size_t *first_ret,
		   size_t *end_ret)
{
	size_t low = lower_bound(scan->far.data, scan->far.size, edge, edge->source < index);

	*first_ret = low;
	while (low < scan->far.size && scan->far.data[low].source == index)
		low++;
	*end_ret = low;
}

/* ---- asking for them again ---- */

#define STRETCH_MAX (1u << 20)
/* Of a block in one piece. */
#define SINGLE_MAX (1u << 16)

static struct error *make_room(struct reread *reread)
{
	if (!reread->bytes)
		reread->bytes = malloc(STRETCH_MAX + SINGLE_MAX);
	return reread->bytes ? NULL : &error_no_memory;
}

/* What there is of the region from the beginning of the stretch that @address lies in. */
static struct error *read_stretch(const struct leak_scan *scan, struct reread *reread,
				  const struct heap_region *region, uint64_t address)
{
	const struct heap *heap = scan->heap;
	heap_index index = region->first + (address - region->base) / heap->alignment;
	heap_index first = index >> PART_BITS << PART_BITS;
	uint64_t start = region->base, end;
	struct error *error;

	if (first > region->first)
		start += (first - region->first) * heap->alignment;
	end = min_u64(region->end, start + STRETCH_MAX);
	reread->start = reread->end = 0;
	error = target_read_sparse(heap->target, start, reread->bytes, end - start, NULL);
	if (!error) {
		reread->start = start;
		reread->end = end;
	}
	return error;
}

/* [address, address + size) of a block, at most SINGLE_MAX. */
static struct error *reread_bytes(const struct leak_scan *scan, struct reread *reread,
				  const struct heap_region *region, uint64_t address, size_t size,
				  bool many, const uint8_t **ret)
{
	struct error *error = make_room(reread);

	if (!error && many && !region->mmapped &&
	    (address < reread->start || address >= reread->end))
		error = read_stretch(scan, reread, region, address);
	if (error)
		return error;
	if (address >= reread->start && address + size <= reread->end) {
		*ret = reread->bytes + (address - reread->start);
		return NULL;
	}
	*ret = reread->bytes + STRETCH_MAX;
	return target_read_sparse(scan->heap->target, address, reread->bytes + STRETCH_MAX, size,
				  NULL);
}

void reread_deinit(struct reread *reread)
{
	free(reread->bytes);
}

struct error *leak_scan_reread(const struct leak_scan *scan, struct reread *reread,
			       heap_index index, bool many, struct sieve *sieve)
{
	struct heap_chunk chunk;

	heap_chunk(scan->heap, index, &chunk);
	for (uint64_t done = 0; done < chunk.size;) {
		size_t part = min_u64(chunk.size - done, SINGLE_MAX);
		const uint8_t *bytes = NULL;
		struct error *error =
			reread_bytes(scan, reread, &scan->heap->regions.data[chunk.region],
				     chunk.address + done, part, many, &bytes);

		if (error)
			return error;
		sieve_words(sieve, bytes, part, 0);
		done += part;
	}
	return NULL;
}

struct visitor {
	heap_index source;
	void (*visit)(void *data, heap_index target);
	void *data;
};

static void visit_hit(void *data, uint32_t source, heap_index target)
{
	struct visitor *visitor = data;

	if (target != visitor->source)
		visitor->visit(visitor->data, target);
}

struct error *leak_scan_edges(const struct leak_scan *scan, struct reread *reread, heap_index index,
			      bool many, void (*visit)(void *data, heap_index target), void *data)
{
	const uint8_t *packed = scan->parts[index >> PART_BITS];
	struct visitor visitor = { index, visit, data };
	size_t i, end;

	if (scan->unstored[index >> PART_BITS]) {
		struct error *error;
		struct sieve sieve;

		sieve_init(&sieve, scan, NULL, &visitor);
		sieve.hit = visit_hit;
		error = leak_scan_reread(scan, reread, index, many, &sieve);
		sieve_flush(&sieve);
		return error;
	}
	if (scan->has_far[index >> PART_BITS])
		for (leak_scan_far(scan, index, &i, &end); i < end; i++)
			visit(data, scan->far.data[i].target);
	if (packed)
		packed_for_each(edge, packed,
				index) if (packed_source(edge) == packed_source_of(index))
			visit(data, packed_target(edge));
	return NULL;
}
