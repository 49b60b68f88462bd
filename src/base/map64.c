#include "memprobe/map64.h"

#include <string.h>

#include "memprobe/hash_index.h"

#define CAPACITY_MIN 64u

void map64_deinit(struct map64 *map)
{
	free(map->slots);
	*map = (struct map64){ 0 };
}

void map64_clear(struct map64 *map)
{
	/* All bytes of MAP64_NONE are the same. */
	if (map->slots)
		memset(map->slots, 0xff, map->capacity * sizeof(*map->slots));
	map->size = 0;
}

/* The slot that has @key, or the empty one that it would get. */
static struct map64_slot *slot_of(const struct map64 *map, uint64_t key)
{
	size_t at = hash_word(HASH_SEED, key) & (map->capacity - 1);

	while (map->slots[at].value != MAP64_NONE && map->slots[at].key != key)
		at = (at + 1) & (map->capacity - 1);
	return &map->slots[at];
}

uint64_t map64_get(const struct map64 *map, uint64_t key)
{
	return map->size ? slot_of(map, key)->value : MAP64_NONE;
}

static struct error *grow(struct map64 *map)
{
	struct map64 wider = { .capacity = map->capacity ? map->capacity * 2 : CAPACITY_MIN };

	wider.slots = reallocarray(NULL, wider.capacity, sizeof(*wider.slots));
	if (!wider.slots)
		return &error_no_memory;
	map64_clear(&wider);
	for (size_t i = 0; i < map->capacity; i++)
		if (map->slots[i].value != MAP64_NONE)
			*slot_of(&wider, map->slots[i].key) = map->slots[i];
	wider.size = map->size;
	map64_deinit(map);
	*map = wider;
	return NULL;
}

struct error *map64_put(struct map64 *map, uint64_t key, uint64_t value)
{
	struct map64_slot *slot;

	if (map->size >= map->capacity / 4 * 3) {
		struct error *error = grow(map);

		if (error)
			return error;
	}
	slot = slot_of(map, key);
	map->size += slot->value == MAP64_NONE;
	*slot = (struct map64_slot){ key, value };
	return NULL;
}
