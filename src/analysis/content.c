#include "memprobe/content.h"

#include <inttypes.h>
#include <string.h>

#include "memprobe/hash_index.h"
#include "memprobe/num.h"

#define STEP	   4u /* texts begin at multiples of it */
#define WORD_BYTES 16u
/* A shorter text may also be a pointer or a number. */
#define SURE_TEXT 12u

static bool is_digit(uint8_t c)
{
	return c >= '0' && c <= '9';
}

/* ---- texts ---- */

/* Bytes of the UTF-8 character at @bytes; 0: none that is printed. */
static size_t character(const uint8_t *bytes, size_t size)
{
	size_t length = bytes[0] < 0x80	  ? 1
			: bytes[0] < 0xc2 ? 0
			: bytes[0] < 0xe0 ? 2
			: bytes[0] < 0xf0 ? 3
			: bytes[0] < 0xf5 ? 4
					  : 0;

	if (length == 1)
		return (bytes[0] >= ' ' && bytes[0] < 0x7f) || bytes[0] == '\t';
	if (length > size)
		return 0;
	for (size_t i = 1; i < length; i++)
		if ((bytes[i] & 0xc0) != 0x80)
			return 0;
	return length;
}

/* *ended_ret: by what ends texts, or as far as is looked; not by a byte that is in none. */
static size_t text_length(const uint8_t *bytes, size_t size, bool *ended_ret, bool *cut_ret)
{
	size_t length = 0, next = 0;

	while (length < size) {
		next = character(bytes + length, size - length);
		if (!next || length + next > CONTENT_TEXT)
			break;
		length += next;
	}
	*cut_ret = length < size && next;
	*ended_ret = length == size || next || bytes[length] == '\0' || bytes[length] == '\n' ||
		     bytes[length] == '\r';
	return length;
}

/* Whether a word that is an address overlaps the text: any word of a short one, the first of
 * others, which may only seem to belong to it. */
static bool has_pointer(const struct heap *heap, const uint8_t *bytes, size_t size, size_t offset,
			size_t length)
{
	const unsigned word = heap->target->arch->word_size;
	size_t at = round_down(offset, word), end = length < SURE_TEXT ? offset + length : at + 1;

	for (; at < end && at + word <= size; at += word)
		if (mappings_find(heap->maps, load_word(bytes + at, word)))
			return true;
	return false;
}

static bool is_blank_or_text(uint8_t c)
{
	return c >= '\t' && c < 0x7f;
}

/* Where a text can begin: not amid another, nor with its next line. */
static bool may_begin(const struct heap *heap, const uint8_t *bytes, size_t size, size_t offset,
		      size_t skip)
{
	const unsigned word = heap->target->arch->word_size;

	if (bytes[offset] <= ' ' || bytes[offset] == 0x7f)
		return false;
	return offset == skip || !is_blank_or_text(bytes[offset - 1]) ||
	       (offset >= word && has_pointer(heap, bytes, size, offset - word, 1));
}

/* The first; a short one, which may be left from another block, yields to a much longer. */
static bool find_text(const struct heap *heap, const uint8_t *bytes, size_t size, size_t skip,
		      struct content *ret)
{
	for (size_t offset = skip; offset + STEP <= size; offset += STEP) {
		bool ended, cut;
		size_t length, enough;

		if (!may_begin(heap, bytes, size, offset, skip))
			continue;
		length = text_length(bytes + offset, size - offset, &ended, &cut);
		enough = offset == 0 ? (ended ? 4 : 8) : (ended ? 6 : SURE_TEXT);
		if (ret->length)
			enough = max_u64(SURE_TEXT, 2 * ret->length);
		if (length < enough || has_pointer(heap, bytes, size, offset, length))
			continue;
		ret->offset = offset;
		ret->length = length;
		ret->is_cut = cut;
		if (offset == 0 || length >= SURE_TEXT)
			break;
	}
	return ret->length > 0;
}

