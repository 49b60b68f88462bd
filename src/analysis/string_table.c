#include "string_table.h"

#include <string.h>

#include "memprobe/num.h"
#include "memprobe/strings.h"

#define CAPACITY_MIN   1024u
#define TEXT_BYTES_MAX (16u << 20)
#define TEXT_SHORT     64u /* kept where there is no room for more */
#define SAMPLES	       1001u

void string_table_init(struct string_table *table, size_t used_max, bool lazy)
{
	*table = (struct string_table){
		.used_max = max_u64(used_max, 16),
		.text_max = TEXT_BYTES_MAX,
		.lazy = lazy,
	};
}

void string_table_deinit(struct string_table *table)
{
	for (size_t i = 0; i < table->capacity; i++)
		free(table->entries[i].text);
	free(table->entries);
	*table = (struct string_table){ 0 };
}

/* Its place, or the empty one where it belongs. */
static struct string_entry *place_of(struct string_entry *entries, size_t capacity, uint64_t hash)
{
	size_t at = hash & (capacity - 1);

	while (entries[at].hash && entries[at].hash != hash)
		at = (at + 1) & (capacity - 1);
	return &entries[at];
}

struct string_entry *string_table_find(const struct string_table *table, uint64_t hash)
{
	struct string_entry *entry =
		table->capacity ? place_of(table->entries, table->capacity, hash) : NULL;

	return entry && entry->hash ? entry : NULL;
}

/* Moves to @capacity places all but those that were there @forget times at most. */
static struct error *rebuild(struct string_table *table, size_t capacity, uint64_t forget)
{
	struct string_entry *entries = calloc(capacity, sizeof(*entries));

	if (!entries)
		return &error_no_memory;
	table->used = 0;
	table->text_bytes = 0;
	for (size_t i = 0; i < table->capacity; i++) {
		struct string_entry *old = &table->entries[i];

		if (!old->hash)
			continue;
		if (old->count + old->missed <= forget) {
			free(old->text);
			continue;
		}
		*place_of(entries, capacity, old->hash) = *old;
		table->used++;
		table->text_bytes += old->size;
	}
	free(table->entries);
	table->entries = entries;
	table->capacity = capacity;
	return NULL;
}

static int compare_counts(const void *left, const void *right)
{
	uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;

	return a < b ? -1 : a > b;
}

/* Hashes are random: what stands first in the table is a sample. */
static uint64_t median_count(const struct string_table *table)
{
	uint64_t counts[SAMPLES];
	size_t size = 0;

	for (size_t i = 0; i < table->capacity && size < SAMPLES; i++)
		if (table->entries[i].hash)
			counts[size++] = table->entries[i].count + table->entries[i].missed;
	qsort(counts, size, sizeof(*counts), compare_counts);
	return size ? counts[size / 2] : 0;
}

static struct error *make_room(struct string_table *table)
{
	if (table->used >= table->used_max || table->text_bytes >= table->text_max) {
		table->forgotten = max_u64(table->forgotten, median_count(table));
		return rebuild(table, table->capacity, table->forgotten);
	}
	if (table->used + 1 > table->capacity / 4 * 3)
		return rebuild(table, max_u64(CAPACITY_MIN, table->capacity * 2), 0);
	return NULL;
}

/* What the text and @text have in common stays. */
static void compare_text(struct string_entry *entry, const char *text, size_t size)
{
	size_t common = 0, limit = min_u64(entry->size, size);

	if (entry->length != size)
		entry->varies = entry->goes_on = true;
	if (limit == entry->size && !memcmp(entry->text, text, limit))
		return;
	while (common < limit && entry->text[common] == text[common])
		common++;
	entry->varies = entry->goes_on = true;
	entry->size = (uint32_t)common;
}

/* The end of the number that begins at @at. */
static size_t skip_digits(const char *text, size_t at, size_t size)
{
	while (at < size && string_is_digit((uint8_t)text[at]))
		at++;
	return at;
}

/* The same, but numbers may differ. */
static void compare_masked(struct string_entry *entry, const char *text, size_t size)
{
	size_t at = 0, other = 0;

	if (entry->size == size && !memcmp(entry->text, text, size))
		return;
	while (at < entry->size && other < size) {
		size_t end, other_end;

		if (entry->text[at] == STRING_NUMBER && string_is_digit((uint8_t)text[other])) {
			at++;
			other = skip_digits(text, other, size);
			continue;
		}
		if (!string_is_digit((uint8_t)entry->text[at]) ||
		    !string_is_digit((uint8_t)text[other])) {
			if (entry->text[at] != text[other])
				break;
			at++;
			other++;
			continue;
		}
		end = skip_digits(entry->text, at, entry->size);
		other_end = skip_digits(text, other, size);
		if (end - at != other_end - other ||
		    memcmp(entry->text + at, text + other, end - at) != 0) {
			entry->text[at] = STRING_NUMBER;
			memmove(entry->text + at + 1, entry->text + end, entry->size - end);
			entry->size -= (uint32_t)(end - at - 1);
			entry->varies = true;
			end = at + 1;
		}
		at = end;
		other = other_end;
	}
	if (at == entry->size && other == size)
		return;
	/* What is not kept of the text may be the same. */
	if (at < entry->size || !entry->goes_on)
		entry->varies = true;
	entry->goes_on = true;
	entry->size = (uint32_t)at;
}

static struct error *keep_text(struct string_table *table, struct string_entry *entry,
			       const char *text, size_t size)
{
	entry->size = (uint32_t)min_u64(size, table->text_bytes < table->text_max ? STRINGS_TEXT_MAX
										  : TEXT_SHORT);
	entry->text = malloc(entry->size + 1);
	if (!entry->text)
		return &error_no_memory;
	memcpy(entry->text, text, entry->size);
	entry->goes_on = entry->size < size;
	table->text_bytes += entry->size;
	return NULL;
}

struct error *string_table_add(struct string_table *table, uint64_t hash, const void *text,
			       size_t size)
{
	struct string_entry *entry = string_table_find(table, hash ? hash : 1);
	struct error *error;

	if (entry) {
		entry->count++;
		entry->bytes += size;
		if (!entry->text)
			return keep_text(table, entry, text, size);
		if (table->masked)
			compare_masked(entry, text, size);
		else if (!table->lazy)
			compare_text(entry, text, size);
		return NULL;
	}
	error = make_room(table);
	if (error)
		return error;
	hash = hash ? hash : 1;
	entry = place_of(table->entries, table->capacity, hash);
	*entry = (struct string_entry){
		.hash = hash,
		.count = 1,
		.missed = table->forgotten,
		.bytes = size,
		.length = (uint32_t)size,
	};
	table->used++;
	return table->lazy ? NULL : keep_text(table, entry, text, size);
}
