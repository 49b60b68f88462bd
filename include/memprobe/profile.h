/*
 * profile.h - what was recorded or found, by call stack: plain data that knows no target.
 *
 *	profile_create(&profile);
 *	profile_set_column(profile, PROFILE_ALL_BYTES, "alloc_space", "bytes");	optional columns
 *	profile_add_frame(profile, &frame, &id);	equal frames have one id
 *	profile_add_stack(profile, ids, depth, &stack);	ids root first; equal stacks have one id
 *	profile_add_site(profile, stack, values);	values of one stack add up
 *	profile_sort(profile);				by weight, largest first
 *
 * Adders copy all that they are given; strings are interned, so that equal ones are one pointer,
 * valid until profile_destroy(). Addresses are those of the target; ranges are half-open. Sums
 * stop at the largest number instead of wrapping around.
 *
 * The formats it is written in are those of profile_format.h.
 */
#ifndef MEMPROBE_PROFILE_H
#define MEMPROBE_PROFILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "memprobe/error.h"
#include "memprobe/vec.h"

/* What is known of a site, beside its stack. */
enum profile_column {
	PROFILE_COUNT, /* blocks, faults, calls ...; of what PROFILE_BYTES weighs */
	PROFILE_BYTES, /* what sites are sorted by and drawn with, unless profile.weight says else
			*/
	/* All of the recording, if the two above are only what was left of it at the end. */
	PROFILE_ALL_COUNT,
	PROFILE_ALL_BYTES,
	/* The part of PROFILE_COUNT and PROFILE_BYTES to which nothing points any more. */
	PROFILE_UNREACHABLE_COUNT,
	PROFILE_UNREACHABLE_BYTES,
	/* PROFILE_BYTES of the profile that this one is compared with. */
	PROFILE_OLD_BYTES,
	/* Of what PROFILE_BYTES mapped, what is still mapped at the end. */
	PROFILE_NET_BYTES,
	PROFILE_COLUMNS
};

/* A column that this profile has. Name and unit are pprof's sample type: `inuse_space`, `bytes`. */
struct profile_value {
	const char *name; /* NULL: the profile has no such column, its values are 0 */
	const char *unit; /* `bytes`, `count`, or what else one of it is called */
};

struct profile_frame {
	const char *function; /* demangled; NULL: unknown */
	const char *module;   /* path as the target sees it; NULL: in none */
	const char *build_id; /* of the module, in hexadecimal; NULL: unknown */
	const char *file;     /* of the source; NULL: unknown */
	unsigned line;	      /* 0: unknown */
	uint64_t address;     /* in the call instruction, not the return address; 0: unknown */
	uint64_t offset;      /* of @address in the module's file as linked (minus its bias) */
	bool inlined;	      /* into the frame below it, its caller; they have one @address */
	bool kernel;
};

VEC_DEFINE(profile_frame_vec, struct profile_frame)

/* frame_ids.data[first...first + depth), root first. */
struct profile_stack {
	size_t first;
	uint32_t depth;
};

VEC_DEFINE(profile_stack_vec, struct profile_stack)
VEC_DEFINE(profile_id_vec, uint32_t)

struct profile_site {
	uint32_t stack;
	int64_t values[PROFILE_COLUMNS];
};

VEC_DEFINE(profile_site_vec, struct profile_site)

/* Code of the target, for pprof. */
struct profile_mapping {
	uint64_t start, end;
	uint64_t offset; /* of @start in the file */
	const char *path;
	const char *build_id; /* in hexadecimal; NULL: unknown */
};

VEC_DEFINE(profile_mapping_vec, struct profile_mapping)

/* Read its fields freely; the vectors and strings are changed by the functions below only. */
struct profile {
	struct profile_value columns[PROFILE_COLUMNS];
	struct profile_frame_vec frames; /* by id */
	struct profile_stack_vec stacks; /* by id */
	struct profile_id_vec frame_ids;
	struct profile_site_vec sites;
	struct profile_mapping_vec mappings; /* in the order of profile_add_mapping() */

	/* The column that sites are sorted by and drawn with: PROFILE_BYTES, or PROFILE_ALL_BYTES;
	 * the caller's to set. */
	enum profile_column weight;

