/*
 * search_pattern.h - the kinds of patterns, and how each is looked for in a block.
 *
 * To add a kind: 1. a value of the enum and its member of struct search_pattern; 2. a function as
 * fixed_search(); 3. a case in search_block() and in search_pattern_destroy().
 */
#ifndef SEARCH_PATTERN_H
#define SEARCH_PATTERN_H

#include "memprobe/search.h"

enum search_kind { SEARCH_FIXED, SEARCH_REGEX, SEARCH_POINTERS };

/* Bytes, of which some bits may be anything. */
struct search_fixed {
	uint8_t *value, *mask; /* @size of them; value has no bits outside of mask */
	size_t size;
	bool is_exact;
	size_t first, second; /* the two bytes that are rarest in memory */
};

struct search_words {
	struct range_vec ranges;
	uint64_t lowest, highest; /* [lowest, highest) has all of them */
	unsigned size;
};

struct search_code; /* of a regular expression */

struct search_pattern {
	enum search_kind kind;
	struct search_fixed fixed;
	struct search_code *code;
	struct search_words words;
	/* How many bytes before and behind a match's first must be there to know it. */
	size_t before, after;
};

struct hit {
	uint64_t address;
	uint32_t size;
};

VEC_DEFINE(hit_vec, struct hit)

struct search_machine; /* what a thread needs to run a regular expression */

/* Of a block. */
struct hits {
	uint64_t count;
	uint64_t first;	     /* where the first one is */
	uint64_t end;	     /* of the last one */
	uint64_t keep;	     /* how many go into @list */
	struct hit_vec list; /* the first ones */
	uint64_t gave_up;
	struct search_machine *machine;
};

/* Matches that begin in [from, block->end); those of untouched pages only do not count. */
struct error *search_block(const struct search_pattern *pattern, const struct scan_block *block,
			   uint64_t from, struct hits *hits);

struct error *fixed_search(const struct search_fixed *fixed, const struct scan_block *block,
			   uint64_t from, struct hits *hits);
struct error *regex_search(const struct search_code *code, const struct scan_block *block,
			   uint64_t from, struct hits *hits);

#define SEARCH_GIVE_UP_MAX 100u
struct error *search_too_hard(void);

void search_code_destroy(struct search_code *code);
void search_machine_destroy(struct search_machine *machine);

static inline struct error *hits_add(struct hits *hits, uint64_t address, size_t size)
{
	struct hit hit = { address, (uint32_t)size };

	if (!hits->count)
		hits->first = address;
	hits->count++;
	hits->end = address + size;
	return hits->list.size < hits->keep ? hit_vec_append(&hits->list, &hit) : NULL;
}

#endif
