#include "memprobe/cmd.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "diff_rows.h"
#include "memprobe/num.h"
#include "memprobe/table.h"
#include "profile_input.h"
#include "profile_output.h"

#define TOP_DEFAULT 20

static const struct command_option options[] = {
	{ "value", 0, "KEY", "of maps and mallinfo, compare this key (default rss; in_use)" },
	{ "exit-code", 0, NULL, "exit with 10 if anything has grown" },
	PROFILE_OUTPUT_OPTIONS,
	{ NULL, 0, NULL, NULL },
};

struct diff_run {
	struct command_context *context;
	struct profile_output output;
	struct diff_rows rows;
};

/* ---- output ---- */

static json_t *json_rows(const struct diff_rows *rows)
{
	json_t *list = json_array();

	vec_for_each (row, &rows->rows) {
		json_t *object = json_object();

		json_object_set_new(object, "key", json_text(row->key));
		json_object_set_new(object, "old", json_integer((json_int_t)row->old));
		json_object_set_new(object, "new", json_integer((json_int_t)row->fresh));
		json_object_set_new(object, "delta", json_integer((json_int_t)row->delta));
		if (json_array_append_new(list, object)) {
			json_decref(list);
			return NULL;
		}
	}
	return list;
}

static int64_t growth(const struct diff_rows *rows)
{
	int64_t delta;

	if (__builtin_sub_overflow(rows->new_total, rows->old_total, &delta))
		return rows->new_total > rows->old_total ? INT64_MAX : INT64_MIN;
	return delta;
}

static struct error *write_json(struct diff_run *run)
{
	json_t *document = command_json(run->context), *rows = json_rows(&run->rows);

	if (!document || !rows || json_object_set(document, "rows", rows) ||
	    json_object_set_new(document, "totals",
				json_pack("{s:I, s:I, s:I}", "old", (json_int_t)run->rows.old_total,
					  "new", (json_int_t)run->rows.new_total, "delta",
					  (json_int_t)growth(&run->rows))) ||
	    json_object_set_new(document, "compares", json_string(run->rows.what)) ||
	    json_object_set_new(document, "value", json_string(run->rows.value))) {
		json_decref(document);
		document = NULL;
	}
	json_decref(rows);
	return command_write_json(run->context, document);
}

static void put_bytes(const struct diff_run *run, struct table *table, int64_t value, bool sign)
{
	char text[SIZE_TEXT_MAX];
	uint64_t size = value < 0 ? -(uint64_t)value : (uint64_t)value;
	const char *mark = value < 0 ? "-" : sign && value ? "+" : "";

	if (run->rows.is_bytes)
		table_cell(table, "%s%s", mark, format_size(size, text));
	else
		table_cell(table, "%s%" PRIu64, mark, size);
}

static struct error *print_rows(FILE *out, void *data)
{
	const struct diff_run *run = data;
	cleanup(table) struct table *table = table_create(command_style(run->context));
	size_t shown = run->rows.rows.size;
	int64_t old = run->rows.old_total, fresh = run->rows.new_total;
	struct error *error;

	if (!table)
		return &error_no_memory;
	if (run->output.top && run->output.top < shown)
		shown = run->output.top;
	table_column(table, "DELTA", TABLE_RIGHT);
	table_column(table, "OLD", TABLE_RIGHT);
	table_column(table, "NEW", TABLE_RIGHT);
	table_column(table, "KEY", TABLE_LEFT);
	for (size_t i = 0; i < shown; i++) {
		const struct diff_row *row = &run->rows.rows.data[i];

		put_bytes(run, table, row->delta, true);
		put_bytes(run, table, row->old, false);
		put_bytes(run, table, row->fresh, false);
		table_cell_text(table, row->brief ? row->brief : row->key);
	}
	table_rule(table);
	put_bytes(run, table, growth(&run->rows), true);
	put_bytes(run, table, old, false);
	put_bytes(run, table, fresh, false);
	table_cell_text(table, "total");
	error = table_print(table, out);
	if (!error && shown < run->rows.rows.size)
		fprintf(out, "and %zu more\n", run->rows.rows.size - shown);
	return error;
}

/* ---- comparing ---- */

/* Stacks in a format of their own: a flame graph in the colours of growth, say. */
static struct error *write_stacks(struct diff_run *run)
{
	cleanup(profile) struct profile *old = NULL;
	cleanup(profile) struct profile *fresh = NULL;
	struct error *error =
		profile_input_read(run->context, run->context->arguments[0], true, &old);

	if (!error)
		error = profile_input_read(run->context, run->context->arguments[1], true, &fresh);
	if (!error)
		error = profile_compare(fresh, old);
	if (error)
		return error;
	profile_sort(fresh);
	run->output.options.color = FLAME_COLOR_DIFF;
	return profile_output_write(run->context, &run->output, fresh, NULL);
}

static struct error *run_diff(struct command_context *context)
{
	struct diff_run run = { .context = context };
	struct error *error = profile_output_choose(context, &run.output);

	if (!error && !strcmp(context->arguments[0], "-") && !strcmp(context->arguments[1], "-"))
		error = error_create(ERROR_USAGE, "only one input can be standard input");
	if (error)
		return error;
	if (run.output.format)
		return write_stacks(&run);
	error = diff_rows_read(context, context->arguments[0], context->arguments[1],
			       command_option(context, "value"), !context->json, &run.rows);
	if (!error)
		error = context->json ? write_json(&run) : command_print(context, print_rows, &run);
	vec_for_each (row, &run.rows.rows)
		if (!error && row->delta > 0 && command_option(context, "exit-code"))
			context->status = 10;
	diff_rows_deinit(&run.rows);
	return error;
}

const struct command cmd_diff = {
	.name = "diff",
	.arguments = "OLD NEW",
	.summary = "what grew between two --json outputs, or two recordings of stacks",
	.notes =
		"OLD and NEW are --json outputs of one command (maps, mallinfo, heap, leaks, allocs,\n"
		"faults, syscalls), or files of stacks as flame reads them; - is stdin.\n",
	.target = TARGET_NONE,
	.options = options,
	.arguments_min = 2,
	.arguments_max = 2,
	.run = run_diff,
};
