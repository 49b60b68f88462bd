#include "memprobe/table.h"

#include <inttypes.h>
#include <stdarg.h>
#include <string.h>

#include "memprobe/num.h"
#include "memprobe/vec.h"

#define COLUMNS_MAX 24
#define GAP	    2 /* between two columns */
#define CUT_MARK    "..."
/* What is left of a text that is cut, before columns are left out; and at the least. */
#define CUT_FIRST 16u
#define CUT_LEAST 4u

/* A cell's text lies in table->text, ending in NUL; a rule is a row whose first cell has this. */
#define RULE SIZE_MAX

struct cell {
	size_t offset;
	uint32_t width;
	uint32_t length;
};

VEC_DEFINE(cell_vec, struct cell)
VEC_DEFINE(text_vec, char)

struct column {
	char *heading;
	enum table_align align;
	enum table_fit fit;
	unsigned rank;
	size_t width; /* that its cells have */
	size_t shown; /* that it gets */
	bool left_out;
};

struct table {
	struct table_style style;
	struct column columns[COLUMNS_MAX];
	size_t column_count;
	struct cell_vec cells; /* row after row; a rule takes one cell */
	struct text_vec text;
	size_t row_fill; /* cells in the row begun */
	bool failed;
};

struct table *table_create(struct table_style style)
{
	struct table *table = calloc(1, sizeof(*table));

	if (table)
		table->style = style;
	return table;
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
	column->fit = align == TABLE_LEFT ? TABLE_CUT : TABLE_KEEP;
	column->width = text_width(heading);
	table->failed |= !column->heading;
}

void table_column_fit(struct table *table, enum table_fit fit, unsigned rank)
{
	if (!table || !table->column_count)
		return;
	table->columns[table->column_count - 1].fit = fit;
	table->columns[table->column_count - 1].rank = rank;
}

/* ---- cells ---- */

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
	struct cell cell = { table->text.size, width, length };
	struct column *column = &table->columns[table->row_fill];

	if (length >= UINT32_MAX || !reserve_text(table, length + 1) ||
	    cell_vec_append(&table->cells, &cell)) {
		table->failed = true;
		return;
	}
	memcpy(table->text.data + cell.offset, text, length);
	table->text.data[cell.offset + length] = '\0';
	table->text.size += length + 1;
	if (width > column->width)
		column->width = width;
	table->row_fill = (table->row_fill + 1) % table->column_count;
}

static bool takes_cells(const struct table *table)
{
	return table && !table->failed && table->column_count;
}

void table_cell_text(struct table *table, const char *text)
{
	cleanup(free) char *safe = NULL;

	if (!takes_cells(table))
		return;
	safe = text_printable(text);
	if (safe)
		add_cell(table, safe, strlen(safe), text_width(safe));
	else
		table->failed = true;
}

void table_cell(struct table *table, const char *format, ...)
{
	cleanup(free) char *longer = NULL;
	char text[256];
	va_list args;
	int length;

	if (!takes_cells(table))
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
		table_cell_text(table, longer ? longer : text);
}

/* Of text that is all ASCII. */
static void add_plain(struct table *table, const char *text)
{
	size_t length = strlen(text);

	add_cell(table, text, length, length);
}

void table_cell_hex(struct table *table, uint64_t address)
{
	char text[17];
	size_t at = sizeof(text) - 1;

	if (!takes_cells(table))
		return;
	text[at] = '\0';
	do {
		text[--at] = "0123456789abcdef"[address & 15];
		address >>= 4;
	} while (address);
	add_plain(table, text + at);
}

void table_cell_size(struct table *table, uint64_t bytes)
{
	char text[TABLE_SIZE_MAX] = "-";

	if (!takes_cells(table))
		return;
	if (bytes != TABLE_UNKNOWN && table->style.bytes)
		snprintf(text, sizeof(text), "%" PRIu64, bytes);
	else if (bytes != TABLE_UNKNOWN)
		format_size(bytes, text);
	add_plain(table, text);
}

