/*
 * leak_packed.h - access to the packed pointers of a stretch (leak_scan.h).
 */
#ifndef LEAK_PACKED_H
#define LEAK_PACKED_H

#include <string.h>

#include "leak_scan.h"

#define PACKED_CARDS ((CARDS + 1) * sizeof(uint16_t))

static inline size_t packed_size(size_t edges)
{
	return PACKED_CARDS + edges * EDGE;
}

static inline void packed_set_card(uint8_t *packed, uint32_t card, uint16_t first)
{
	memcpy(packed + card * sizeof(first), &first, sizeof(first));
}

static inline const uint8_t *packed_card(const uint8_t *packed, heap_index index)
{
	return packed + (index >> CARD_BITS & (CARDS - 1)) * sizeof(uint16_t);
}

/* Where the pointers of a card begin; of the one behind it, if @ahead is 1. */
static inline const uint8_t *packed_first(const uint8_t *packed, heap_index index, unsigned ahead)
{
	uint16_t first;

	memcpy(&first, packed_card(packed, index) + ahead * sizeof(first), sizeof(first));
	return packed + PACKED_CARDS + (size_t)first * EDGE;
}

/* Those of the card that @index lies in. */
#define packed_for_each(edge, packed, index)                             \
	for (const uint8_t *edge = packed_first(packed, index, 0),       \
			   *edge##_end = packed_first(packed, index, 1); \
	     edge < edge##_end; edge += EDGE)

static inline uint8_t packed_source_of(heap_index index)
{
	return index & ((1u << CARD_BITS) - 1);
}

static inline uint8_t packed_source(const uint8_t *edge)
{
	return edge[0];
}

static inline heap_index packed_target(const uint8_t *edge)
{
	uint32_t target;

	memcpy(&target, edge + 1, sizeof(target));
	return target;
}

#endif
