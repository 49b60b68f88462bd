/*
 * diff_rows.h - two outputs of memprobe as rows of one value, old and new.
 *
 * To add what a command's JSON has: a row in `comparisons` of diff_rows.c.
 */
#ifndef CMD_DIFF_ROWS_H
#define CMD_DIFF_ROWS_H

#include "memprobe/cmd.h"
#include "memprobe/vec.h"

struct diff_row {
	char *key;	   /* owned */
	size_t key_length; /* of what tells it from the others */
	char *brief;	   /* owned: what is shown in place of the key; NULL: nothing */
	int64_t old, fresh, delta;
};

VEC_DEFINE(diff_row_vec, struct diff_row)

struct diff_rows {
	struct diff_row_vec rows;     /* what has changed; the largest growth first */
	char what[32];		      /* the command that wrote them, or `stacks` */
	char value[32];		      /* the key that is compared */
	int64_t old_total, new_total; /* of all, what has not changed included */
	bool is_bytes;
};

/*
 * @value: the key to compare, NULL: the usual one. @for_people: stacks are named as in
 * sites_table.h, and those that look alike are one; else by all their frames, root first.
 * ERROR_FAILED: a file is no such output, or the two are of different commands. *ret has to be
 * zeroed.
 */
struct error *diff_rows_read(struct command_context *context, const char *old_path,
			     const char *new_path, const char *value, bool for_people,
			     struct diff_rows *ret);

void diff_rows_deinit(struct diff_rows *rows);

#endif