void table_cell_delta(struct table *table, int64_t bytes)
{
	char text[TABLE_SIZE_MAX] = "0", size[SIZE_TEXT_MAX];
	uint64_t amount = bytes < 0 ? -(uint64_t)bytes : (uint64_t)bytes;

	if (!takes_cells(table))
		return;
	if (bytes && table->style.bytes)
		snprintf(text, sizeof(text), "%+" PRId64, bytes);
	else if (bytes)
		snprintf(text, sizeof(text), "%c%s", bytes < 0 ? '-' : '+',
			 format_size(amount, size));
	add_plain(table, text);
}

const char *table_size(struct table_style style, uint64_t bytes, char buffer[TABLE_SIZE_MAX])
{
	if (style.bytes)
		snprintf(buffer, TABLE_SIZE_MAX, "%" PRIu64 " byte%s", bytes,
			 bytes == 1 ? "" : "s");
	else
		format_size(bytes, buffer);
	return buffer;
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

/* ---- fitting the terminal ---- */

size_t table_width(const struct table *table)
{
	size_t width = 0;

	for (size_t i = 0; table && i < table->column_count; i++)
		width += table->columns[i].width + (i ? GAP : 0);
	return width;
}

static size_t shown_width(const struct table *table)
{
	size_t width = 0;

	for (size_t i = 0; i < table->column_count; i++)
		if (!table->columns[i].left_out)
			width += table->columns[i].shown + (width ? GAP : 0);
	return width;
}

/* No column of text gets more than @most, if it can do with as much as @least. */
static void level(struct table *table, size_t most, size_t least)
{
	for (size_t i = 0; i < table->column_count; i++) {
		struct column *column = &table->columns[i];
		size_t heading = text_width(column->heading);
		size_t limit = max_u64(most, max_u64(heading, least));

		column->shown =
			column->fit == TABLE_KEEP ? column->width : min_u64(column->width, limit);
	}
}

/* The widest texts are cut first. False: it takes more than that. */
static bool cut_to(struct table *table, size_t width, size_t least)
{
	size_t low = 0, high = width;

	level(table, high, least);
	if (shown_width(table) <= width)
		return true;
	level(table, low, least);
	if (shown_width(table) > width)
		return false;
	while (high - low > 1) {
		size_t middle = low + (high - low) / 2;

		level(table, middle, least);
		if (shown_width(table) <= width)
			low = middle;
		else
			high = middle;
	}
	level(table, low, least);
	return true;
}

static bool leave_one_out(struct table *table)
{
	struct column *last = NULL;

	for (size_t i = 0; i < table->column_count; i++) {
		struct column *column = &table->columns[i];

		if (!column->left_out && column->rank && (!last || column->rank >= last->rank))
			last = column;
	}
	if (last)
		last->left_out = true;
	return last != NULL;
}

/* What is left over goes to the texts, from the first on. */
static void widen(struct table *table, size_t width)
{
	size_t used = shown_width(table);

	for (size_t i = 0; i < table->column_count && used < width; i++) {
		struct column *column = &table->columns[i];
		size_t more = min_u64(column->width - column->shown, width - used);

		if (column->left_out)
			continue;
		column->shown += more;
		used += more;
	}
}

static void fit(struct table *table)
{
	size_t width = table->style.width;

	for (size_t i = 0; i < table->column_count; i++)
		table->columns[i].shown = table->columns[i].width;
	if (!width || shown_width(table) <= width)
		return;
	while (!cut_to(table, width, CUT_FIRST))
		if (!leave_one_out(table))
			break;
	if (shown_width(table) > width)
		cut_to(table, width, CUT_LEAST);
	widen(table, width);
}

/* ---- printing ---- */

static void put_padding(FILE *out, int character, size_t count)
{
	while (count--)
		putc_unlocked(character, out);
}

/* A part of a cell that stands in one line. */
struct piece {
	const char *text, *mark; /* @mark follows it */
	size_t length, width;
};

/* Blanks are written late, so that no line ends with one. */
static void put_piece(FILE *out, const struct column *column, const struct piece *piece,
		      size_t *blanks)
{
	size_t fill = column->shown > piece->width ? column->shown - piece->width : 0;

	if (column->align == TABLE_RIGHT)
		*blanks += fill;
	if (piece->length || *piece->mark) {
		put_padding(out, ' ', *blanks);
		fwrite_unlocked(piece->text, 1, piece->length, out);
		fputs(piece->mark, out);
		*blanks = 0;
	}
	*blanks += GAP + (column->align == TABLE_LEFT ? fill : 0);
}

/* `/usr/lib/libx.so (deleted)` without its folders. */
static const char *without_folders(const char *path)
{
	const char *base = path;

	for (; *path && *path != ' '; path++)
		if (*path == '/' && path[1] && path[1] != ' ')
			base = path + 1;
	return base;
}

static struct piece cut(const struct column *column, const char *text)
{
	struct piece piece = { text, "", strlen(text), text_width(text) };
	size_t mark = strlen(CUT_MARK);

	if (piece.width > column->shown && column->fit == TABLE_PATH) {
		piece.text = without_folders(text);
		piece.length = strlen(piece.text);
		piece.width = text_width(piece.text);
	}
	if (piece.width <= column->shown || column->fit == TABLE_KEEP)
		return piece;
	piece.length =
		text_fit(piece.text, column->shown > mark ? column->shown - mark : 0, &piece.width);
	piece.mark = CUT_MARK;
	piece.width += mark;
	return piece;
}

/* As many words as fit. @text goes on behind them. */
static struct piece wrap(const struct column *column, const char **text)
{
	struct piece piece = { .text = *text, .mark = "" };
	size_t columns = column->shown, words;

	piece.length = words = text_fit(piece.text, columns, &piece.width);
	if (piece.text[words])
		while (words && piece.text[words] != ' ')
			words--;
	while (words && piece.length > words)
		piece.length = text_fit(piece.text, --columns, &piece.width);
	if (!piece.length && *piece.text)
		piece.length = 1;
	*text += piece.length;
	*text += strspn(*text, " ");
	return piece;
}

/* Takes one line of each cell; what is left of those that wrap is in @rest. */
static bool put_line(const struct table *table, FILE *out, const char *rest[COLUMNS_MAX])
{
	size_t blanks = 0;
	bool more = false;

	for (size_t i = 0; i < table->column_count; i++) {
		const struct column *column = &table->columns[i];
		struct piece piece;

		if (column->left_out)
			continue;
		if (column->fit == TABLE_WRAP && column->shown < column->width) {
			piece = wrap(column, &rest[i]);
		} else {
			piece = cut(column, rest[i]);
			rest[i] = "";
		}
		put_piece(out, column, &piece, &blanks);
		more |= *rest[i] != '\0';
	}
	return more;
}

static void put_headings(const struct table *table, FILE *out)
{
	const char *headings[COLUMNS_MAX];

	for (size_t i = 0; i < table->column_count; i++)
		headings[i] = table->columns[i].heading;
	fputs(table->style.color ? "\033[1m" : "", out);
	put_line(table, out, headings);
	fputs(table->style.color ? "\033[0m\n" : "\n", out);
}

static void put_rule(const struct table *table, FILE *out)
{
	fputs(table->style.color ? "\033[2m" : "", out);
	put_padding(out, '-', shown_width(table));
	fputs(table->style.color ? "\033[0m\n" : "\n", out);
}

static void put_left_out(const struct table *table, FILE *out)
{
	cleanup(free) char *text = NULL;
	size_t size, width = table->style.width, count = 0;
	FILE *memory = open_memstream(&text, &size);

	if (!memory)
		return;
	fputs("no room for ", memory);
	for (size_t i = 0; i < table->column_count; i++)
		if (table->columns[i].left_out)
			fprintf(memory, "%s%s", count++ ? ", " : "", table->columns[i].heading);
	if (fclose(memory) || !count)
		return;
	if (text_width(text) <= width)
		fprintf(out, "%s\n", text);
	else
		fprintf(out, "no room for %zu columns\n", count);
}

struct error *table_print(struct table *table, FILE *out)
{
	const char *row[COLUMNS_MAX];
	size_t column = 0;

	if (!table || table->failed)
		return &error_no_memory;
	fit(table);
	put_headings(table, out);
	vec_for_each (cell, &table->cells) {
		bool more = true;

		if (cell->offset == RULE) {
			put_rule(table, out);
			continue;
		}
		row[column++] = table->text.data + cell->offset;
		if (column < table->column_count)
			continue;
		while (more) {
			more = put_line(table, out, row);
			putc_unlocked('\n', out);
		}
		column = 0;
	}
	put_left_out(table, out);
	return NULL;
}
