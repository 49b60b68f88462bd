#include "memprobe/strings.h"

#include <inttypes.h>
#include <string.h>

#include "find_output.h"
#include "memprobe/cmd.h"
#include "memprobe/log.h"
#include "memprobe/num.h"
#include "memprobe/records.h"

#define TOP_DEFAULT    20
#define LENGTH_DEFAULT 6

static const struct command_option options[] = {
	{ "in", 0, "WHERE", "look at this range or type of mapping only (heap, arena, ...)" },
	{ "top", 0, "N", "show the N strings that repeat most (default 20; 0: all)" },
	{ "min-length", 0, "N", "strings of at least N characters (default 6)" },
	{ "prefix", 0, "N",
	  "strings are one group if they begin with the same N bytes; 0: no groups" },
	{ NULL, 0, NULL, NULL },
};

struct output {
	struct command_context *context;
	struct strings_request request;
	struct strings_result result;
};

/* ---- output ---- */

static void count_cell(struct table *table, const void *data)
{
	const struct string_group *group = data;

	table_cell(table, "%s%" PRIu64, group->count_max > group->count ? ">=" : "", group->count);
}

static void text_cell(struct table *table, const void *data)
{
	const struct string_group *group = data;

	table_cell(table, "%s%s", group->text, group->is_cut ? "..." : "");
}

static const struct record_column columns[] = {
	RECORD(string_group, text, "text", NULL, RECORD_TEXT),
	RECORD(string_group, count, "count", "COUNT", RECORD_NUMBER, .cell = count_cell),
	RECORD(string_group, count_max, "count_max", NULL, RECORD_NUMBER),
	RECORD(string_group, bytes, "bytes", "BYTES", RECORD_SIZE),
	RECORD(string_group, text, NULL, "TEXT", RECORD_TEXT, .cell = text_cell),
	RECORD(string_group, is_cut, "cut", NULL, RECORD_BOOL),
	RECORD(string_group, varies, "varies", NULL, RECORD_BOOL),
	{ 0 },
};

static struct records records_of(const struct strings_result *result)
{
	return (struct records){
		.columns = columns,
		.rows = result->groups.data,
		.count = result->groups.size,
		.size = sizeof(*result->groups.data),
	};
}

static struct error *write_json(struct output *output)
{
	const struct strings_result *result = &output->result;
	const struct records records = records_of(result);
	json_t *document = command_json(output->context), *totals = json_object();

	json_object_set_new(totals, "count", json_number(result->count));
	json_object_set_new(totals, "bytes", json_number(result->bytes));
	json_object_set_new(document, "strings", records_array(&records));
	json_object_set_new(document, "strings_left_out", json_number(result->left_out));
	json_object_set_new(document, "unseen_max", json_number(result->unseen_max));
	json_object_set_new(document, "totals", totals);
	json_object_set_new(document, "searched", json_number(result->scan.bytes));
	json_object_set_new(document, "missing", command_json_ranges(&result->scan.missing));
	return command_write_json(output->context, document);
}

static struct error *print_result(FILE *out, void *data)
{
	const struct output *output = data;
	const struct strings_result *result = &output->result;
	const struct records records = records_of(result);
	struct table_style style = command_style(output->context);
	cleanup(table) struct table *table = NULL;
	char items[ITEMS_TEXT_MAX], size[2][TABLE_SIZE_MAX];
	struct error *error;

	fprintf(out, "strings: %s (%s) in %s of memory\n",
		format_items(result->count, "string", items),
		table_size(style, result->bytes, size[0]),
		table_size(style, result->scan.bytes, size[1]));
	if (!result->groups.size)
		return NULL;
	fputc('\n', out);
	table = records_table(&records, style);
	error = table_print(table, out);
	if (!error && result->left_out)
		fprintf(out, "and %" PRIu64 " more\n", result->left_out);
	return error;
}

/* ---- the command ---- */

static struct error *parse(struct output *output)
{
	struct command_context *context = output->context;
	const char *top = command_option(context, "top");
	const char *length = command_option(context, "min-length");
	const char *prefix = command_option(context, "prefix");
	uint64_t top_value = TOP_DEFAULT, length_value = LENGTH_DEFAULT, prefix_value = 0;
	struct error *error = NULL;

	if (top)
		error = parse_u64(top, &top_value);
	if (!error && length)
		error = parse_u64(length, &length_value);
	if (!error && prefix)
		error = parse_u64(prefix, &prefix_value);
	if (error)
		return error;
	if (!length_value || length_value > STRINGS_LENGTH_MAX)
		return error_create(ERROR_USAGE, "--min-length is 1 to %u", STRINGS_LENGTH_MAX);
	if (prefix_value > STRINGS_LENGTH_MAX)
		return error_create(ERROR_USAGE, "--prefix is at most %u", STRINGS_LENGTH_MAX);
	output->request.top = top_value ? top_value : UINT64_MAX;
	output->request.min_length = length_value;
	output->request.prefix = prefix ? prefix_value : STRINGS_PREFIX_AUTO;
	return NULL;
}

static void warn_of_loss(const struct strings_result *result)
{
	const struct string_group_vec *groups = &result->groups;
	uint64_t least = groups->size ? groups->data[groups->size - 1].count : 0;

	if (result->unseen_max && result->unseen_max >= least)
		log_warn("there are more different strings than can be counted: some that are not "
			 "shown may be there up to %" PRIu64 " times",
			 result->unseen_max);
}

static struct error *write_result(struct output *output)
{
	struct command_context *context = output->context;
	const struct strings_result *result = &output->result;
	bool varies = false;
	struct error *error;

	if (!result->scan.bytes && result->scan.missing_bytes)
		return error_create(ERROR_FAILED, "cannot read any of 0x%" PRIx64 "-0x%" PRIx64,
				    output->request.ranges->data[0].start,
				    output->request.ranges->data[0].end);
	command_note_scan(context, &result->scan);
	warn_of_loss(result);
	if (context->json)
		return write_json(output);
	error = command_print(context, print_result, output);
	vec_for_each (group, &result->groups)
		varies = varies || group->varies;
	if (!error && varies && !command_option(context, "prefix"))
		command_hint(context,
			     "--prefix 0 counts whole strings (`#` is a number that differs, "
			     "`...` the rest where it differs)");
	return error;
}

static struct error *run(struct command_context *context)
{
	struct mapping_vec maps = { 0 };
	struct range_vec ranges = { 0 };
	struct output output = {
		.context = context,
		.request = {
			.target = context->target,
			.maps = &maps,
			.ranges = &ranges,
			.interrupted = command_interrupted,
		},
	};
	struct error *error = parse(&output);

	if (!error)
		error = target_read_maps(context->target, MAPS_PLAIN, &maps);
	if (!error)
		error = command_parse_where(context, command_option(context, "in"), &maps, &ranges);
	if (!error)
		error = strings_run(&output.request, &output.result);
	if (!error)
		error = write_result(&output);
	strings_result_deinit(&output.result);
	range_vec_deinit(&ranges);
	mappings_deinit(&maps);
	return error;
}

const struct command cmd_strings = {
	.name = "strings",
	.arguments = "",
	.summary = "the printable strings that repeat most in memory",
	.target = TARGET_ANY,
	.options = options,
	.run = run,
};
