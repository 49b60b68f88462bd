#include "leaks_output.h"

#include <inttypes.h>
#include <string.h>

#include "group_profile.h"
#include "memprobe/content.h"
#include "memprobe/map64.h"
#include "memprobe/num.h"
#include "memprobe/sparse_read.h"
#include "memprobe/records.h"

/* ---- groups ---- */

static int compare_bytes(const void *left, const void *right)
{
	const struct leak_group *a = left, *b = right;
	uint64_t left_bytes = a->bytes + a->indirect_bytes;
	uint64_t right_bytes = b->bytes + b->indirect_bytes;

	if (left_bytes != right_bytes)
		return left_bytes > right_bytes ? -1 : 1;
	return a->examples[0] < b->examples[0] ? -1 : a->examples[0] > b->examples[0];
}

/* ---- how they begin ---- */

#define LOOKS_BYTES (256u << 10)
#define LOOKS_GAP   4096u

/* Leaks mostly lie close together: the beginnings of many are read at once. */
struct looks {
	const struct heap *heap;
	const struct leak_result *result;
	uint8_t *bytes;
	uint64_t start, end; /* what @bytes has */
};

static size_t look_size(const struct leak *leak)
{
	return min_u64(leak->size, LEAK_LOOK);
}

/* The beginning of a leak, look_size() bytes of it. Leaks are asked for in their order. */
static struct error *look_at(struct looks *looks, size_t i, const struct leak *leak,
			     const uint8_t **ret)
{
	const struct leak_result *result = looks->result;
	uint64_t start = leak->address, end = start + look_size(leak);
	struct error *error;

	*ret = looks->bytes + (start - looks->start);
	if (start >= looks->start && end <= looks->end)
		return NULL;
	for (; i + 1 < result->leaks.size; i++) {
		uint64_t next, next_end;
		struct leak other;

		leak_get(looks->heap, result, i + 1, &other);
		next = other.address;
		next_end = next + look_size(&other);
		if (next < end || next - end > LOOKS_GAP || next_end - start > LOOKS_BYTES)
			break;
		end = next_end;
	}
	looks->start = looks->end = 0;
	error = target_read_sparse(looks->heap->target, start, looks->bytes, end - start, NULL);
	if (error)
		return error;
	looks->start = start;
	looks->end = end;
	*ret = looks->bytes;
	return NULL;
}

/* The group of leaks of that type and size; it is made if there is none. */
static struct error *group_of(struct leak_report *report, const struct object_type *type,
			      uint64_t size, struct leak_group **ret)
{
	/* No two pairs have the same key: blocks are smaller than 16 TiB. */
	uint64_t key = size | (type ? type->index + 1ull : 0) << 44, index;
	struct leak_group group = { .type = type ? type->name : NULL, .size = size };
	struct error *error = NULL;

	index = map64_get(&report->keys, key);
	if (index == MAP64_NONE) {
		index = report->groups.size;
		error = leak_group_vec_append(&report->groups, &group);
		if (!error)
			error = map64_put(&report->keys, key, index);
	}
	if (!error)
		*ret = &report->groups.data[index];
	return error;
}

static struct error *add_leak(struct looks *looks, size_t i, const struct leak *leak,
			      struct suppression_vec *known, struct leak_report *ret,
			      bool *suppressed_ret)
{
	const struct object_type *type;
	struct leak_group *group;
	const uint8_t *look;
	struct error *error = look_at(looks, i, leak, &look);

	if (!error)
		error = object_types_of_block(ret->types, leak->address, leak->size, look,
					      look_size(leak), &type);
	if (error)
		return error;
	*suppressed_ret = suppressions_match(known, type ? type->name : NULL, look, look_size(leak),
					     leak->size);
	if (*suppressed_ret)
		return NULL;
	error = group_of(ret, type, leak->size, &group);
	if (error)
		return error;
	group->count++;
	group->bytes += leak->size;
	group->indirect_count += leak->indirect_count;
	group->indirect_bytes += leak->indirect_bytes;
	group->cyclic += leak->cyclic;
	if (group->example_count < LEAK_EXAMPLES)
		group->examples[group->example_count++] = leak->address;
	return NULL;
}

/* ---- a look at the bytes ---- */

#define PREVIEW_BYTES 16u

/* The first text, with its offset, else the first bytes in hexadecimal. */
static void preview(const struct heap *heap, const uint8_t *bytes, size_t size,
		    char text[CONTENT_NAME])
{
	struct content content;
	size_t at = 0;

	content_describe(heap, bytes, size, 0, &content);
	if (content.kind == CONTENT_LINE) {
		content_name(heap, &content, bytes, 0, text);
		return;
	}
	text[0] = '\0';
	for (size_t i = 0; i < size && i < PREVIEW_BYTES; i++)
		at += snprintf(text + at, CONTENT_NAME - at, "%s%02x", i && i % 8 == 0 ? " " : "",
			       bytes[i]);
}

