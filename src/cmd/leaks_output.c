#include "leaks_output.h"

#include <inttypes.h>
#include <string.h>

#include "group_profile.h"
#include "memprobe/content.h"
#include "memprobe/map64.h"
#include "memprobe/num.h"
#include "memprobe/sparse_read.h"
#include "memprobe/table.h"

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

/* ---- JSON ---- */

static json_t *json_group(const struct leak_group *group)
{
	json_t *object = json_object(), *examples = json_array();

	for (unsigned i = 0; i < group->example_count; i++)
		json_array_append_new(examples, json_address(group->examples[i]));
	json_object_set_new(object, "type", group->type ? json_text(group->type) : json_null());
	json_object_set_new(object, "size", json_number(group->size));
	json_object_set_new(object, "count", json_number(group->count));
	json_object_set_new(object, "bytes", json_number(group->bytes));
	json_object_set_new(object, "indirect_count", json_number(group->indirect_count));
	json_object_set_new(object, "indirect_bytes", json_number(group->indirect_bytes));
	json_object_set_new(object, "cyclic", json_number(group->cyclic));
	json_object_set_new(object, "examples", examples);
	json_object_set_new(object, "preview", json_text(group->preview));
	return object;
}

static json_t *json_report(struct command_context *context, const struct leak_report *report,
			   const struct heap_coverage *coverage, uint64_t shown)
{
	json_t *document = command_json(context), *leaks = json_array(), *totals = json_object();

	for (size_t i = 0; i < shown; i++)
		json_array_append_new(leaks, json_group(&report->groups.data[i]));
	json_object_set_new(document, "leaks", leaks);
	json_object_set_new(document, "groups_left_out", json_number(report->groups.size - shown));
	json_object_set_new(totals, "leaked_count", json_number(report->leaked_count));
	json_object_set_new(totals, "leaked_bytes", json_number(report->leaked_bytes));
	json_object_set_new(totals, "suppressed_count", json_number(report->suppressed_count));
	json_object_set_new(totals, "suppressed_bytes", json_number(report->suppressed_bytes));
	json_object_set_new(totals, "live_count", json_number(report->live_count));
	json_object_set_new(totals, "live_bytes", json_number(report->live_bytes));
	json_object_set_new(document, "totals", totals);
	json_object_set_new(document, "coverage", heap_coverage_json(coverage));
	return document;
}

/* ---- the table ---- */

struct output {
	const struct command_context *context;
	const struct leak_report *report;
	uint64_t shown;
	const struct heap_coverage *coverage;
};

static struct error *print_groups(FILE *out, const struct output *output)
{
	cleanup(table) struct table *table = table_create(command_style(output->context));

	if (!table)
		return &error_no_memory;
	table_column(table, "COUNT", TABLE_RIGHT);
	table_column(table, "SIZE", TABLE_RIGHT);
	table_column(table, "BYTES", TABLE_RIGHT);
	table_column(table, "INDIRECT", TABLE_RIGHT);
	table_column(table, "EXAMPLE", TABLE_LEFT);
	table_column(table, "TYPE", TABLE_LEFT);
	table_column(table, "PREVIEW", TABLE_LEFT);
	for (size_t i = 0; i < output->shown; i++) {
		const struct leak_group *group = &output->report->groups.data[i];

		table_cell(table, "%" PRIu64, group->count);
		table_cell(table, "%" PRIu64, group->size);
		table_cell_size(table, group->bytes);
		table_cell_size(table, group->indirect_bytes);
		table_cell(table, "0x%" PRIx64, group->examples[0]);
		table_cell_text(table, group->type ? group->type : group->cyclic ? "(cycle)" : "-");
		table_cell_text(table, group->preview);
	}
	return table_print(table, out);
}

static struct error *print_report(FILE *out, void *data)
{
	const struct output *output = data;
	const struct leak_report *report = output->report;
	char text[2][SIZE_TEXT_MAX];
	struct error *error;

	fprintf(out, "%" PRIu64 " block%s leaked, %s; %" PRIu64 " in use, %s\n",
		report->leaked_count, report->leaked_count == 1 ? "" : "s",
		format_size(report->leaked_bytes, text[0]), report->live_count,
		format_size(report->live_bytes, text[1]));
	if (report->suppressed_count)
		fprintf(out, "%" PRIu64 " more leaked, %s, suppressed\n", report->suppressed_count,
			format_size(report->suppressed_bytes, text[0]));
	heap_coverage_print(out, output->coverage);
	if (!report->groups.size)
		return NULL;
	fputc('\n', out);
	error = print_groups(out, output);
	if (!error && output->shown < report->groups.size)
		fprintf(out, "and %zu more groups\n",
			(size_t)(report->groups.size - output->shown));
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
	output.options.subtitle = "blocks that nothing points to any more";
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
		return command_write_json(context, json_report(context, report, coverage, shown));
	error = command_print(context, print_report, &output);
	if (!error && report->groups.size)
		command_hint(context,
			     "INDIRECT is what only leaked blocks point to; `memprobe leaks %s "
			     "--retain ADDR` shows who points to a block",
			     context->target_text);
	return error;
}
