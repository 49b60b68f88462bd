/*
 * records.h - one description of a result: its columns make the table, the JSON and the sums.
 *
 *	static const struct record_column columns[] = {
 *		RECORD(row, size, "size", "SIZE", RECORD_SIZE),
 *		RECORD(row, path, "path", "NAME", RECORD_TEXT, .fit = TABLE_PATH),
 *		{ 0 },
 *	};
 *
 * To add a figure to a result: a line in the columns of its command. The order is that of the
 * columns, in the table and in the JSON alike; keys of the JSON are a contract: add, never rename.
 */
#ifndef MEMPROBE_RECORDS_H
#define MEMPROBE_RECORDS_H

#include <stddef.h>

#include "memprobe/json_value.h"
#include "memprobe/table.h"

/* The field at a column's offset. Unknown is `-` in a table and null in JSON. */
enum record_kind {
	RECORD_TEXT = 1, /* const char *; NULL: unknown */
	RECORD_NUMBER,	 /* uint64_t; UINT64_MAX: unknown */
	RECORD_SIZE,	 /* the same, of bytes */
	RECORD_DELTA,	 /* int64_t: a change of bytes; INT64_MIN: unknown */
	RECORD_INT,	 /* int, int32_t */
	RECORD_ID,	 /* the same, or pid_t; 0: unknown */
	RECORD_ADDRESS,	 /* uint64_t; UINT64_MAX: unknown */
	RECORD_HEX,	 /* the same, without 0x in a table */
	RECORD_BOOL,	 /* bool */
	RECORD_OTHER,	 /* what cell() and json() make of the row */
};

struct record_column {
	const char *key;     /* in JSON; NULL: none */
	const char *heading; /* in a table; NULL: none */
	enum record_kind kind;
	size_t offset;
	bool optional;	    /* JSON has no such key where the value is unknown */
	unsigned part;	    /* bits: without one of them, the column is in neither table nor JSON */
	bool right;	    /* align a RECORD_OTHER to the right */
	enum table_fit fit; /* of texts, as in table.h; TABLE_KEEP stands for TABLE_CUT */
	unsigned rank;	    /* as in table.h */
	/* In place of what the kind makes of the field; NULL: that. NULL JSON: there is none. */
	void (*cell)(struct table *table, const void *row);
	json_t *(*json)(const void *row);
};

/* The usual column, of a field of struct @row; the rest are further members. */
#define RECORD(row, field, key_, heading_, kind_, ...)             \
	{                                                          \
		.key = key_, .heading = heading_, .kind = kind_,   \
		.offset = offsetof(struct row, field), __VA_ARGS__ \
	}

/* Adds those with a heading; @without: bits of `part` that are not wanted. */
void records_columns(struct table *table, const struct record_column *columns, unsigned without);
void records_row(struct table *table, const struct record_column *columns, unsigned without,
		 const void *row);
/* A rule, and under it "total" and what can be summed up: counts, sizes, and what cell() makes of
 * columns to the right. */
void records_total(struct table *table, const struct record_column *columns, unsigned without,
		   const void *row);

/* Sets the keys of a row in @object; false: out of memory. */
bool records_set(json_t *object, const struct record_column *columns, unsigned without,
		 const void *row);
/* An object of them; NULL: out of memory. */
json_t *records_json(const struct record_column *columns, const void *row);

/* What is shown as rows: the columns, and where a row is found. */
struct records {
	const struct record_column *columns;
	unsigned without;
	size_t count;
	const void *rows; /* @size bytes each */
	size_t size;
	/* In place of @rows: row @i, which may be made in the caller's storage. */
	const void *(*row)(void *data, size_t i);
	void *data;
};

/* NULL: out of memory. */
json_t *records_array(const struct records *records);
/* All rows with their headings, to be printed; totals may follow. NULL: out of memory. */
struct table *records_table(const struct records *records, struct table_style style);

#endif