static struct error *read_previews(const struct heap *heap, struct leak_report *report)
{
	vec_for_each (group, &report->groups) {
		uint8_t bytes[CONTENT_PREFIX];
		char text[CONTENT_NAME];
		size_t size = min_u64(group->size, sizeof(bytes));
		struct error *error =
			target_read_sparse(heap->target, group->examples[0], bytes, size, NULL);

		if (error)
			return error;
		preview(heap, bytes, size, text);
		group->preview = strdup(text);
		if (!group->preview)
			return &error_no_memory;
	}
	return NULL;
}

static struct error *add_leaks(struct looks *looks, struct suppression_vec *known,
			       struct leak_report *ret)
{
	for (size_t i = 0; i < looks->result->leaks.size; i++) {
		bool suppressed = false;
		struct leak leak;
		struct error *error;

		leak_get(looks->heap, looks->result, i, &leak);
		if (leak.indirect)
			continue;
		error = add_leak(looks, i, &leak, known, ret, &suppressed);
		if (error)
			return error;
		if (suppressed) {
			/* With all that hangs on it. */
			ret->suppressed_count += 1 + leak.indirect_count;
			ret->suppressed_bytes += leak.size + leak.indirect_bytes;
		}
	}
	return NULL;
}

struct error *leak_report_build(const struct heap *heap, const struct leak_result *result,
				struct suppression_vec *known, struct leak_report *ret)
{
	struct looks looks = { .heap = heap, .result = result };
	struct error *error = object_types_create(heap->target, &ret->types);

	looks.bytes = malloc(LOOKS_BYTES);
	if (!error && !looks.bytes)
		error = &error_no_memory;
	ret->live_count = result->live_count;
	ret->live_bytes = result->live_bytes;
	ret->leaked_count = result->leaked_count;
	ret->leaked_bytes = result->leaked_bytes;
	if (!error)
		error = add_leaks(&looks, known, ret);
	free(looks.bytes);
	if (error)
		return error;
	ret->leaked_count -= ret->suppressed_count;
	ret->leaked_bytes -= ret->suppressed_bytes;
	if (ret->groups.size)
		qsort(ret->groups.data, ret->groups.size, sizeof(*ret->groups.data), compare_bytes);
	return read_previews(heap, ret);
}

void leak_report_deinit(struct leak_report *report)
{
	vec_for_each (group, &report->groups)
		free(group->preview);
	leak_group_vec_deinit(&report->groups);
	map64_deinit(&report->keys);
	object_types_destroy(report->types);
}

/* ---- output ---- */

static json_t *json_examples(const void *data)
{
	const struct leak_group *group = data;
	json_t *examples = json_array();

	for (unsigned i = 0; i < group->example_count; i++)
		json_array_append_new(examples, json_address(group->examples[i]));
	return examples;
}

static void type_cell(struct table *table, const void *data)
{
	const struct leak_group *group = data;

	table_cell_text(table, group->type ? group->type : group->cyclic ? "(cycle)" : "-");
}

static const struct record_column columns[] = {
	RECORD(leak_group, type, "type", NULL, RECORD_TEXT),
	RECORD(leak_group, count, NULL, "COUNT", RECORD_NUMBER),
	RECORD(leak_group, size, "size", "SIZE", RECORD_SIZE),
	RECORD(leak_group, count, "count", NULL, RECORD_NUMBER),
	RECORD(leak_group, bytes, "bytes", "BYTES", RECORD_SIZE),
	RECORD(leak_group, indirect_count, "indirect_count", NULL, RECORD_NUMBER),
	RECORD(leak_group, indirect_bytes, "indirect_bytes", "INDIRECT", RECORD_SIZE, .rank = 1),
	RECORD(leak_group, cyclic, "cyclic", NULL, RECORD_NUMBER),
	RECORD(leak_group, examples, NULL, "EXAMPLE", RECORD_ADDRESS),
	{ .key = "examples", .kind = RECORD_OTHER, .json = json_examples },
	RECORD(leak_group, type, NULL, "TYPE", RECORD_TEXT, .cell = type_cell),
	RECORD(leak_group, preview, "preview", "PREVIEW", RECORD_TEXT),
	{ 0 },
};

