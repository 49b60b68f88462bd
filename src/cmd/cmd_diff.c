#include "memprobe/cmd.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "diff_rows.h"
#include "memprobe/num.h"
#include "memprobe/records.h"
#include "profile_input.h"
#include "profile_output.h"

#define TOP_DEFAULT 20

static const struct command_option options[] = {
	{ "value", 0, "KEY",
	  "compare this key of the rows, such as size of maps (default: rss, in_use, bytes)" },
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

struct row {
	const char *key, *brief;
	int64_t old, fresh, delta;
	bool is_bytes;
};

static void put(struct table *table, const struct row *row, int64_t value, bool sign)
{
	uint64_t size = value < 0 ? -(uint64_t)value : (uint64_t)value;

	if (!row->is_bytes)
		table_cell(table, sign && value ? "%+" PRId64 : "%" PRId64, value);
	else if (sign || value < 0)
		table_cell_delta(table, value);
	else
		table_cell_size(table, size);
}

static void delta_cell(struct table *table, const void *row)
{
	put(table, row, ((const struct row *)row)->delta, true);
}

static void old_cell(struct table *table, const void *row)
{
	put(table, row, ((const struct row *)row)->old, false);
}

static void new_cell(struct table *table, const void *row)
{
	put(table, row, ((const struct row *)row)->fresh, false);
}

static const struct record_column columns[] = {
	RECORD(row, key, "key", NULL, RECORD_TEXT),
	{ .heading = "DELTA", .kind = RECORD_OTHER, .cell = delta_cell, .right = true },
	RECORD(row, old, "old", "OLD", RECORD_DELTA, .cell = old_cell, .rank = 1),
	RECORD(row, fresh, "new", "NEW", RECORD_DELTA, .cell = new_cell),
	RECORD(row, delta, "delta", NULL, RECORD_DELTA),
	RECORD(row, brief, NULL, "KEY", RECORD_TEXT),
	{ 0 },
};

struct source {
	const struct diff_rows *rows;
	struct row row;
};

static const void *row_at(void *data, size_t i)
{
	struct source *source = data;
	const struct diff_row *row = &source->rows->rows.data[i];

	source->row = (struct row){
		.key = row->key,
		.brief = row->brief ? row->brief : row->key,
		.old = row->old,
		.fresh = row->fresh,
		.delta = row->delta,
		.is_bytes = source->rows->is_bytes,
	};
	return &source->row;
}

static struct records records_of(struct source *source, size_t count)
{
	return (struct records){
		.columns = columns,
		.count = count,
		.row = row_at,
		.data = source,
	};
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
	struct source source = { &run->rows, { 0 } };
	const struct records records = records_of(&source, run->rows.rows.size);
	json_t *document = command_json(run->context), *rows = records_array(&records);

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

static void print_answer(const struct diff_run *run, FILE *out)
{
	int64_t delta = growth(&run->rows);
	uint64_t size = delta < 0 ? -(uint64_t)delta : (uint64_t)delta;
	struct table_style style = command_style(run->context);
	char text[TABLE_SIZE_MAX], items[ITEMS_TEXT_MAX];

	if (run->rows.is_bytes)
		table_size(style, size, text);
	else
		format_count(size, text);
	fprintf(out, "diff: %s%s in all, in %s that changed\n\n",
		delta > 0   ? "+"
		: delta < 0 ? "-"
			    : "",
		text, format_items(run->rows.rows.size, "row", items));
}

static struct error *print_rows(FILE *out, void *data)
{
	const struct diff_run *run = data;
	size_t count = run->rows.rows.size;
	size_t shown = run->output.top ? min_u64(run->output.top, count) : count;
	struct source source = { &run->rows, { 0 } };
	const struct records records = records_of(&source, shown);
	const struct row total = {
		.brief = "total",
		.old = run->rows.old_total,
		.fresh = run->rows.new_total,
		.delta = growth(&run->rows),
		.is_bytes = run->rows.is_bytes,
	};
	cleanup(table) struct table *table = records_table(&records, command_style(run->context));
	struct error *error;

	print_answer(run, out);
	table_rule(table);
	records_row(table, columns, 0, &total);
	error = table_print(table, out);
	if (!error && shown < count)
		fprintf(out, "and %zu more\n", count - shown);
	return error;
}

/* ---- comparing ---- */

/* Addresses differ from run to run. */
static struct error *read_by_name(struct command_context *context, const char *path,
				  struct profile **ret)
{
	cleanup(profile) struct profile *profile = NULL;
	struct error *error = profile_input_read(context, path, true, &profile);

	return error ? error : profile_by_name(profile, ret);
}

/* Stacks in a format of their own: a flame graph in the colours of growth, say. */
static struct error *write_stacks(struct diff_run *run)
{
	cleanup(profile) struct profile *old = NULL;
	cleanup(profile) struct profile *fresh = NULL;
	struct error *error = read_by_name(run->context, run->context->arguments[0], &old);

	if (!error)
		error = read_by_name(run->context, run->context->arguments[1], &fresh);
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
		"OLD and NEW are --json outputs of one command (diagnose, top, maps, threads, mallinfo,\n"
		"heap, leaks, strings, allocs, faults, syscalls), recordings of watch, or files of stacks\n"
		"as flame reads them (pprof too); - is stdin.\n",
	.target = TARGET_NONE,
	.options = options,
	.arguments_min = 2,
	.arguments_max = 2,
	.run = run_diff,
};
