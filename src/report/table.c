#include "memprobe/table.h"

#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include "memprobe/num.h"
#include "memprobe/vec.h"

#define COLUMNS_MAX 24

/* ---- foreign text ---- */

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

static size_t text_width(const char *text)
{
	size_t width, length;
	uint32_t point;

	if (is_plain(text, &width))
		return width;
	for (width = 0; *text; text += length) {
		length = utf8_decode((const unsigned char *)text, &point);
		if (!length)
			length = 1, point = ' ';
		width += point_width(point);
	}
	return width;
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

/* ---- tables ---- */

/* A cell's text lies in table->text; a rule is a row whose first cell has this offset. */
#define RULE SIZE_MAX

struct cell {
	size_t offset;
	uint32_t length, width;
};

VEC_DEFINE(cell_vec, struct cell)
VEC_DEFINE(text_vec, char)

struct column {
	char *heading;
	enum table_align align;
	size_t width;
};

struct table {
	struct column columns[COLUMNS_MAX];
	size_t column_count;
	struct cell_vec cells; /* row after row; a rule takes one cell */
	struct text_vec text;
	size_t row_fill; /* cells in the row begun */
	bool failed;
};

struct table *table_create(void)
{
	return calloc(1, sizeof(struct table));
}

void table_destroy(struct table *table)
{
	if (!table)
		return;
	for (size_t i = 0; i < table->column_count; i++)
		free(table->columns[i].heading);
	cell_vec_deinit(&table->cells);
	text_vec_deinit(&table->text);
	free(table);
}

void table_column(struct table *table, const char *heading, enum table_align align)
{
	struct column *column;

	if (!table)
		return;
	if (table->column_count == COLUMNS_MAX) {
		table->failed = true;
		return;
	}
	column = &table->columns[table->column_count++];
	column->heading = strdup(heading);
	column->align = align;
	column->width = text_width(heading);
	table->failed |= !column->heading;
}

/* Room for @length more bytes of cell text. */
static bool reserve_text(struct table *table, size_t length)
{
	size_t needed = table->text.size + length, capacity = table->text.capacity;

	if (needed <= capacity)
		return true;
	return !text_vec_reserve(&table->text,
				 needed > 2 * capacity ? needed + 4096 : 2 * capacity);
}

static void add_cell(struct table *table, const char *text, size_t length, size_t width)
{
	struct cell cell = { table->text.size, length, width };
	struct column *column = &table->columns[table->row_fill];

	if (length > UINT32_MAX || !reserve_text(table, length) ||
	    cell_vec_append(&table->cells, &cell)) {
		table->failed = true;
		return;
	}
	memcpy(table->text.data + cell.offset, text, length);
	table->text.size += length;
	if (width > column->width)
		column->width = width;
	table->row_fill = (table->row_fill + 1) % table->column_count;
}

static void add_text(struct table *table, const char *text)
{
	size_t length;

	if (is_plain(text, &length)) {
		add_cell(table, text, length, length);
	} else {
		cleanup(free) char *safe = text_printable(text);

		if (safe)
			add_cell(table, safe, strlen(safe), text_width(safe));
		else
			table->failed = true;
	}
}

void table_cell(struct table *table, const char *format, ...)
{
	cleanup(free) char *longer = NULL;
	char text[256];
	va_list args;
	int length;

	if (!table || table->failed || !table->column_count)
		return;
	va_start(args, format);
	length = vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	if (length >= (int)sizeof(text)) {
		va_start(args, format);
		length = vasprintf(&longer, format, args);
		va_end(args);
		if (length < 0)
			longer = NULL;
	}
	if (length < 0)
		table->failed = true;
	else
		add_text(table, longer ? longer : text);
}

void table_cell_text(struct table *table, const char *text)
{
	if (table && !table->failed && table->column_count)
		add_text(table, text);
}

void table_cell_hex(struct table *table, uint64_t address)
{
	char text[16];
	size_t length = 0;

	if (!table || table->failed || !table->column_count)
		return;
	do {
		text[sizeof(text) - ++length] = "0123456789abcdef"[address & 15];
		address >>= 4;
	} while (address);
	add_cell(table, text + sizeof(text) - length, length, length);
}

void table_cell_size(struct table *table, uint64_t bytes)
{
	char text[SIZE_TEXT_MAX] = "-";
	size_t length;

	if (!table || table->failed || !table->column_count)
		return;
	if (bytes != TABLE_UNKNOWN)
		format_size(bytes, text);
	length = strlen(text);
	add_cell(table, text, length, length);
}

void table_rule(struct table *table)
{
	struct cell rule = { RULE, 0, 0 };

	if (!table)
		return;
	table->failed |= table->row_fill != 0;
	if (!table->failed && cell_vec_append(&table->cells, &rule))
		table->failed = true;
}

static void put_padding(FILE *out, int character, size_t count)
{
	while (count--)
		putc_unlocked(character, out);
}

/* Blanks are written late, so that no line ends with one. */
static void put_cell(FILE *out, const struct column *column, const char *text, size_t length,
		     size_t width, size_t *blanks)
{
	size_t fill = column->width - width;

	if (column->align == TABLE_RIGHT)
		*blanks += fill;
	if (length) {
		put_padding(out, ' ', *blanks);
		fwrite_unlocked(text, 1, length, out);
		*blanks = 0;
	} else {
		*blanks += width;
	}
	*blanks += 2 + (column->align == TABLE_LEFT ? fill : 0);
}

static void put_headings(const struct table *table, FILE *out, bool color)
{
	size_t blanks = 0;

	fputs(color ? "\033[1m" : "", out);
	for (size_t i = 0; i < table->column_count; i++) {
		const struct column *column = &table->columns[i];

		put_cell(out, column, column->heading, strlen(column->heading),
			 text_width(column->heading), &blanks);
	}
	fputs(color ? "\033[0m\n" : "\n", out);
}

size_t table_width(const struct table *table)
{
	size_t width = 0;

	for (size_t i = 0; table && i < table->column_count; i++)
		width += table->columns[i].width + (i ? 2 : 0);
	return width;
}

static void put_rule(const struct table *table, FILE *out, bool color)
{
	fputs(color ? "\033[2m" : "", out);
	put_padding(out, '-', table_width(table));
	fputs(color ? "\033[0m\n" : "\n", out);
}

struct error *table_print(struct table *table, FILE *out, bool color)
{
	size_t column = 0, blanks = 0;

	if (!table || table->failed)
		return &error_no_memory;
	put_headings(table, out, color);
	vec_for_each (cell, &table->cells) {
		if (cell->offset == RULE) {
			put_rule(table, out, color);
			continue;
		}
		put_cell(out, &table->columns[column], table->text.data + cell->offset,
			 cell->length, cell->width, &blanks);
		if (++column == table->column_count) {
			putc_unlocked('\n', out);
			column = blanks = 0;
		}
	}
	return NULL;
}
