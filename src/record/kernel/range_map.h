/*
 * range_map.h - a number for each of many ranges of addresses, without overlaps.
 *
 * A sorted array: fast while the ranges are as many as a process may have mappings (65,530 by
 * default, vm.max_map_count).
 */
#ifndef RECORD_RANGE_MAP_H
#define RECORD_RANGE_MAP_H

#include <stdint.h>

#include "memprobe/vec.h"

struct range_map_entry {
	uint64_t start, end;
	uint32_t value;
};

VEC_DEFINE(range_map_vec, struct range_map_entry)

/* A zeroed struct is empty. */
struct range_map {
	struct range_map_vec entries; /* by address */
};

void range_map_deinit(struct range_map *map);

/* Told of each piece that was taken out, or replaced. May be NULL. */
typedef void range_map_removed(void *data, uint64_t start, uint64_t end, uint32_t value);

struct error *range_map_erase(struct range_map *map, uint64_t start, uint64_t end,
			      range_map_removed *removed, void *data);

/* Replaces what there is of [start, end). Nothing if it is empty. */
struct error *range_map_set(struct range_map *map, uint64_t start, uint64_t end, uint32_t value,
			    range_map_removed *removed, void *data);

/* NULL: @address is in none. */
const struct range_map_entry *range_map_find(const struct range_map *map, uint64_t address);

#endif
