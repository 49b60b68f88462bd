/*
 * range.h - ranges of addresses.
 */
#ifndef MEMPROBE_RANGE_H
#define MEMPROBE_RANGE_H

#include <stdbool.h>
#include <stdint.h>

#include "memprobe/vec.h"

/* [start, end) */
struct range {
	uint64_t start, end;
};

VEC_DEFINE(range_vec, struct range)

/* Sorts them; neighbours and what overlaps become one, empty ones go. */
void ranges_normalise(struct range_vec *ranges);

/* The one of normalised ranges that has @address in it; NULL: none. O(log n). */
const struct range *ranges_find(const struct range_vec *ranges, uint64_t address);

static inline bool ranges_contain(const struct range_vec *ranges, uint64_t address)
{
	return ranges_find(ranges, address);
}

/* Appends a range whose start is not below that of the last one: joins it where they touch. */
struct error *ranges_add(struct range_vec *ranges, uint64_t start, uint64_t end);

/* Bytes in all. */
uint64_t ranges_size(const struct range_vec *ranges);

#endif
