/*
 * table.h - aligned tables for people.
 *
 *	struct table *table = table_create();
 *	table_column(table, "SIZE", TABLE_RIGHT);
 *	table_cell(table, "%s", text);		one call per column, row after row
 *	table_rule(table);			a line across, e.g. before totals
 *	table_print(table, out, color);
 *
 * Out-of-memory is remembered and returned by table_print(). Cells of foreign text are made safe:
 * control characters show as `\x1b`, broken UTF-8 as `\xff`; widths count columns, not bytes.
 */
#ifndef MEMPROBE_TABLE_H
#define MEMPROBE_TABLE_H

#include <stdbool.h>
#include <stdio.h>

#include "memprobe/error.h"

enum table_align { TABLE_LEFT, TABLE_RIGHT };

struct table;

struct table *table_create(void);
void table_destroy(struct table *table);
CLEANUP_DEFINE(table, struct table *, table_destroy)

void table_column(struct table *table, const char *heading, enum table_align align);
void table_cell(struct table *table, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* The same without printf(): for tables of many thousand rows. */
void table_cell_text(struct table *table, const char *text);
/* A hexadecimal address, without 0x. */
void table_cell_hex(struct table *table, uint64_t address);
/* A number of bytes in human units; in every table `-` is what is unknown, and `0` is none. */
#define TABLE_UNKNOWN UINT64_MAX
void table_cell_size(struct table *table, uint64_t bytes);
void table_rule(struct table *table);
/* Columns of a terminal that a full row takes, as far as rows are known. */
size_t table_width(const struct table *table);
struct error *table_print(struct table *table, FILE *out, bool color);

/* The escaping alone, for text outside tables. The caller frees it; NULL: out of memory. */
char *text_printable(const char *text);

/* Valid UTF-8 out of any bytes, for JSON: what is none becomes U+FFFD. The caller frees it. */
char *text_utf8(const char *text);

#endif
