/*
 * Counts blocks by what they begin with. Where there are more contents than may be kept, those that
 * have shown up least are dropped along the way (Manku and Motwani, "Approximate Frequency Counts
 * over Data Streams", 2002), and the heap is read again to count those that are left exactly.
 */
#include <string.h>

#include "census_tally.h"
#include "memprobe/content.h"
#include "memprobe/hash_index.h"
#include "memprobe/map64.h"
#include "memprobe/num.h"
#include "memprobe/sparse_read.h"

/* An entry takes about 100 bytes with its slots in the map: 4 % of the heap. */
#define BYTES_PER_ENTRY 2560u
#define ENTRIES_MIN	32768u
#define NO_TYPE		UINT32_MAX

struct entry {
	struct tally tally;
	uint64_t hash;
	uint32_t type;
	uint8_t varying; /* a bit for each of the numbers in the text: not the same in all */
	uint16_t runs[CONTENT_RUNS];
};

VEC_DEFINE(entry_vec, struct entry)

struct counting {
	const struct heap *heap;
	struct object_types *types;
	struct entry_vec entries;
	struct map64 indices; /* by hash */
	size_t entries_max;
	uint64_t missed_max;
	bool closed; /* only what is there is counted */
	struct tally read;
};

/* Drops the rarest contents, a half of them at least. */
static struct error *drop_rare(struct counting *counting)
{
	struct entry_vec *entries = &counting->entries;
	size_t enough = counting->entries_max / 2, kept;
	struct error *error = NULL;
	uint64_t rare = 0;

	do {
		kept = 0;
		rare = rare ? rare * 2 : 1;
		vec_for_each (entry, entries)
			kept += entry->tally.count > rare;
	} while (kept > enough);
	kept = 0;
	map64_clear(&counting->indices);
	for (size_t i = 0; !error && i < entries->size; i++) {
		if (entries->data[i].tally.count <= rare)
			continue;
		error = map64_put(&counting->indices, entries->data[i].hash, kept);
		entries->data[kept++] = entries->data[i];
	}
	entries->size = kept;
	counting->missed_max += rare;
	return error;
}

static struct error *new_entry(struct counting *counting, const struct content *content,
			       uint64_t hash, uint32_t type, struct entry **ret)
{
	struct entry entry = { .hash = hash, .type = type };
	struct error *error = NULL;

	*ret = NULL;
	if (counting->closed)
		return NULL;
	if (counting->entries.size >= counting->entries_max)
		error = drop_rare(counting);
	memcpy(entry.runs, content->runs, sizeof(entry.runs));
	if (!error)
		error = map64_put(&counting->indices, hash, counting->entries.size);
	if (!error)
		error = entry_vec_append(&counting->entries, &entry);
	if (!error)
		*ret = &counting->entries.data[counting->entries.size - 1];
	return error;
}

static struct error *see_block(void *data, const struct heap_chunk *chunk, const void *bytes,
			       size_t size)
{
	struct counting *counting = data;
	const unsigned word = counting->heap->target->arch->word_size;
	const struct object_type *type;
	struct content content;
	struct entry *entry;
	uint64_t hash, index;
	struct error *error = object_types_of_block(counting->types, chunk->address, chunk->size,
						    bytes, size, &type);

	if (error)
		return error;
	tally_add(&counting->read, chunk);
	content_describe(counting->heap, bytes, size, type ? word : 0, &content);
	hash = type ? hash_word(content.hash, type->index) : content.hash;
	index = map64_get(&counting->indices, hash);
	if (index != MAP64_NONE)
		entry = &counting->entries.data[index];
	else
		error = new_entry(counting, &content, hash, type ? type->index : NO_TYPE, &entry);
	if (error || !entry)
		return error;
	tally_add(&entry->tally, chunk);
	for (unsigned i = 0; i < CONTENT_RUNS; i++)
		entry->varying |= (entry->runs[i] != content.runs[i]) << i;
	return NULL;
}

static struct error *count_contents(struct counting *counting)
{
	const struct heap *heap = counting->heap;
	struct error *error = heap_read_blocks(heap, CONTENT_PREFIX, see_block, counting);

	if (error || !counting->missed_max)
		return error;
	counting->closed = true;
	counting->read = (struct tally){ 0 };
	vec_for_each (entry, &counting->entries)
		entry->tally = (struct tally){ 0 };
	return heap_read_blocks(heap, CONTENT_PREFIX, see_block, counting);
}

/* ---- groups ---- */

static int compare_entries(const void *left, const void *right)
{
	const struct entry *a = left, *b = right;

	return tally_compare(&a->tally, &b->tally);
}

/* Leaves those that have more than one block. */
static void sort_out(struct counting *counting, struct census *census)
{
	struct entry_vec *entries = &counting->entries;
	size_t kept = 0;

	census->single_count = counting->read.count;
	census->single_bytes = counting->read.bytes;
	for (size_t i = 0; i < entries->size; i++) {
		if (entries->data[i].tally.count < 2)
			continue;
		census->single_count -= entries->data[i].tally.count;
		census->single_bytes -= entries->data[i].tally.bytes;
		entries->data[kept++] = entries->data[i];
	}
	entries->size = kept;
	if (kept)
		qsort(entries->data, kept, sizeof(*entries->data), compare_entries);
}

static struct error *add_group(const struct counting *counting, const struct entry *entry,
			       struct census *census)
{
	const struct object_type *type =
		entry->type == NO_TYPE ? NULL : object_types_get(counting->types, entry->type);
	uint8_t bytes[CONTENT_PREFIX];
	char name[CONTENT_NAME], *key;
	struct heap_chunk chunk;
	struct content content;
	struct error *error = NULL;
	size_t size = 0, length;

	if (heap_find(counting->heap, entry->tally.example, &chunk))
		size = min_u64(chunk.size, sizeof(bytes));
	error = target_read_sparse(counting->heap->target, entry->tally.example, bytes, size, NULL);
	if (error)
		return error;
	content_describe(counting->heap, bytes, size,
			 type ? counting->heap->target->arch->word_size : 0, &content);
	content_name(counting->heap, &content, bytes, entry->varying, name);
	length = (type ? strlen(type->name) + 1 : 0) + strlen(name) + 1;
	key = malloc(length);
	if (key)
		snprintf(key, length, "%s%s%s", type ? type->name : "", type ? " " : "", name);
	return census_add_group(census, &entry->tally, key, type);
}

struct error *census_by_content(const struct heap *heap, const struct census_options *options,
				struct census *census, struct tally *read_ret)
{
	struct counting counting = { .heap = heap, .types = census->types };
	uint64_t bytes = 0;
	struct error *error;

	vec_for_each (region, &heap->regions)
		bytes += region->end - region->start;
	counting.entries_max = options->contents_max
				       ? max_u64(options->contents_max, 2)
				       : max_u64(ENTRIES_MIN, bytes / BYTES_PER_ENTRY);
	error = count_contents(&counting);
	if (!error)
		sort_out(&counting, census);
	census->group_count = counting.entries.size;
	census->missed_max = counting.missed_max;
	*read_ret = counting.read;
	for (size_t i = 0;
	     !error && i < counting.entries.size && (!options->top || i < options->top); i++)
		error = add_group(&counting, &counting.entries.data[i], census);
	entry_vec_deinit(&counting.entries);
	map64_deinit(&counting.indices);
	return error;
}
