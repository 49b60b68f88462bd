/*
 * oom_scan.h - a cursor that reads text whether its blanks are there or not.
 *
 * The text comes from oom_lines.c: without control characters but '\n' (a line break of the
 * message itself) and SCAN_WRAP (a line break that a terminal or a mailer made).
 */
#ifndef MEMPROBE_OOM_SCAN_H
#define MEMPROBE_OOM_SCAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SCAN_WRAP '\r'

struct scan {
	const char *at, *end;
};

bool scan_is_blank(char c);
void scan_blanks(struct scan *scan);

/* Whether @word comes next, blanks apart, which may stand or be missing anywhere; passes it. */
bool scan_word(struct scan *scan, const char *word);
/* The same of one character. */
bool scan_char(struct scan *scan, char c);
/*
 * Goes on to the first place where @word comes, at most @reach bytes away, and passes it; *found
 * is where it begins. Stops at @stop, another word, NULL for none.
 */
bool scan_find(struct scan *scan, const char *word, const char *stop, size_t reach,
	       const char **found);

/* Decimal digits after blanks; a wrap within them does not end them. Too large: OOM_LARGEST. */
bool scan_number(struct scan *scan, uint64_t *ret);
/* The same with an optional sign. */
bool scan_signed(struct scan *scan, int *ret);
/* A number with kB or KB behind it, as bytes. */
bool scan_kib(struct scan *scan, uint64_t *ret);
/* Positive and in the range of process IDs. */
bool scan_pid(struct scan *scan, int *ret);

/* `<6>`, the priority of a message. */
bool scan_level(struct scan *scan);
/* `[  123.456789]`, with or without its priority; *start and *end are those of the number. */
bool scan_uptime(struct scan *scan, const char **start, const char **end);

/* Copies [@start, @end) without wraps, and without blanks around it, cut to @size with its NUL. */
void scan_copy(const char *start, const char *end, char *to, size_t size);

#endif
