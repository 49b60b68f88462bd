#include "memprobe/hash_index.h"

#include <stdlib.h>
#include <string.h>

#define CAPACITY_FIRST 64

uint64_t hash_word(uint64_t hash, uint64_t word)
{
	hash = (hash ^ word) * UINT64_C(0xff51afd7ed558ccd);
	return hash ^ hash >> 29;
}

uint64_t hash_bytes(uint64_t hash, const void *bytes, size_t size)
{
	const char *at = bytes;
	uint64_t word;

	hash = hash_word(hash, size);
	for (; size >= sizeof(word); size -= sizeof(word), at += sizeof(word)) {
		memcpy(&word, at, sizeof(word));
		hash = hash_word(hash, word);
	}
	if (size) {
		word = 0;
		memcpy(&word, at, size);
		hash = hash_word(hash, word);
	}
	return hash;
}

uint32_t hash_index_find(const struct hash_index *index, uint32_t hash, hash_index_equal *equal,
			 const void *context)
{
	size_t mask = index->capacity - 1;

	if (!index->capacity)
		return HASH_INDEX_NONE;
	/* At most half of the slots are taken: the loop ends. */
	for (size_t at = hash & mask;; at = (at + 1) & mask) {
		const struct hash_slot *slot = &index->slots[at];

		if (slot->id == HASH_INDEX_NONE)
			return HASH_INDEX_NONE;
		if (slot->hash == hash && equal(context, slot->id))
			return slot->id;
	}
}

static void put(struct hash_slot *slots, size_t capacity, struct hash_slot slot)
{
	size_t mask = capacity - 1, at = slot.hash & mask;

	while (slots[at].id != HASH_INDEX_NONE)
		at = (at + 1) & mask;
	slots[at] = slot;
}

static struct error *grow(struct hash_index *index)
{
	size_t capacity = index->capacity ? index->capacity * 2 : CAPACITY_FIRST;
	struct hash_slot *slots = reallocarray(NULL, capacity, sizeof(*slots));

	if (!slots)
		return &error_no_memory;
	memset(slots, 0xff, capacity * sizeof(*slots));
	for (size_t i = 0; i < index->capacity; i++)
		if (index->slots[i].id != HASH_INDEX_NONE)
			put(slots, capacity, index->slots[i]);
	free(index->slots);
	index->slots = slots;
	index->capacity = capacity;
	return NULL;
}

struct error *hash_index_add(struct hash_index *index, uint32_t hash, uint32_t id)
{
	if (2 * (index->used + 1) > index->capacity) {
		struct error *error = grow(index);

		if (error)
			return error;
	}
	put(index->slots, index->capacity, (struct hash_slot){ hash, id });
	index->used++;
	return NULL;
}

void hash_index_deinit(struct hash_index *index)
{
	free(index->slots);
	*index = (struct hash_index){ 0 };
}
