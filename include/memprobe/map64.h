/*
 * map64.h - a hash table from numbers to numbers (hash_index.h: of anything, to 32-bit ones).
 *
 * A zeroed struct is an empty map. 16 bytes a slot, at most three quarters of them used.
 */
#ifndef MEMPROBE_MAP64_H
#define MEMPROBE_MAP64_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "memprobe/error.h"

struct map64_slot {
	uint64_t key, value;
};

struct map64 {
	struct map64_slot *slots;
	size_t size;	 /* keys in it */
	size_t capacity; /* slots: 0, or a power of two */
};

/* No value of the caller's. */
#define MAP64_NONE UINT64_MAX

void map64_deinit(struct map64 *map);

/* The value of @key; MAP64_NONE: it has none. */
uint64_t map64_get(const struct map64 *map, uint64_t key);

/* Sets the value of @key. */
struct error *map64_put(struct map64 *map, uint64_t key, uint64_t value);

/* Forgets all keys, keeps the memory. */
void map64_clear(struct map64 *map);

#endif
