/*
 * string_table.h - counts strings in bounded memory, and says how wrong the counts may be.
 *
 * Lossy counting (Manku and Motwani, VLDB 2002), except that room decides when to forget: when the
 * table is full, the rarer half goes. A string that comes, maybe again, after that may have been
 * there as often as the most frequent one that went: that is its `missed`.
 */
#ifndef STRING_TABLE_H
#define STRING_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "memprobe/error.h"

struct string_entry {
	uint64_t hash;	/* 0: the place is empty */
	uint64_t count; /* since it is here */
	uint64_t missed;
	uint64_t bytes;
	uint64_t best;	 /* for the user of a finished table; 0 */
	char *text;	 /* not terminated; NULL: seen once only, if the table is lazy */
	uint32_t size;	 /* of the text */
	uint32_t length; /* of the first string */
	bool varies;	 /* strings differ, in a number or behind the text */
	bool goes_on;	 /* some go on behind the text */
};

struct string_table {
	struct string_entry *entries;
	size_t capacity; /* a power of two */
	size_t used;
	size_t used_max; /* then the rarer half goes */
	uint64_t text_bytes, text_max;
	uint64_t forgotten; /* what is not here was there so often at most */
	/* Strings of one hash are alike but for their numbers: one that differs is a
	 * STRING_NUMBER in the text. */
	bool masked;
	bool lazy; /* no text before it repeats: for tables in which equal hashes are equal strings
		    */
};

#define STRING_NUMBER '\1' /* no printable character */

/* @lazy: see above. */
void string_table_init(struct string_table *table, size_t used_max, bool lazy);
void string_table_deinit(struct string_table *table);

static inline bool string_is_digit(uint8_t c)
{
	return (uint8_t)(c - '0') < 10;
}

/* Counts @text. Strings of one hash are one group, whose text is what they have in common. */
struct error *string_table_add(struct string_table *table, uint64_t hash, const void *text,
			       size_t size);

struct string_entry *string_table_find(const struct string_table *table, uint64_t hash);

static inline void string_table_prefetch(const struct string_table *table, uint64_t hash)
{
	if (table->entries)
		__builtin_prefetch(&table->entries[hash & (table->capacity - 1)]);
}

#endif
