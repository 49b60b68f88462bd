/*
 * stack_text.h - what the readers of stack_text.c share.
 */
#ifndef REPORT_STACK_TEXT_H
#define REPORT_STACK_TEXT_H

#include "memprobe/stack_text.h"

/* Part of the text, not terminated. */
struct piece {
	const char *text;
	size_t length;
};

struct stack_reader {
	struct profile *profile;
	struct profile_id_vec frames; /* of the stack begun */
	/* perf: of the sample begun */
	struct piece command;
	int64_t period;
	bool begun;
	bool skip; /* it is of another event than the first */
	/* perf: of all */
	struct piece event; /* of the first sample that names one */
	bool has_periods;
	size_t other_events;
	bool bad; /* the frame or line being read is no good */
};

/* Each takes one line without its end, blank ones included; sets reader->bad for nonsense. */
struct error *stack_text_folded_line(struct stack_reader *reader, struct piece line);
struct error *stack_text_perf_line(struct stack_reader *reader, struct piece line);
struct error *stack_text_stap_line(struct stack_reader *reader, struct piece line);
/* At the end of the text. */
struct error *stack_text_perf_end(struct stack_reader *reader);
struct error *stack_text_stap_end(struct stack_reader *reader);

/* Whether a line looks like this format's frames. */
bool stack_text_is_perf_frame(struct piece line);
bool stack_text_is_stap_frame(struct piece line);

/* ---- pieces ---- */

struct piece piece_trim(struct piece piece);
struct piece piece_from(struct piece piece, size_t begin);	     /* all but the first @begin */
bool piece_find_last(struct piece piece, char byte, size_t *at_ret); /* false: not in it */
bool piece_begins(struct piece piece, const char *prefix);
/* The hexadecimal digits that it begins with, with or without 0x; 0 bytes taken: none. */
size_t piece_hex(struct piece piece, uint64_t *value_ret);
/* The whole of it as a decimal number, fractions rounded; false: none, or too large. */
bool piece_number(struct piece piece, int64_t *value_ret);

/* ---- frames and stacks ---- */

/* Appends a frame to reader->frames; @function may be empty: unknown; @module empty: none. */
struct error *stack_reader_frame(struct stack_reader *reader, struct piece function,
				 struct piece module, uint64_t address, bool kernel, bool inlined);
/* Adds the stack of reader->frames, leaf first if @leaf_first, and empties it. */
struct error *stack_reader_stack(struct stack_reader *reader, int64_t value, bool leaf_first);

#endif
