/*
 * profile_format.h - profiles as files for other tools.
 *
 * To add an output format: 1. write src/report/NAME.c with its `const struct profile_format`;
 * 2. add it to the table in src/report/profile_format.c; 3. name its ending in memprobe(1),
 * FORMATS, and test it in tests/unit/test_profile_format.c. Commands need no change.
 *
 * All formats share one loop, profile_write(): begin, site by site, end. (JSON is the document of
 * a command, of which sites_json.h makes a part, and the table for people is sites_table.h.)
 */
#ifndef MEMPROBE_PROFILE_FORMAT_H
#define MEMPROBE_PROFILE_FORMAT_H

#include <stdio.h>

#include "memprobe/profile.h"

enum flame_color {
	FLAME_COLOR_AUTO, /* diff or reach if the profile has these columns, mem for bytes, else hot
			   */
	FLAME_COLOR_MEM,
	FLAME_COLOR_HOT,
	FLAME_COLOR_BLUE,
	FLAME_COLOR_IO,
	FLAME_COLOR_RED,
	FLAME_COLOR_GREEN,
	FLAME_COLOR_AQUA,
	FLAME_COLOR_YELLOW,
	FLAME_COLOR_PURPLE,
	FLAME_COLOR_ORANGE,
	FLAME_COLOR_DIFF,  /* by growth against PROFILE_OLD_BYTES */
	FLAME_COLOR_REACH, /* the share that is unreachable apart from the rest */
};

/* How to draw; what a format has no use for it does not look at. */
struct profile_options {
	const char *title;	/* NULL: made of the profile's name and pid */
	const char *subtitle;	/* NULL: none */
	const char *count_name; /* what PROFILE_BYTES counts; NULL: the column's unit */
	enum flame_color color;
	bool reverse;	  /* merge from the leaf */
	bool inverted;	  /* the root on top */
	unsigned width;	  /* pixels; 0: 1200, and as wide as the window where there is one */
	double min_width; /* narrower frames are not drawn; pixels; below 0: chosen */
};

/* A run of a format. */
struct profile_writer {
	const struct profile *profile;
	const struct profile_options *options;
	FILE *out;
	void *state; /* zeroed, of the size that the format asks for */
};

struct profile_format {
	const char *name;   /* for --format */
	const char *ending; /* of files, with the dot */
	const char *what;   /* for people */
	bool binary;	    /* not to be written to a terminal */
	size_t state_size;
	/* Each may be NULL. Errors of the stream are found by the caller, by ferror(). */
	struct error *(*begin)(struct profile_writer *writer);
	struct error *(*site)(struct profile_writer *writer, const struct profile_site *site);
	struct error *(*end)(struct profile_writer *writer);
	/* After success and failure alike. */
	void (*deinit)(struct profile_writer *writer);
};

/* The table; ends with NULL. */
extern const struct profile_format *const profile_formats[];

/* NULL: there is none of this name, or for this file name's ending. */
const struct profile_format *profile_format_by_name(const char *name);
const struct profile_format *profile_format_by_ending(const char *path);

struct error *profile_write(const struct profile *profile, const struct profile_format *format,
			    const struct profile_options *options, FILE *out);

#endif
