/* Foreign text: escaped for a terminal, made valid for JSON, measured and cut in columns. */
#include "memprobe/text.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* The length of the UTF-8 sequence at @text and its code point; 0 if it is none. */
static size_t utf8_decode(const unsigned char *text, uint32_t *point_ret)
{
	static const uint32_t least[] = { 0, 0, 0x80, 0x800, 0x10000 };
	size_t length = text[0] < 0x80	 ? 1
			: text[0] < 0xc2 ? 0
			: text[0] < 0xe0 ? 2
			: text[0] < 0xf0 ? 3
			: text[0] < 0xf5 ? 4
					 : 0;
	uint32_t point;

	if (length <= 1) {
		*point_ret = text[0];
		return length;
	}
	point = text[0] & (0x7f >> length);
	for (size_t i = 1; i < length; i++) {
		if ((text[i] & 0xc0) != 0x80)
			return 0;
		point = point << 6 | (text[i] & 0x3f);
	}
	if (point < least[length] || point > 0x10ffff || (point >= 0xd800 && point < 0xe000))
		return 0;
	*point_ret = point;
	return length;
}

struct interval {
	uint32_t first, last;
};

static bool in_intervals(uint32_t point, const struct interval *intervals, size_t count)
{
	for (size_t i = 0; i < count; i++)
		if (point >= intervals[i].first && point <= intervals[i].last)
			return true;
	return false;
}

/* What moves the cursor or turns the writing direction: C0, C1, and the bidirectional controls. */
static bool is_control(uint32_t point)
{
	static const struct interval controls[] = {
		{ 0x00, 0x1f },	    { 0x7f, 0x9f },	{ 0x200e, 0x200f },
		{ 0x2028, 0x202e }, { 0x2066, 0x2069 }, { 0xfeff, 0xfeff },
	};

	return in_intervals(point, controls, sizeof(controls) / sizeof(controls[0]));
}

/* Columns of a terminal, after Unicode's East Asian Width and general category Mn. */
static size_t point_width(uint32_t point)
{
	static const struct interval none[] = {
		{ 0x300, 0x36f },   { 0x483, 0x489 },	{ 0x591, 0x5bd },   { 0x610, 0x61a },
		{ 0x64b, 0x65f },   { 0x900, 0x902 },	{ 0x1ab0, 0x1aff }, { 0x1dc0, 0x1dff },
		{ 0x200b, 0x200d }, { 0x20d0, 0x20ff }, { 0xfe00, 0xfe0f }, { 0xfe20, 0xfe2f },
	};
	static const struct interval two[] = {
		{ 0x1100, 0x115f },   { 0x2e80, 0x303e },   { 0x3041, 0xa4cf },
		{ 0xac00, 0xd7a3 },   { 0xf900, 0xfaff },   { 0xfe30, 0xfe6f },
		{ 0xff00, 0xff60 },   { 0xffe0, 0xffe6 },   { 0x1f300, 0x1f64f },
		{ 0x1f900, 0x1f9ff }, { 0x20000, 0x3fffd },
	};

	if (point < 0x300)
		return 1;
	if (in_intervals(point, none, sizeof(none) / sizeof(none[0])))
		return 0;
	return in_intervals(point, two, sizeof(two) / sizeof(two[0])) ? 2 : 1;
}

static bool is_plain(const char *text, size_t *length_ret)
{
	size_t length = 0;

	for (; text[length]; length++)
		if (text[length] < 0x20 || text[length] > 0x7e)
			return false;
	*length_ret = length;
	return true;
}

/* The bytes of the first character and its columns; a broken one is a byte in one column. */
static size_t next_point(const char *text, size_t *width_ret)
{
	uint32_t point;
	size_t length = utf8_decode((const unsigned char *)text, &point);

	*width_ret = length ? point_width(point) : 1;
	return length ? length : 1;
}

size_t text_width(const char *text)
{
	size_t width, length, columns = 0;

	if (is_plain(text, &width))
		return width;
	for (; *text; text += length, columns += width)
		length = next_point(text, &width);
	return columns;
}

size_t text_fit(const char *text, size_t columns, size_t *width_ret)
{
	size_t used = 0, at = 0;

	while (text[at]) {
		size_t width, length = next_point(text + at, &width);

		if (used + width > columns)
			break;
		used += width;
		at += length;
	}
	*width_ret = used;
	return at;
}

char *text_printable(const char *text)
{
	static const char digits[] = "0123456789abcdef";
	size_t length;
	char *result, *out;
	uint32_t point;

	if (is_plain(text, &length))
		return strdup(text);
	result = out = malloc(4 * strlen(text) + 1);
	if (!result)
		return NULL;
	for (; *text; text += length) {
		length = utf8_decode((const unsigned char *)text, &point);
		if (length && !is_control(point)) {
			memcpy(out, text, length);
			out += length;
			continue;
		}
		length = length ? length : 1;
		for (size_t i = 0; i < length; i++) {
			unsigned char byte = text[i];

			*out++ = '\\';
			*out++ = 'x';
			*out++ = digits[byte >> 4];
			*out++ = digits[byte & 15];
		}
	}
	*out = '\0';
	return result;
}

char *text_utf8(const char *text)
{
	char *result = malloc(3 * strlen(text) + 1), *out = result;
	size_t length;
	uint32_t point;

	if (!result)
		return NULL;
	for (; *text; text += length) {
		length = utf8_decode((const unsigned char *)text, &point);
		if (length) {
			memcpy(out, text, length);
			out += length;
		} else {
			memcpy(out, "\xef\xbf\xbd", 3);
			out += 3;
			length = 1;
		}
	}
	*out = '\0';
	return result;
}