	/* What follows is the caller's to set; 0 and NULL: unknown, or does not apply. */
	uint64_t time_us;     /* of its begin, since the epoch */
	uint64_t duration_us; /* of the recording */
	uint64_t period;      /* mean bytes between two samples; 1: every one was taken */
	uint64_t events;      /* seen in all */
	uint64_t lost;	      /* of which there is no trace in the sites */
	int pid;
	const char *name; /* of the process or input; by profile_intern() */
	const char *exe;  /* by profile_intern() */

	struct profile_tables *tables; /* private */
};

/*
 * An empty profile. It has the columns PROFILE_COUNT (inuse_objects, count) and PROFILE_BYTES
 * (inuse_space, bytes).
 */
struct error *profile_create(struct profile **ret);
void profile_destroy(struct profile *profile);
CLEANUP_DEFINE(profile, struct profile *, profile_destroy)

/* Adds or renames a column; a NULL @name takes it away. */
struct error *profile_set_column(struct profile *profile, enum profile_column column,
				 const char *name, const char *unit);
bool profile_has(const struct profile *profile, enum profile_column column);

/* The profile's own copy of @length bytes of @text (up to a NUL among them). */
struct error *profile_intern_bytes(struct profile *profile, const char *text, size_t length,
				   const char **ret);
/* The same of a string; NULL gives NULL. */
struct error *profile_intern(struct profile *profile, const char *text, const char **ret);

struct error *profile_add_frame(struct profile *profile, const struct profile_frame *frame,
				uint32_t *id_ret);

/* @frames are ids, root first. A stack may be empty. */
struct error *profile_add_stack(struct profile *profile, const uint32_t *frames, size_t depth,
				uint32_t *id_ret);

/* Adds @values, one for each column, to the site of @stack, which is begun if it is not there. */
struct error *profile_add_site(struct profile *profile, uint32_t stack,
			       const int64_t values[PROFILE_COLUMNS]);

struct error *profile_add_mapping(struct profile *profile, const struct profile_mapping *mapping);

/*
 * Adds the sites of @old with their PROFILE_BYTES in the column PROFILE_OLD_BYTES: equal stacks
 * are one site. What is new has 0 there, what is gone has 0 elsewhere.
 */
struct error *profile_compare(struct profile *profile, const struct profile *old);

/*
 * A copy whose frames have nothing but a name (profile_frame_name()): stacks that differ in the
 * places of their calls only are one, as in a table, or in folded stacks. It has no mappings.
 */
struct error *profile_by_name(const struct profile *profile, struct profile **ret);

/*
 * The same, of each stack without what lies between the frame that matters (sites_table.h) and the
 * leaf, and without the leaf, unless it is asked for (@leaf): what a table shows of it.
 */
struct error *profile_by_site(const struct profile *profile, bool leaf, struct profile **ret);

/* By weight, then by its count, descending. */
void profile_sort(struct profile *profile);

/* The column with the number of what profile->weight has the bytes of. */
enum profile_column profile_weight_count(const struct profile *profile);

int64_t profile_total(const struct profile *profile, enum profile_column column);

/* The frame ids of a stack, root first, and how many they are. */
const uint32_t *profile_stack_frames(const struct profile *profile, uint32_t stack,
				     size_t *depth_ret);

/*
 * What a frame is called where there is only one name for it: its function; `[module+0x12ab]`
 * where that is not known; `[0x7f...]` in no module; `[unknown]`. A name that has to be made is
 * written to @buffer; the result is either that or the profile's.
 */
#define PROFILE_NAME_MAX 320
const char *profile_frame_name(const struct profile_frame *frame, char buffer[PROFILE_NAME_MAX]);

/* The same as texts hold it: with `_[k]` behind if it is the kernel's, which profile_add_label()
 * understands. The caller frees it; NULL: out of memory. */
char *profile_frame_label(const struct profile_frame *frame);
struct error *profile_add_label(struct profile *profile, const char *label, size_t length,
				uint32_t *id_ret);

/* @a + @b, at most INT64_MAX and at least INT64_MIN. */
int64_t profile_sum(int64_t a, int64_t b);

#endif
