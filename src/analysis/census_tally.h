/*
 * census_tally.h - what the two ways of counting share.
 */
#ifndef CENSUS_TALLY_H
#define CENSUS_TALLY_H

#include "memprobe/census.h"

/* Blocks that count as the same. */
struct tally {
	uint64_t count, bytes;
	uint64_t size;	  /* of each; 0: they differ */
	uint64_t example; /* the lowest address */
};

static inline void tally_add(struct tally *tally, const struct heap_chunk *chunk)
{
	if (!tally->count) {
		tally->size = chunk->size;
		tally->example = chunk->address;
	} else if (tally->size != chunk->size) {
		tally->size = 0;
	}
	tally->count++;
	tally->bytes += chunk->size;
}

/* The more bytes first, then the lower address. */
static inline int tally_compare(const struct tally *a, const struct tally *b)
{
	if (a->bytes != b->bytes)
		return a->bytes > b->bytes ? -1 : 1;
	return a->example < b->example ? -1 : a->example > b->example;
}

/* Appends a group, taking over @key; NULL: out of memory. */
struct error *census_add_group(struct census *census, const struct tally *tally, char *key,
			       const struct object_type *type);

/* Counts by content. Fills groups, group_count, single_*, missed_max; *read_ret: blocks read. */
struct error *census_by_content(const struct heap *heap, const struct census_options *options,
				struct census *census, struct tally *read_ret);

#endif
