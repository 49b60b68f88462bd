#include "memprobe/strings.h"

#include <string.h>
#include <sys/random.h>

#include "memprobe/num.h"
#include "string_table.h"

#define CHARACTER_MAX 4u /* bytes */
/* Letters that make a text with numbers more than numbers. */
#define WORD_LETTERS 4u

/* ---- characters ---- */

/* Bytes of the printable character at @at; 0: it is none. */
static size_t decode_wide(const uint8_t *at, const uint8_t *end)
{
	static const uint32_t lowest[] = { 0, 0, 0xa0, 0x800, 0x10000 };
	size_t size = *at < 0xc2 ? 0 : *at < 0xe0 ? 2 : *at < 0xf0 ? 3 : *at < 0xf5 ? 4 : 0;
	uint32_t code = *at & (0x7f >> size);

	if (!size || (size_t)(end - at) < size)
		return 0;
	for (size_t i = 1; i < size; i++) {
		if ((at[i] & 0xc0) != 0x80)
			return 0;
		code = code << 6 | (at[i] & 0x3f);
	}
	/* Surrogates, and what is no character. */
	if (code < lowest[size] || code > 0x10ffff || (code >= 0xd800 && code < 0xe000) ||
	    (code & 0xfffe) == 0xfffe || (code >= 0xfdd0 && code < 0xfdf0))
		return 0;
	return size;
}

static inline size_t decode(const uint8_t *at, const uint8_t *end)
{
	if ((uint8_t)(*at - 0x20) < 0x5f || *at == '\t')
		return 1;
	return *at < 0x80 ? 0 : decode_wide(at, end);
}

static const uint8_t *skip_printable(const uint8_t *at, const uint8_t *end)
{
	size_t size;

	while (at < end && (size = decode(at, end)))
		at += size;
	return at;
}

static const uint8_t *skip_others(const uint8_t *at, const uint8_t *end)
{
	while (at < end) {
		while (end - at >= 8 && !load_word(at, 8))
			at += 8;
		if (at == end || decode(at, end))
			break;
		at++;
	}
	return at;
}

/* ---- strings of a block ---- */

struct text {
	uint64_t hash;
	uint64_t number_hash; /* without its numbers; 0: it has none, or nothing else */
	uint64_t prefix_hash; /* 0: it is not longer than that */
	uint32_t offset, size;
};

VEC_DEFINE(text_vec, struct text)

struct strings {
	const struct strings_request *request;
	struct strings_result *result;
	struct string_table whole, numbered, prefixes;
	uint64_t seed;
};

/* Of no cryptographic strength, but the seed is not known to the target. */
static uint64_t hash_bytes(const uint8_t *bytes, size_t size, uint64_t seed)
{
	uint64_t hash = seed ^ size * 0x9e3779b97f4a7c15ull;

	for (; size >= 8; bytes += 8, size -= 8) {
		hash = (hash ^ load_word(bytes, 8)) * 0xd6e8feb86659fd93ull;
		hash ^= hash >> 32;
	}
	if (size) {
		hash = (hash ^ load_word(bytes, size)) * 0xd6e8feb86659fd93ull;
		hash ^= hash >> 32;
	}
	hash *= 0xd6e8feb86659fd93ull;
	return hash ^ hash >> 32;
}

static bool is_wanted(const struct strings *strings, const uint8_t *text, size_t size,
		      size_t characters)
{
	size_t blanks = 0;

	if (characters < strings->request->min_length)
		return false;
	while (blanks < size && (text[blanks] == ' ' || text[blanks] == '\t'))
		blanks++;
	return blanks < size;
}

/* The first @max bytes of the text with one digit for each number. */
static size_t mask_numbers(const uint8_t *text, size_t size, uint8_t *masked, size_t max)
{
	size_t length = 0;
	bool in_number = false;

	for (size_t i = 0; i < size && length < max; i++) {
		bool digit = string_is_digit(text[i]);

		/* Written over where the number goes on: without a branch, which nobody foretells.
		 */
		masked[length] = digit ? '0' : text[i];
		length += !(digit && in_number);
		in_number = digit;
	}
	return length;
}

/* What a text that is nothing but numbers and blanks has not. */
static bool has_words(const uint8_t *masked, size_t size)
{
	unsigned letters = 0;

	for (size_t i = 0; i < size && letters < WORD_LETTERS; i++)
		letters += masked[i] > '9';
	return letters >= WORD_LETTERS;
}

static uint64_t hash_prefix(const uint8_t *masked, size_t length, uint64_t seed)
{
	return length > STRINGS_PREFIX ? hash_bytes(masked, STRINGS_PREFIX, seed) | 1 : 0;
}

static void hash_groups(const struct strings *strings, const uint8_t *at, size_t size,
			bool has_number, struct text *text)
{
	uint8_t masked[STRINGS_LENGTH_MAX];
	size_t length;

	if (!has_number) {
		text->prefix_hash = hash_prefix(at, size, strings->seed);
		return;
	}
	length = mask_numbers(at, size, masked, sizeof(masked));
	text->prefix_hash = hash_prefix(masked, length, strings->seed);
	if (has_words(masked, length))
		text->number_hash = hash_bytes(masked, length, strings->seed) | 1;
}

