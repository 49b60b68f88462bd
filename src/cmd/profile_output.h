/*
 * profile_output.h - how commands that have call stacks write them: as a table, as JSON, or in one
 * of the formats of profile_format.h, by --format, the ending of -o FILE, --json or -f.
 *
 *	static const struct command_option options[] = {
 *		...
 *		PROFILE_OUTPUT_OPTIONS,
 *	};
 *	profile_output_choose(context, &output);	first: a wrong ending is no loss then
 *	... record ...
 *	profile_output_write(context, &output, profile, document);
 *
 * What has --top with another meaning takes PROFILE_FORMAT_OPTIONS.
 */
#ifndef CMD_PROFILE_OUTPUT_H
#define CMD_PROFILE_OUTPUT_H

#include "memprobe/cmd.h"
#include "memprobe/profile_format.h"

/* clang-format off */
#define PROFILE_FORMAT_OPTIONS                                                                    \
	{ "format", 0, "table|json|folded|svg|pprof", "(default: by the ending of -o FILE)" },    \
	{ "folded", 'f', NULL, "folded stacks, as by --format" }
#define PROFILE_OUTPUT_OPTIONS                                                                    \
	PROFILE_FORMAT_OPTIONS,                                                                   \
	{ "top", 0, "N", "in a table, the N sites that hold most (default 20; 0: all)" }
/* clang-format on */

struct profile_output {
	const struct profile_format *format; /* NULL: a table, or JSON if context->json */
	bool table;			     /* asked for as such */
	struct profile_options options;	     /* set what the command knows: title, subtitle ... */
	uint64_t top;
	const char *leaf; /* as in sites_table.h */
	/* The answer in words, in lines: above a table, else on stderr. NULL: none. */
	const char *summary;
	bool recorded; /* JSON has duration, events and lost */
};

/*
 * ERROR_USAGE for an unknown --format or ending, and for a binary one on a terminal. Sets
 * context->json for FILE.json and --format=json. A name without ending, and FILE.txt, is a table.
 */
struct error *profile_output_choose(struct command_context *context, struct profile_output *ret);

/*
 * Writes the profile, sorted, to -o FILE or stdout. @document (taken over; NULL: command_json()) is
 * what JSON is added to; in other formats it is not looked at.
 */
struct error *profile_output_write(struct command_context *context,
				   const struct profile_output *output,
				   const struct profile *profile, json_t *document);

#endif
