/*
 * census.h - what fills a heap: its blocks in use, counted by size, type or content.
 *
 * Every block counts in one group, so that groups and rest add up to the totals. Memory is read
 * once, or twice where there are too many different contents to count them all at once; what is
 * kept stays below 5 % of the heap's size.
 */
#ifndef MEMPROBE_CENSUS_H
#define MEMPROBE_CENSUS_H

#include "memprobe/heap.h"
#include "memprobe/object_type.h"

enum census_by {
	CENSUS_BY_SIZE, /* that the program may use */
	CENSUS_BY_TYPE, /* of the C++ object that it begins with; those without by size */
	/* How it begins, and its type: the first line of the first text in it, up to 48 bytes, in
	 * which numbers may differ; else the first two or four words, pointers to blocks being all
	 * the same. */
	CENSUS_BY_CONTENT,
};

struct census_group {
	char *key;			/* owned; what the blocks have in common, for people */
	const struct object_type *type; /* NULL: unknown, or different ones */
	uint64_t size;			/* of each block; 0: they differ */
	uint64_t count, bytes;
	uint64_t example; /* address of a block; 0: of none */
};

VEC_DEFINE(census_group_vec, struct census_group)

struct census {
	/* The most bytes first, but by type those that have one before those that have none; at
	 * most options->top, of each. */
	struct census_group_vec groups;
	uint64_t group_count;  /* with those that are not among them */
	uint64_t count, bytes; /* all blocks in use, bytes that the program may use */
	/* By content: blocks that no other resembles; no group of their own. */
	uint64_t single_count, single_bytes;
	/* Not zero: there were too many contents. Groups are exact, but such as have no more blocks
	 * than this may be missing: these blocks count as single. */
	uint64_t missed_max;
	uint64_t unread_count, unread_bytes; /* blocks that could not be read: in no group */
	struct object_types *types;	     /* NULL: by size */
};

struct census_options {
	enum census_by by;
	uint64_t top;	       /* groups that are wanted, by type with and without; 0: all */
	uint64_t contents_max; /* how many are counted at once; 0: by the heap's size */
};

/* *ret has to be zeroed; deinit it also after an error. Errors are those of reading. */
struct error *census_take(const struct heap *heap, const struct census_options *options,
			  struct census *ret);
void census_deinit(struct census *census);

#endif