static const struct record_column total_columns[] = {
	RECORD(leak_report, leaked_count, "leaked_count", NULL, RECORD_NUMBER),
	RECORD(leak_report, leaked_bytes, "leaked_bytes", NULL, RECORD_SIZE),
	RECORD(leak_report, suppressed_count, "suppressed_count", NULL, RECORD_NUMBER),
	RECORD(leak_report, suppressed_bytes, "suppressed_bytes", NULL, RECORD_SIZE),
	RECORD(leak_report, live_count, "live_count", NULL, RECORD_NUMBER),
	RECORD(leak_report, live_bytes, "live_bytes", NULL, RECORD_SIZE),
	{ 0 },
};

struct output {
	const struct command_context *context;
	const struct leak_report *report;
	uint64_t shown;
	const struct heap_coverage *coverage;
};

static struct records records_of(const struct output *output)
{
	return (struct records){
		.columns = columns,
		.rows = output->report->groups.data,
		.count = output->shown,
		.size = sizeof(*output->report->groups.data),
	};
}

static json_t *json_report(struct command_context *context, const struct output *output)
{
	const struct records records = records_of(output);
	json_t *document = command_json(context);

	json_object_set_new(document, "leaks", records_array(&records));
	json_object_set_new(document, "groups_left_out",
			    json_number(output->report->groups.size - output->shown));
	json_object_set_new(document, "totals", records_json(total_columns, output->report));
	json_object_set_new(document, "coverage", heap_coverage_json(output->coverage));
	return document;
}

static void print_answer(FILE *out, const struct output *output)
{
	const struct leak_report *report = output->report;
	struct table_style style = command_style(output->context);
	char items[ITEMS_TEXT_MAX], live[ITEMS_TEXT_MAX], size[2][TABLE_SIZE_MAX];

	format_items(report->live_count, "block", live);
	table_size(style, report->live_bytes, size[1]);
	if (report->leaked_count)
		fprintf(out, "leaks: %s (%s) %s unreachable; %s (%s) in use\n",
			format_items(report->leaked_count, "block", items),
			table_size(style, report->leaked_bytes, size[0]),
			report->leaked_count == 1 ? "is" : "are", live, size[1]);
	else
		fprintf(out, "no leaks; %s in use (%s)\n", live, size[1]);
	if (report->suppressed_count)
		fprintf(out, "suppressed: %s (%s)\n",
			format_items(report->suppressed_count, "block", items),
			table_size(style, report->suppressed_bytes, size[0]));
}

static struct error *print_report(FILE *out, void *data)
{
	const struct output *output = data;
	const struct records records = records_of(output);
	struct table_style style = command_style(output->context);
	cleanup(table) struct table *table = NULL;
	struct error *error;

	print_answer(out, output);
	heap_coverage_print(out, style, output->coverage);
	if (!output->report->groups.size)
		return NULL;
	fputc('\n', out);
	table = records_table(&records, style);
	error = table_print(table, out);
	if (!error && output->shown < output->report->groups.size)
		fprintf(out, "and %zu more groups\n",
			(size_t)(output->report->groups.size - output->shown));
	return error;
}

/* ---- as stacks ---- */

static struct error *add_group(struct profile *profile, const struct leak_group *group)
{
	char size[GROUP_SIZE_MAX];
	const char *names[3];
	size_t depth = 0;
	struct error *error;

	names[depth++] = group->type ? group->type : "(untyped)";
	if (!group->type)
		names[depth++] = group_profile_size(group->size, size);
	error = group_profile_add(profile, names, depth, group->count, group->bytes);
	names[depth++] = "(indirect)";
	return error ? error
		     : group_profile_add(profile, names, depth, group->indirect_count,
					 group->indirect_bytes);
}

/* What hangs on leaked blocks is a part of them: the sum is all that leaked. */
static struct error *write_stacks(struct command_context *context, const struct leak_report *report,
				  struct profile_output output)
{
	cleanup(profile) struct profile *profile = NULL;
	struct error *error = group_profile_create(context, &profile);

	vec_for_each (group, &report->groups)
		if (!error)
			error = add_group(profile, group);
	if (error)
		return error;
	output.options.subtitle = "unreachable blocks";
	return group_profile_write(context, &output, profile);
}

struct error *leak_report_write(struct command_context *context, const struct leak_report *report,
				const struct heap_coverage *coverage,
				const struct profile_output *profile_output)
{
	bool limited = profile_output->top && (!context->json || command_option(context, "top"));
	uint64_t shown =
		limited ? min_u64(profile_output->top, report->groups.size) : report->groups.size;
	struct output output = { context, report, shown, coverage };
	struct error *error;

	if (profile_output->format)
		return write_stacks(context, report, *profile_output);
	if (context->json)
		return command_write_json(context, json_report(context, &output));
	error = command_print(context, print_report, &output);
	if (!error && report->groups.size)
		command_hint(context,
			     "`memprobe leaks %s --retain EXAMPLE` shows what points to a block",
			     context->target_text);
	return error;
}