static struct error *add_text(const struct strings *strings, const struct scan_block *block,
			      const uint8_t *at, size_t size, bool has_number,
			      struct text_vec *texts)
{
	size_t prefix = strings->request->prefix;
	struct text text = {
		.offset = (uint32_t)(at - block->bytes),
		.size = (uint32_t)size,
	};

	if (prefix == STRINGS_PREFIX_AUTO) {
		text.hash = hash_bytes(at, size, strings->seed);
		hash_groups(strings, at, size, has_number, &text);
	} else {
		text.hash = hash_bytes(at, prefix ? min_u64(size, prefix) : size, strings->seed);
	}
	return text_vec_append(texts, &text);
}

/* Where the first string may begin: behind the one that goes on from the block before. */
static const uint8_t *first_start(const struct scan_block *block, const uint8_t *end)
{
	const uint8_t *start = block->bytes, *at = start;

	for (size_t i = 1; i <= min_u64(block->before, CHARACTER_MAX); i++) {
		at = start - i;
		if ((*at & 0xc0) != 0x80)
			break;
	}
	if (at == start || at + decode(at, end) < start || !decode(at, end))
		return start;
	return skip_printable(at, end);
}

static struct error *look(void *data, const struct scan_block *block, void *result)
{
	const struct strings *strings = data;
	struct text_vec *texts = result;
	const uint8_t *last = block->bytes + (block->end - block->start);
	const uint8_t *end = last + block->after, *at;
	struct error *error = NULL;

	texts->size = 0;
	at = first_start(block, end);
	while (!error && (at = skip_others(at, last)) < last) {
		const uint8_t *start = at;
		size_t characters = 0, size, length;
		bool has_number = false;

		while (at < end && (length = decode(at, end)) &&
		       at + length - start <= (ptrdiff_t)STRINGS_LENGTH_MAX) {
			has_number |= string_is_digit(*at);
			at += length;
			characters++;
		}
		size = at - start;
		if (is_wanted(strings, start, size, characters))
			error = add_text(strings, block, start, size, has_number, texts);
		at = skip_printable(at, last);
	}
	return error;
}

static struct error *commit(void *data, const struct scan_block *block, void *result)
{
	enum { AHEAD = 8 };
	struct strings *strings = data;
	const struct text_vec *texts = result;
	struct error *error = NULL;

	for (size_t i = 0; !error && i < texts->size; i++) {
		const struct text *text = &texts->data[i];
		const uint8_t *bytes = block->bytes + text->offset;

		if (i + AHEAD < texts->size) {
			string_table_prefetch(&strings->whole, text[AHEAD].hash);
			string_table_prefetch(&strings->prefixes, text[AHEAD].prefix_hash);
			if (text[AHEAD].number_hash)
				string_table_prefetch(&strings->numbered, text[AHEAD].number_hash);
		}
		error = string_table_add(&strings->whole, text->hash, bytes, text->size);
		if (!error && text->number_hash)
			error = string_table_add(&strings->numbered, text->number_hash, bytes,
						 text->size);
		if (!error && text->prefix_hash)
			error = string_table_add(&strings->prefixes, text->prefix_hash, bytes,
						 text->size);
		strings->result->bytes += text->size;
	}
	strings->result->count += texts->size;
	return error;
}

static struct error *create_texts(void *data, void **ret)
{
	*ret = calloc(1, sizeof(struct text_vec));
	return *ret ? NULL : &error_no_memory;
}

static void destroy_texts(void *result)
{
	text_vec_deinit(result);
	free(result);
}

/* ---- groups ---- */

/* Without the beginning of a character at its end. */
static size_t whole_characters(const char *text, size_t size)
{
	const uint8_t *start = (const uint8_t *)text;

	return skip_printable(start, start + size) - start;
}

static struct error *add_group(struct string_group_vec *groups, struct string_entry *entry)
{
	struct string_group group = {
		.count = entry->count,
		.count_max = entry->count + entry->missed,
		.bytes = entry->bytes,
		.varies = entry->varies,
	};
	struct error *error;
	size_t size;

	for (size_t i = 0; i < entry->size; i++)
		if (entry->text[i] == STRING_NUMBER)
			entry->text[i] = '#';
	size = whole_characters(entry->text, entry->size);
	group.text = strndup(entry->text, size);
	group.is_cut = entry->goes_on || size < entry->size;
	if (!group.text)
		return &error_no_memory;
	error = string_group_vec_append(groups, &group);
	if (error)
		free(group.text);
	return error;
}

/* A group is shown beside what it has more than twice as much of. */
static bool is_worth(const struct string_entry *entry)
{
	return entry->hash && entry->varies && entry->count > 2 * max_u64(entry->best, 1);
}