static void describe_text(const uint8_t *bytes, struct content *content)
{
	char pattern[CONTENT_TEXT];
	size_t size = 0;

	for (unsigned i = 0; i < content->length;) {
		unsigned start = i;

		if (!is_digit(bytes[i])) {
			pattern[size++] = bytes[i++];
			continue;
		}
		while (i < content->length && is_digit(bytes[i]))
			i++;
		pattern[size++] = '0';
		if (content->run_count < CONTENT_RUNS)
			content->runs[content->run_count] =
				hash_bytes(HASH_SEED, bytes + start, i - start);
		content->run_count++;
	}
	content->hash = hash_bytes(hash_word(HASH_SEED, content->offset), pattern, size);
}

/* ---- anything ---- */

/* Blocks are at other addresses every time. */
static uint64_t class_of_word(const struct heap *heap, uint64_t value)
{
	return heap_region_at(heap, value) ? 1 : value;
}

static void describe_words(const struct heap *heap, const uint8_t *bytes, struct content *content)
{
	const unsigned word = heap->target->arch->word_size;
	uint64_t hash = hash_word(HASH_SEED, CONTENT_WORDS);

	for (unsigned i = 0; i + word <= content->length; i += word)
		hash = hash_word(hash, class_of_word(heap, load_word(bytes + i, word)));
	content->hash = hash;
}

static bool all_zero(const uint8_t *bytes, size_t size)
{
	return size == 0 || (bytes[0] == 0 && !memcmp(bytes, bytes + 1, size - 1));
}

void content_describe(const struct heap *heap, const uint8_t *bytes, size_t size, size_t skip,
		      struct content *ret)
{
	*ret = (struct content){ .kind = CONTENT_LINE };
	skip = min_u64(skip, size);
	if (find_text(heap, bytes, size, skip, ret)) {
		describe_text(bytes + ret->offset, ret);
		return;
	}
	if (all_zero(bytes + skip, size - skip)) {
		ret->kind = CONTENT_ZEROS;
		ret->hash = CONTENT_ZEROS;
		return;
	}
	ret->kind = CONTENT_WORDS;
	ret->offset = skip;
	ret->length = min_u64(size - skip, WORD_BYTES);
	describe_words(heap, bytes + skip, ret);
}

/* ---- in words ---- */

static void name_text(const struct content *content, const uint8_t *text, unsigned varying,
		      char name[CONTENT_NAME])
{
	size_t at = 0;

	if (content->offset)
		at = snprintf(name, CONTENT_NAME, "+%u ", content->offset);
	name[at++] = '"';
	for (unsigned i = 0, run = 0; i < content->length; run++) {
		bool varies = run >= CONTENT_RUNS || varying >> run & 1;

		while (i < content->length && !is_digit(text[i]))
			name[at++] = text[i++];
		if (i < content->length && varies)
			name[at++] = '#';
		for (; i < content->length && is_digit(text[i]); i++)
			if (!varies)
				name[at++] = text[i];
	}
	snprintf(name + at, CONTENT_NAME - at, "\"%s", content->is_cut ? "..." : "");
}

void content_name(const struct heap *heap, const struct content *content, const uint8_t *bytes,
		  unsigned varying, char name[CONTENT_NAME])
{
	const unsigned word = heap->target->arch->word_size;
	size_t at = 0;

	if (content->kind == CONTENT_LINE) {
		name_text(content, bytes + content->offset, varying, name);
		return;
	}
	snprintf(name, CONTENT_NAME, content->kind == CONTENT_ZEROS ? "(zeros)" : "(binary)");
	for (unsigned i = 0; content->kind == CONTENT_WORDS && i + word <= content->length;
	     i += word) {
		uint64_t value = load_word(bytes + content->offset + i, word);

		if (class_of_word(heap, value) == 1 && value != 1)
			at += snprintf(name + at, CONTENT_NAME - at, "%s(to a block)",
				       i ? " " : "");
		else
			at += snprintf(name + at, CONTENT_NAME - at, "%s0x%" PRIx64, i ? " " : "",
				       value);
	}
}
