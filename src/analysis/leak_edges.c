/*
 * The pointers that were found, kept small: five bytes each, or not at all where they would be too
 * many; then their blocks are read again.
 */
#include <stdlib.h>

#include "leak_scan.h"
#include "memprobe/num.h"
#include "memprobe/sparse_read.h"

#define EDGE 5u /* bytes */

/* ---- keeping the edges ---- */

struct error *leak_scan_store(struct leak_scan *scan, size_t part, const uint32_t *targets,
			      const uint32_t *sources, size_t size)
{
	uint64_t bytes = size * EDGE + sizeof(struct edges);
	struct edges *edges;
	uint32_t card = 0;

	if (!size)
		return NULL;
	if (atomic_fetch_add(&scan->stored, bytes) + bytes > scan->budget) {
		atomic_fetch_sub(&scan->stored, bytes);
		scan->unstored[part] = true;
		return NULL;
	}
	edges = malloc(sizeof(*edges));
	if (edges) {
		edges->targets = malloc(size * sizeof(*edges->targets));
		edges->sources = malloc(size);
	}
	scan->parts[part] = edges;
	if (!edges || !edges->targets || !edges->sources)
		return &error_no_memory;
	for (size_t i = 0; i < size; i++) {
		uint32_t source = sources[i];

		while (card <= source >> CARD_BITS)
			edges->cards[card++] = i;
		edges->targets[i] = targets[i];
		edges->sources[i] = source & ((1u << CARD_BITS) - 1);
	}
	while (card <= CARDS)
		edges->cards[card++] = size;
	return NULL;
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
	size_t low = 0, high = scan->far.size;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (scan->far.data[middle].source < index)
			low = middle + 1;
		else
			high = middle;
	}
	*first_ret = low;
	while (low < scan->far.size && scan->far.data[low].source == index)
		low++;
	*end_ret = low;
}

/* ---- asking for them again ---- */

#define REREAD_MAX (1u << 20)

/* [address, address + size) through the buffer, at most REREAD_MAX. */
static struct error *reread_bytes(const struct leak_scan *scan, struct reread *reread,
				  const struct heap_region *region, uint64_t address, size_t size,
				  bool many, const uint8_t **ret)
{
	struct error *error = NULL;

	if (!reread->bytes)
		reread->bytes = malloc(REREAD_MAX);
	if (!reread->bytes)
		return &error_no_memory;
	if (address < reread->start || address + size > reread->end) {
		uint64_t end = many ? min_u64(region->end, address + REREAD_MAX) : address + size;

		reread->start = reread->end = 0;
		error = target_read_sparse(scan->heap->target, address, reread->bytes,
					   end - address, NULL);
		if (error)
			return error;
		reread->start = address;
		reread->end = end;
	}
	*ret = reread->bytes + (address - reread->start);
	return NULL;
}

struct error *leak_scan_reread(const struct leak_scan *scan, struct reread *reread,
			       heap_index index, bool many,
			       void (*visit)(void *data, heap_index target), void *data)
{
	unsigned word = scan->word;
	struct heap_chunk chunk;

	heap_chunk(scan->heap, index, &chunk);
	for (uint64_t done = 0; done < chunk.size;) {
		size_t part = min_u64(chunk.size - done, REREAD_MAX);
		const uint8_t *bytes = NULL;
		struct error *error =
			reread_bytes(scan, reread, &scan->heap->regions.data[chunk.region],
				     chunk.address + done, part, many, &bytes);

		if (error)
			return error;
		for (size_t i = 0; i + word <= part; i += word) {
			heap_index target = leak_scan_resolve(scan, load_word(bytes + i, word));

			if (target != HEAP_NONE && target != index)
				visit(data, target);
		}
		done += part;
	}
	return NULL;
}

struct error *leak_scan_edges(const struct leak_scan *scan, heap_index index,
			      void (*visit)(void *data, heap_index target), void *data)
{
	const struct edges *edges = scan->parts[index >> PART_BITS];
	uint32_t card = index >> CARD_BITS & (CARDS - 1);
	uint8_t source = index & ((1u << CARD_BITS) - 1);

	if (scan->unstored[index >> PART_BITS]) {
		struct reread reread = { 0 };
		struct error *error = leak_scan_reread(scan, &reread, index, false, visit, data);

		free(reread.bytes);
		return error;
	}
	if (scan->has_far[index >> PART_BITS]) {
		size_t i, end;

		for (leak_scan_far(scan, index, &i, &end); i < end; i++)
			visit(data, scan->far.data[i].target);
	}
	if (!edges)
		return NULL;
	for (uint32_t i = edges->cards[card]; i < edges->cards[card + 1]; i++)
		if (edges->sources[i] == source)
			visit(data, edges->targets[i]);
	return NULL;
}
