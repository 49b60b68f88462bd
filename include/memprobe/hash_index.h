/*
 * hash_index.h - finds the number of an equal element: an open-addressing table of 32-bit ids.
 *
 * The elements lie elsewhere, in a vector of the caller's; the table has their hashes and numbers.
 * A zeroed struct is an empty table.
 */
#ifndef MEMPROBE_HASH_INDEX_H
#define MEMPROBE_HASH_INDEX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "memprobe/error.h"

#define HASH_INDEX_NONE UINT32_MAX

struct hash_slot {
	uint32_t hash, id;
};

struct hash_index {
	struct hash_slot *slots;
	size_t capacity; /* a power of two, or 0 */
	size_t used;
};

/* Whether the element @id is the one looked for. */
typedef bool hash_index_equal(const void *context, uint32_t id);

/* HASH_INDEX_NONE if there is none. */
uint32_t hash_index_find(const struct hash_index *index, uint32_t hash, hash_index_equal *equal,
			 const void *context);

/* @id < HASH_INDEX_NONE; equal elements are not looked for. */
struct error *hash_index_add(struct hash_index *index, uint32_t hash, uint32_t id);

void hash_index_deinit(struct hash_index *index);

/* Begin with HASH_SEED and put one part after the other into it. */
#define HASH_SEED UINT64_C(0x9e3779b97f4a7c15)
uint64_t hash_bytes(uint64_t hash, const void *bytes, size_t size);
uint64_t hash_word(uint64_t hash, uint64_t word);

static inline uint32_t hash_fold(uint64_t hash)
{
	return (uint32_t)(hash ^ hash >> 32);
}

#endif
