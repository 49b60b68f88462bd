#include "search_pattern.h"

#include <ctype.h>
#include <string.h>

#include "memprobe/num.h"

/* ---- bytes ---- */

/* How often a byte is met in memory, roughly: pointers, small numbers, text. */
static unsigned frequency(uint8_t byte, uint8_t mask)
{
	if (mask != 0xff)
		return 2000 - 100 * (unsigned)__builtin_popcount(mask);
	if (!byte)
		return 1000;
	if (byte == 0xff || byte == 0x7f || byte == 0x55 || byte == 0x56 || byte < 4)
		return 400;
	if (byte == ' ' || (byte < 0x80 && strchr("etaoinsr", byte)))
		return 300;
	if (islower(byte))
		return 200;
	if (isdigit(byte) || strchr("./_-=", byte))
		return 150;
	return byte < 0x80 ? 80 : 50;
}

static void choose_bytes(struct search_fixed *fixed)
{
	unsigned best = UINT32_MAX, next = UINT32_MAX;

	for (size_t i = 0; i < fixed->size; i++) {
		unsigned score = frequency(fixed->value[i], fixed->mask[i]);

		if (score < best) {
			next = best;
			fixed->second = fixed->first;
			best = score;
			fixed->first = i;
		} else if (score < next) {
			next = score;
			fixed->second = i;
		}
	}
	if (fixed->size == 1)
		fixed->second = fixed->first;
}

/* Takes what @value and @mask point to, also on error. */
static struct error *create_fixed(uint8_t *value, uint8_t *mask, size_t size,
				  struct search_pattern **ret)
{
	cleanup(search_pattern) struct search_pattern *pattern = calloc(1, sizeof(*pattern));
	bool is_exact = true, is_any = true;

	if (!pattern) {
		free(value);
		free(mask);
		return &error_no_memory;
	}
	pattern->fixed.value = value;
	pattern->fixed.mask = mask;
	if (!size)
		return error_create(ERROR_USAGE, "the pattern is empty");
	if (size > SEARCH_MATCH_MAX)
		return error_create(ERROR_USAGE, "a pattern has at most %u bytes",
				    SEARCH_MATCH_MAX);
	for (size_t i = 0; i < size; i++) {
		is_exact = is_exact && mask[i] == 0xff;
		is_any = is_any && !mask[i];
	}
	if (is_any)
		return error_create(ERROR_USAGE, "a pattern of wildcards only matches everything");
	pattern->fixed.size = size;
	pattern->fixed.is_exact = is_exact;
	pattern->before = pattern->after = size - 1;
	choose_bytes(&pattern->fixed);
	*ret = take_pointer(pattern);
	return NULL;
}

static struct error *create_exact(uint8_t *value, size_t size, struct search_pattern **ret)
{
	uint8_t *mask = malloc(size + 1);

	if (!mask) {
		free(value);
		return &error_no_memory;
	}
	memset(mask, 0xff, size);
	return create_fixed(value, mask, size, ret);
}

/* The character at *text, which moves on; -1: no valid UTF-8. */
static int32_t next_character(const uint8_t **text)
{
	static const uint32_t lowest[] = { 0, 0, 0x80, 0x800, 0x10000 };
	const uint8_t *at = *text;
	unsigned size = *at < 0x80 ? 1 : *at < 0xc0 ? 0 : *at < 0xe0 ? 2 : *at < 0xf0 ? 3 : 4;
	uint32_t code = size == 1 ? *at : *at & (0x7f >> size);

	if (!size || *at >= 0xf8)
		return -1;
	for (unsigned i = 1; i < size; i++) {
		if ((at[i] & 0xc0) != 0x80)
			return -1;
		code = code << 6 | (at[i] & 0x3f);
	}
	if (code < lowest[size] || code > 0x10ffff || (code >= 0xd800 && code < 0xe000))
		return -1;
	*text = at + size;
	return (int32_t)code;
}

