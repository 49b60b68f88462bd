#include "range_map.h"

#include <string.h>

#include "memprobe/lower_bound.h"

void range_map_deinit(struct range_map *map)
{
	range_map_vec_deinit(&map->entries);
}

/* The first entry that ends behind @address. */
static size_t first_behind(const struct range_map *map, uint64_t address)
{
	return lower_bound(map->entries.data, map->entries.size, entry, entry->end <= address);
}

/* Replaces @count entries at @at by @with. */
static struct error *splice(struct range_map *map, size_t at, size_t count,
			    const struct range_map_entry *with, size_t with_count)
{
	struct range_map_vec *entries = &map->entries;
	size_t behind = entries->size - at - count;

	if (with_count > count && entries->size + with_count - count > entries->capacity) {
		struct error *error =
			range_map_vec_reserve(entries, entries->capacity * 2 + with_count);

		if (error)
			return error;
	}
	if (behind)
		memmove(entries->data + at + with_count, entries->data + at + count,
			behind * sizeof(*entries->data));
	if (with_count)
		memcpy(entries->data + at, with, with_count * sizeof(*with));
	entries->size = at + with_count + behind;
	return NULL;
}

/* Takes [start, end) out and puts @middle, if there is one, in its place. */
static struct error *replace(struct range_map *map, uint64_t start, uint64_t end,
			     const struct range_map_entry *middle, range_map_removed *removed,
			     void *data)
{
	size_t first = first_behind(map, start), last = first, count = 0;
	struct range_map_entry with[3];
	struct error *error;

	while (last < map->entries.size && map->entries.data[last].start < end)
		last++;
	if (last > first && map->entries.data[first].start < start) {
		with[count] = map->entries.data[first];
		with[count++].end = start;
	}
	if (middle)
		with[count++] = *middle;
	if (last > first && map->entries.data[last - 1].end > end) {
		with[count] = map->entries.data[last - 1];
		with[count++].start = end;
	}
	for (size_t i = first; removed && i < last; i++) {
		const struct range_map_entry *old = &map->entries.data[i];

		removed(data, old->start > start ? old->start : start,
			old->end < end ? old->end : end, old->value);
	}
	error = splice(map, first, last - first, with, count);
	return error;
}

struct error *range_map_erase(struct range_map *map, uint64_t start, uint64_t end,
			      range_map_removed *removed, void *data)
{
	return start < end ? replace(map, start, end, NULL, removed, data) : NULL;
}

struct error *range_map_set(struct range_map *map, uint64_t start, uint64_t end, uint32_t value,
			    range_map_removed *removed, void *data)
{
	const struct range_map_entry entry = { start, end, value };

	return start < end ? replace(map, start, end, &entry, removed, data) : NULL;
}

const struct range_map_entry *range_map_find(const struct range_map *map, uint64_t address)
{
	size_t at = first_behind(map, address);

	if (at == map->entries.size || map->entries.data[at].start > address)
		return NULL;
	return &map->entries.data[at];
}
