/*
 * search.h - where a text, a byte pattern, a regular expression or a pointer stands in memory.
 *
 * Matches do not overlap: the next one begins behind the last one at the earliest, as with
 * `grep -o`. They may lie across mappings that adjoin, if both are searched. Pages of private
 * memory that were never touched hold nothing: a match has at least one byte outside of them.
 */
#ifndef MEMPROBE_SEARCH_H
#define MEMPROBE_SEARCH_H

#include "memprobe/memory_scan.h"

/* No pattern matches more bytes: longer ones are refused, and a regular expression matches what it
 * can match of so many. */
#define SEARCH_MATCH_MAX 4096u

struct search_pattern;

/* Not empty. @utf16: as UTF-16LE, which takes valid UTF-8. All these give ERROR_USAGE. */
struct error *search_text(const char *text, bool utf16, struct search_pattern **ret);

/*
 * Pairs of hexadecimal digits, blanks between them or not; `?` stands for any digit. At least one
 * digit is none.
 */
struct error *search_hex(const char *text, struct search_pattern **ret);

/*
 * PCRE2, on bytes: ^ and $ are those of lines, nothing is UTF. Empty matches do not count. An
 * attempt at one place is bounded; where that does not do, it counts in search_result.gave_up.
 */
struct error *search_regex(const char *text, struct search_pattern **ret);

/* Aligned words of @word_size (4 or 8) bytes that are an address in one of @ranges; not empty. */
struct error *search_pointers(const struct range_vec *ranges, unsigned word_size,
			      struct search_pattern **ret);

void search_pattern_destroy(struct search_pattern *pattern);
CLEANUP_DEFINE(search_pattern, struct search_pattern *, search_pattern_destroy)

struct search_match {
	uint64_t address;
	size_t size;
	const uint8_t *bytes; /* that of @address; [-before, size + after) may be read */
	size_t before, after; /* at most search_request.context */
};

struct search_request {
	struct target *target;
	const struct mapping_vec *maps; /* as for memory_scan() */
	const struct range_vec *ranges; /* normalised */
	const struct search_pattern *pattern;
	uint64_t list;	/* how many matches, the first, are shown to match(); all are counted */
	size_t context; /* bytes around them; at most SEARCH_CONTEXT_MAX */
	bool (*interrupted)(void);
	struct error *(*match)(void *data, const struct search_match *match);
	void *data;
};

#define SEARCH_CONTEXT_MAX 4096u

struct search_result {
	uint64_t count;
	uint64_t gave_up; /* places where a regular expression took too long */
	struct scan_result scan;
};

/* Fails with ERROR_FAILED also if a regular expression takes too long at too many places. */
struct error *search_run(const struct search_request *request, struct search_result *ret);
void search_result_deinit(struct search_result *result);

#endif