/* Tells the groups that strings like that of @entry are in how often it is there. */
static void tell_groups(struct strings *strings, const struct string_entry *entry,
			bool tell_numbered)
{
	uint8_t masked[STRINGS_TEXT_MAX];
	size_t length = 0;
	struct string_entry *group;
	uint64_t hash;

	/* STRING_NUMBER is a number, too. */
	for (size_t i = 0; i < entry->size; i++) {
		uint8_t c = (uint8_t)entry->text[i];
		bool digit = string_is_digit(c);

		if (!digit)
			masked[length++] = c == STRING_NUMBER ? '0' : c;
		else if (!i || !string_is_digit((uint8_t)entry->text[i - 1]))
			masked[length++] = '0';
	}
	if (tell_numbered && !entry->goes_on && has_words(masked, length)) {
		hash = hash_bytes(masked, length, strings->seed) | 1;
		group = string_table_find(&strings->numbered, hash);
		if (group)
			group->best = max_u64(group->best, entry->count);
	}
	hash = hash_prefix(masked, length, strings->seed);
	group = hash ? string_table_find(&strings->prefixes, hash) : NULL;
	if (group)
		group->best = max_u64(group->best, entry->count);
}

/* Tells each group how often the most frequent whole string of it is there, or smaller group. */
static void compare_tables(struct strings *strings)
{
	for (size_t i = 0; i < strings->whole.capacity; i++)
		if (strings->whole.entries[i].text)
			tell_groups(strings, &strings->whole.entries[i], true);
	for (size_t i = 0; i < strings->numbered.capacity; i++)
		if (is_worth(&strings->numbered.entries[i]))
			tell_groups(strings, &strings->numbered.entries[i], false);
}

static struct error *add_groups(struct strings_result *result, const struct string_table *table)
{
	struct error *error = NULL;

	for (size_t i = 0; !error && i < table->capacity; i++)
		if (is_worth(&table->entries[i]))
			error = add_group(&result->groups, &table->entries[i]);
	return error;
}

static int compare_groups(const void *left, const void *right)
{
	const struct string_group *a = left, *b = right;

	if (a->count != b->count)
		return a->count > b->count ? -1 : 1;
	if (a->bytes != b->bytes)
		return a->bytes > b->bytes ? -1 : 1;
	return strcmp(a->text, b->text);
}

/* Those that rank among the first; as many as are wanted, twice, at most at a time. */
static struct error *collect(struct strings *strings)
{
	struct strings_result *result = strings->result;
	struct string_group_vec *groups = &result->groups;
	struct error *error = NULL;

	compare_tables(strings);
	for (size_t i = 0; !error && i < strings->whole.capacity; i++) {
		struct string_entry *entry = &strings->whole.entries[i];

		if (entry->hash && entry->count > 1)
			error = add_group(groups, entry);
	}
	if (!error)
		error = add_groups(result, &strings->numbered);
	if (!error)
		error = add_groups(result, &strings->prefixes);
	if (groups->size)
		qsort(groups->data, groups->size, sizeof(*groups->data), compare_groups);
	while (groups->size > strings->request->top) {
		free(groups->data[--groups->size].text);
		result->left_out++;
	}
	result->unseen_max = strings->whole.forgotten;
	return error;
}

struct error *strings_run(const struct strings_request *request, struct strings_result *ret)
{
	static const struct scan_ops ops = { create_texts, destroy_texts, look, commit };
	struct strings strings = { .request = request, .result = ret };
	size_t distinct = request->distinct ? request->distinct : STRINGS_DISTINCT;
	/* Equal hashes are equal strings only if they are of whole strings. */
	bool whole = !request->prefix || request->prefix == STRINGS_PREFIX_AUTO;
	struct scan_request scan = {
		.target = request->target,
		.maps = request->maps,
		.ranges = request->ranges,
		.before = CHARACTER_MAX,
		.after = STRINGS_LENGTH_MAX + CHARACTER_MAX,
		.interrupted = request->interrupted,
		.ops = &ops,
		.data = &strings,
	};
	struct error *error;

	if (getrandom(&strings.seed, sizeof(strings.seed), GRND_NONBLOCK) < 0)
		strings.seed = (uint64_t)(uintptr_t)&strings;
	string_table_init(&strings.whole, distinct, whole);
	string_table_init(&strings.numbered, distinct, false);
	string_table_init(&strings.prefixes, distinct, false);
	strings.numbered.masked = strings.prefixes.masked = true;
	error = memory_scan(&scan, &ret->scan);
	if (!error)
		error = collect(&strings);
	string_table_deinit(&strings.whole);
	string_table_deinit(&strings.numbered);
	string_table_deinit(&strings.prefixes);
	return error;
}

void strings_result_deinit(struct strings_result *result)
{
	vec_for_each (group, &result->groups)
		free(group->text);
	string_group_vec_deinit(&result->groups);
	scan_result_deinit(&result->scan);
}
