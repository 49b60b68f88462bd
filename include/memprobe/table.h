/*
 * table.h - aligned tables for people, as wide as the terminal at most.
 *
 *	struct table *table = table_create(style);
 *	table_column(table, "SIZE", TABLE_RIGHT);
 *	table_cell(table, "%s", text);		one call per column, row after row
 *	table_rule(table);			a line across, e.g. before totals
 *	table_print(table, out);
 *
 * Where a table is wider than the terminal, text is cut (it ends in `...` then) or wrapped, and at
 * last columns are left out, which a line below the table names. In a pipe nothing is.
 *
 * Out-of-memory is remembered and returned by table_print(). Cells of foreign text are made safe,
 * see text.h; widths count columns of the terminal, not bytes.
 */
#ifndef MEMPROBE_TABLE_H
#define MEMPROBE_TABLE_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "memprobe/error.h"
#include "memprobe/text.h"

/* How all tables of a run look; zeroed: as in a pipe. */
struct table_style {
	bool color;
	bool bytes;	/* sizes are plain numbers of bytes, without units */
	unsigned width; /* columns of the terminal; 0: no limit */
};

enum table_align { TABLE_LEFT, TABLE_RIGHT };

/* What may be done to a column that is too wide. */
enum table_fit {
	TABLE_KEEP, /* nothing; columns with TABLE_RIGHT are so by themselves */
	TABLE_CUT,  /* texts lose their ends; columns with TABLE_LEFT are so by themselves */
	TABLE_PATH, /* paths lose their folders, and then their ends */
	TABLE_WRAP, /* texts go on in the next line */
};

struct table;

struct table *table_create(struct table_style style);
void table_destroy(struct table *table);
CLEANUP_DEFINE(table, struct table *, table_destroy)

void table_column(struct table *table, const char *heading, enum table_align align);
/*
 * Of the column added last. Where there is no room, columns are left out by their @rank, the
 * highest first; 0: never.
 */
void table_column_fit(struct table *table, enum table_fit fit, unsigned rank);

void table_cell(struct table *table, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* The same without printf(): for tables of many thousand rows. */
void table_cell_text(struct table *table, const char *text);
/* A hexadecimal address, without 0x. */
void table_cell_hex(struct table *table, uint64_t address);
/* Bytes, in units as the style says; in every table `-` is what is unknown, and `0` is none. */
#define TABLE_UNKNOWN UINT64_MAX
void table_cell_size(struct table *table, uint64_t bytes);
/* A change of bytes, with its sign. */
void table_cell_delta(struct table *table, int64_t bytes);
void table_rule(struct table *table);

/* Columns of a terminal that a full row takes, as far as rows are known. */
size_t table_width(const struct table *table);
struct error *table_print(struct table *table, FILE *out);

/* Bytes in a sentence, as the style says: `4.8M`, or `5033164 bytes`. Returns @buffer. */
#define TABLE_SIZE_MAX 32
const char *table_size(struct table_style style, uint64_t bytes, char buffer[TABLE_SIZE_MAX]);

#endif
