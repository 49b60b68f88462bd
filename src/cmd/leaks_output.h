/*
 * leaks_output.h - leaks as groups, as a table, as JSON, and in the formats of stacks; and which of
 * them are known.
 */
#ifndef LEAKS_OUTPUT_H
#define LEAKS_OUTPUT_H

#include "heap_coverage.h"
#include "memprobe/cmd.h"
#include "memprobe/leaks.h"
#include "memprobe/map64.h"
#include "memprobe/object_type.h"
#include "profile_output.h"

/* ---- suppressions.c ---- */

#define LEAK_LOOK 256u /* bytes of a block that are looked at */

enum suppression_kind { SUPPRESS_TYPE, SUPPRESS_TEXT, SUPPRESS_HEX, SUPPRESS_SIZE };

struct suppression {
	enum suppression_kind kind;
	char *pattern;	/* owned; of a type: a shell pattern; of a text: what it contains */
	uint8_t *bytes; /* owned; SUPPRESS_HEX: the beginning */
	size_t size;	/* of @bytes; SUPPRESS_SIZE: of the block */
	uint64_t used;	/* how many leaks it has suppressed */
};

VEC_DEFINE(suppression_vec, struct suppression)

/*
 * A line each: `type:GLOB`, `text:PART`, `hex:BYTES` (a beginning), `size:BYTES`; `#` begins a
 * comment. ERROR_USAGE with the line's number.
 */
struct error *suppressions_read(const char *path, struct suppression_vec *ret);
void suppressions_deinit(struct suppression_vec *list);
/* @type may be NULL: unknown. */
bool suppressions_match(struct suppression_vec *list, const char *type, const uint8_t *bytes,
			size_t bytes_size, uint64_t size);

/* ---- leaks_output.c ---- */

#define LEAK_EXAMPLES 5

/* Direct leaks of one type and size. */
struct leak_group {
	const char *type; /* NULL: unknown */
	uint64_t size, count, bytes;
	uint64_t indirect_count, indirect_bytes;
	uint64_t cyclic; /* of them */
	uint64_t examples[LEAK_EXAMPLES];
	unsigned example_count;
	char *preview; /* owned; a look at the first example */
};

VEC_DEFINE(leak_group_vec, struct leak_group)

struct leak_report {
	struct leak_group_vec groups;	     /* the most bytes, with what hangs on them, first */
	uint64_t leaked_count, leaked_bytes; /* without what is suppressed */
	uint64_t suppressed_count, suppressed_bytes;
	uint64_t live_count, live_bytes;
	struct map64 keys; /* of types and sizes, to numbers of groups until they are sorted */
	struct object_types *types; /* owned; have the groups' types */
};

struct error *leak_report_build(const struct heap *heap, const struct leak_result *result,
				struct suppression_vec *known, struct leak_report *ret);
void leak_report_deinit(struct leak_report *report);
struct error *leak_report_write(struct command_context *context, const struct leak_report *report,
				const struct heap_coverage *coverage,
				const struct profile_output *output);

/* retain_output.c: with what each root is. */
struct error *retain_write(struct command_context *context, const struct heap *heap,
			   const struct leak_options *options, const struct heap_chunk *chunk,
			   const struct retain_step_vec *chain,
			   const struct retain_step_vec *referrers);

#endif
