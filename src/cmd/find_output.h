/*
 * find_output.h - matches of `find`: kept while memory is searched, described, and shown.
 */
#ifndef FIND_OUTPUT_H
#define FIND_OUTPUT_H

#include "memprobe/cmd.h"
#include "memprobe/heap.h"
#include "memprobe/search.h"

struct find_match {
	uint64_t address;
	size_t size;
	uint8_t *context; /* owned; @before bytes, the match, @after bytes */
	size_t before, after;
	const struct mapping *mapping; /* NULL: it is gone by now */
	bool in_chunk;
	struct heap_chunk chunk;
	const char *object; /* C++ type of the chunk; lent; NULL: none is known */
};

VEC_DEFINE(find_match_vec, struct find_match)

struct find_report {
	struct find_match_vec matches;
	uint64_t count; /* matches may be fewer */
	const struct scan_result *scan;
	bool as_bytes; /* the pattern is no text */
	bool count_only;
};

/* Copies @match; @data is a struct find_report. */
struct error *find_report_add(void *data, const struct search_match *match);
void find_report_deinit(struct find_report *report);

struct error *find_report_write(struct command_context *context, const struct find_report *report);

/* Warnings, and status 6, for memory that could not be read and for an interruption. */
void command_note_scan(struct command_context *context, const struct scan_result *scan);
/* [{start, end}], as for `missing`. */
json_t *command_json_ranges(const struct range_vec *missing);

#endif