static struct error *create_utf16(const char *text, struct search_pattern **ret)
{
	const uint8_t *at = (const uint8_t *)text;
	uint8_t *value = malloc(2 * strlen(text) + 1);
	size_t size = 0;

	if (!value)
		return &error_no_memory;
	while (*at) {
		int32_t code = next_character(&at);
		uint16_t units[2] = { (uint16_t)code, 0 };

		if (code < 0) {
			free(value);
			return error_create(ERROR_USAGE, "'%s' is no valid UTF-8", text);
		}
		if (code >= 0x10000) {
			units[0] = (uint16_t)(0xd800 + ((code - 0x10000) >> 10));
			units[1] = (uint16_t)(0xdc00 + ((code - 0x10000) & 0x3ff));
		}
		for (unsigned i = 0; i < (code >= 0x10000 ? 2 : 1); i++) {
			value[size++] = (uint8_t)units[i];
			value[size++] = (uint8_t)(units[i] >> 8);
		}
	}
	return create_exact(value, size, ret);
}

struct error *search_text(const char *text, bool utf16, struct search_pattern **ret)
{
	uint8_t *value;

	if (utf16)
		return create_utf16(text, ret);
	value = (uint8_t *)strdup(text);
	return value ? create_exact(value, strlen(text), ret) : &error_no_memory;
}

static int digit_value(char digit)
{
	if (isdigit((unsigned char)digit))
		return digit - '0';
	return isxdigit((unsigned char)digit) ? tolower(digit) - 'a' + 10 : -1;
}

/* Room for half as many bytes as @text is long. */
static bool parse_hex(const char *text, uint8_t *value, uint8_t *mask, size_t *size_ret)
{
	size_t size = 0;

	while (*(text += strspn(text, " \t\n"))) {
		for (int shift = 4; shift >= 0; shift -= 4, text++) {
			int digit = digit_value(*text);

			if (digit < 0 && *text != '?')
				return false;
			value[size] |= digit < 0 ? 0 : (uint8_t)(digit << shift);
			mask[size] |= digit < 0 ? 0 : (uint8_t)(0xf << shift);
		}
		size++;
	}
	*size_ret = size;
	return true;
}

struct error *search_hex(const char *text, struct search_pattern **ret)
{
	size_t room = strlen(text) / 2 + 1, size;
	cleanup(free) uint8_t *value = calloc(room, 1);
	cleanup(free) uint8_t *mask = calloc(room, 1);

	if (!value || !mask)
		return &error_no_memory;
	if (!parse_hex(text, value, mask, &size))
		return error_hint(
			error_create(ERROR_USAGE, "'%s' is no pattern of bytes", text),
			"write pairs of hexadecimal digits, ? for any digit: 'de ad ?? b?'");
	return create_fixed(take_pointer(value), take_pointer(mask), size, ret);
}

/* ---- pointers ---- */

struct error *search_pointers(const struct range_vec *ranges, unsigned word_size,
			      struct search_pattern **ret)
{
	cleanup(search_pattern) struct search_pattern *pattern = calloc(1, sizeof(*pattern));
	struct error *error = NULL;

	if (!pattern)
		return &error_no_memory;
	pattern->kind = SEARCH_POINTERS;
	pattern->words.size = word_size;
	vec_for_each (range, ranges)
		if (!error)
			error = range_vec_append(&pattern->words.ranges, range);
	ranges_normalise(&pattern->words.ranges);
	if (!error && !pattern->words.ranges.size)
		error = error_create(ERROR_USAGE, "nothing to point to");
	if (error)
		return error;
	pattern->words.lowest = pattern->words.ranges.data[0].start;
	pattern->words.highest = pattern->words.ranges.data[pattern->words.ranges.size - 1].end;
	*ret = take_pointer(pattern);
	return NULL;
}

void search_pattern_destroy(struct search_pattern *pattern)
{
	if (!pattern)
		return;
	free(pattern->fixed.value);
	free(pattern->fixed.mask);
	search_code_destroy(pattern->code);
	range_vec_deinit(&pattern->words.ranges);
	free(pattern);
}
