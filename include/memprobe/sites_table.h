/*
 * sites_table.h - the top sites of a profile as a table for people.
 *
 * A row names the function that matters, which is the first from the leaf that is no allocator,
 * no std:: and no libc plumbing, and who called it.
 */
#ifndef MEMPROBE_SITES_TABLE_H
#define MEMPROBE_SITES_TABLE_H

#include "memprobe/profile.h"
#include "memprobe/table.h"

struct sites_table_options {
	const char *leaf;	  /* a column of this name has the leaf of each stack; NULL: none */
	size_t top;		  /* rows; 0: all */
	struct table_style style; /* with a width, names are shortened to fit */
};

/* The sites that hold most first; those that differ only in what is not shown are one row. With a
 * line of totals. */
struct error *sites_table_print(const struct profile *profile,
				const struct sites_table_options *options, FILE *out);

/*
 * `FUNCTION < CALLER < ...` of a stack, from the frame that matters, in @width columns; 0: all, in
 * full. The caller frees *ret.
 */
struct error *site_text(const struct profile *profile, const uint32_t *frames, size_t depth,
			size_t width, char **ret);

/*
 * The position in @frames (root first, @depth > 0) of the frame that matters.
 */
size_t site_frame_of_interest(const struct profile *profile, const uint32_t *frames, size_t depth);

/*
 * @name in at most @columns bytes: without its arguments, then without template arguments and
 * return type, then without the namespaces it is in, at last with `...` in place of its end. 0
 * columns: as short as it is with all of its namespaces. The caller frees it; NULL: out of memory.
 */
char *function_name_fit(const char *name, size_t columns);

#endif
