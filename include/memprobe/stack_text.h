/*
 * stack_text.h - profiles out of the texts that other tools write stacks in.
 *
 *	folded	`root;caller;leaf 12`, a line for each stack (flamegraph.pl's input, our own)
 *	perf	`perf script`: a line for the sample, then its frames, leaf first, and a blank line;
 *		of several events those of the first one
 *	stap	SystemTap's print_usyms(): ` 0x1234 : name+0x5/0x10 [/path]`, or sprint_usyms():
 *		`name+0x5 [file]`, leaf first; a blank line or a line of one number, the count, ends
 *		a stack
 *
 * The text is foreign: any bytes give a profile or an error. Lines that make no sense are counted.
 */
#ifndef MEMPROBE_STACK_TEXT_H
#define MEMPROBE_STACK_TEXT_H

#include "memprobe/profile.h"

enum stack_text_format { STACK_TEXT_FOLDED, STACK_TEXT_PERF, STACK_TEXT_STAP };

struct stack_text_result {
	enum stack_text_format format;
	size_t lines;	   /* that are not blank */
	size_t left_out;   /* of them: no number at its end, below zero, above 2^63, a NUL in it */
	size_t first_left; /* number of the first of those; lines count from 1 */
	/* Of perf; interned in the profile. What the weights count, if the samples have periods, or
	 * NULL; and samples left out for being of another event than the first. */
	const char *event;
	size_t other_events;
};

/*
 * Adds the stacks of @size bytes of @text to @profile. The format is that of most of the first
 * lines. Weights go to PROFILE_BYTES: what folded lines end with (fractions are rounded), the
 * periods of perf's samples, which is how many events each stands for, or 1; the counts of stap.
 */
struct error *stack_text_read(const char *text, size_t size, struct profile *profile,
			      struct stack_text_result *ret);

#endif
