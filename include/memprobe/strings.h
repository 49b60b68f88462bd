/*
 * strings.h - the printable strings that repeat most in memory.
 *
 * A string is a run of printable characters: ASCII from blank to tilde, tabs, and valid UTF-8 from
 * U+00A0 on. Everything else ends it, ends of lines included. Strings of blanks only do not count.
 * Of a longer one its first STRINGS_LENGTH_MAX bytes count.
 */
#ifndef MEMPROBE_STRINGS_H
#define MEMPROBE_STRINGS_H

#include "memprobe/memory_scan.h"

#define STRINGS_LENGTH_MAX 4096u
#define STRINGS_TEXT_MAX   512u /* bytes of a text that are kept */

struct string_group {
	char *text; /* owned; valid UTF-8 */
	/* How often it was seen, and how often it may have been: less was not, more was not. */
	uint64_t count, count_max;
	uint64_t bytes; /* of those that were seen */
	bool is_cut;	/* the strings go on behind the text */
	bool varies;	/* they differ: the text is what they have in common */
};

VEC_DEFINE(string_group_vec, struct string_group)

/*
 * Whole strings; and as one group those that differ in numbers only, or begin with the same
 * STRINGS_PREFIX bytes but for numbers, if it has more than twice as many as the most frequent
 * whole string or smaller group of it. A number that differs is a # in its text.
 */
#define STRINGS_PREFIX_AUTO SIZE_MAX
#define STRINGS_PREFIX	    16u

struct strings_request {
	struct target *target;
	const struct mapping_vec *maps; /* as for memory_scan() */
	const struct range_vec *ranges; /* normalised */
	size_t min_length;		/* characters, at least 1 */
	/* Strings are the same if so many of their first bytes are; 0: if all are. */
	size_t prefix;
	uint64_t top;	 /* how many groups are wanted */
	size_t distinct; /* how many are counted at the same time; 0: STRINGS_DISTINCT */
	bool (*interrupted)(void);
};

#define STRINGS_DISTINCT (180u << 10)

struct strings_result {
	struct string_group_vec groups; /* by count; those that were seen at least twice */
	uint64_t left_out;		/* groups that are known beyond these */
	uint64_t count, bytes;		/* of all strings, exactly */
	/* There were more different ones than could be counted: what is in no group may have been
	 * there so often. 0: every string was counted. */
	uint64_t unseen_max;
	struct scan_result scan;
};

struct error *strings_run(const struct strings_request *request, struct strings_result *ret);
void strings_result_deinit(struct strings_result *result);

#endif
