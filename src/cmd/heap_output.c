#include "heap_output.h"

#include <inttypes.h>
#include <string.h>

#include "group_profile.h"
#include "memprobe/num.h"
#include "memprobe/table.h"

static const char *by_name(enum census_by by)
{
	static const char *const names[] = { "size", "type", "content" };

	return names[by];
}

/* ---- JSON ---- */

static json_t *json_group(const struct census_group *group)
{
	json_t *object = json_object();

	json_object_set_new(object, "key", json_text(group->key));
	json_object_set_new(object, "size", group->size ? json_number(group->size) : json_null());
	json_object_set_new(object, "type",
			    group->type ? json_text(group->type->name) : json_null());
	json_object_set_new(object, "count", json_number(group->count));
	json_object_set_new(object, "bytes", json_number(group->bytes));
	json_object_set_new(object, "example", json_address(group->example));
	return object;
}

static json_t *json_pair(uint64_t count, uint64_t bytes)
{
	json_t *object = json_object();

	json_object_set_new(object, "count", json_number(count));
	json_object_set_new(object, "bytes", json_number(bytes));
	return object;
}

static json_t *json_totals(const struct heap_report *report)
{
	const struct heap_figures *figures = &report->stats.totals;
	json_t *totals = json_pair(report->census.count, report->census.bytes);

	json_object_set_new(totals, "system", json_number(figures->system));
	json_object_set_new(totals, "in_use", json_number(figures->in_use));
	json_object_set_new(totals, "in_use_chunks", json_number(figures->in_use_chunks));
	json_object_set_new(totals, "tcache", json_number(figures->tcache));
	json_object_set_new(totals, "tcache_chunks", json_number(figures->tcache_chunks));
	json_object_set_new(totals, "free", json_number(figures->free));
	json_object_set_new(totals, "own", json_pair(report->own_count, report->own_bytes));
	json_object_set_new(totals, "mmapped",
			    json_pair(report->stats.mmapped_count, report->stats.mmapped_bytes));
	return totals;
}

static json_t *json_report(struct command_context *context, const struct heap_report *report)
{
	const struct census *census = &report->census;
	json_t *document = command_json(context), *groups = json_array();

	vec_for_each (group, &census->groups)
		json_array_append_new(groups, json_group(group));
	json_object_set_new(document, "by", json_string(by_name(report->by)));
	json_object_set_new(document, "groups", groups);
	json_object_set_new(document, "groups_left_out",
			    json_number(census->group_count - census->groups.size));
	if (report->by == CENSUS_BY_CONTENT) {
		json_object_set_new(document, "single",
				    json_pair(census->single_count, census->single_bytes));
		json_object_set_new(document, "missed_max", json_number(census->missed_max));
	}
	json_object_set_new(document, "unread",
			    json_pair(census->unread_count, census->unread_bytes));
	json_object_set_new(document, "totals", json_totals(report));
	json_object_set_new(document, "coverage", heap_coverage_json(&report->coverage));
	return document;
}

/* ---- the table ---- */

struct output {
	const struct command_context *context;
	const struct heap_report *report;
};

static void add_share(struct table *table, uint64_t part, uint64_t whole)
{
	table_cell(table, "%.1f%%", whole ? 100.0 * part / whole : 0.0);
}

/* The names of some templates fill screens; the JSON has them whole. */
#define KEY_WIDTH 100

static void add_row(struct table *table, enum census_by by, const struct census_group *group,
		    uint64_t whole)
{
	table_cell(table, "%" PRIu64, group->count);
	table_cell_size(table, group->bytes);
	add_share(table, group->bytes, whole);
	if (group->size)
		table_cell(table, "%" PRIu64, group->size);
	else
		table_cell_text(table, "-");
	table_cell(table, "0x%" PRIx64, group->example);
	if (by == CENSUS_BY_TYPE && strlen(group->key) > KEY_WIDTH)
		table_cell(table, "%.*s...", KEY_WIDTH, group->key);
	else if (by == CENSUS_BY_TYPE)
		table_cell_text(table, group->type ? group->key : "(untyped)");
	else if (by == CENSUS_BY_CONTENT)
		table_cell_text(table, group->key);
}

/* What is in no group that is shown. */
static void add_rest(struct table *table, enum census_by by, uint64_t count, uint64_t bytes,
		     uint64_t whole, const char *what)
{
	table_cell(table, "%" PRIu64, count);
	table_cell_size(table, bytes);
	add_share(table, bytes, whole);
	table_cell_text(table, "-");
	table_cell_text(table, by == CENSUS_BY_SIZE ? what : "-");
	if (by != CENSUS_BY_SIZE)
		table_cell_text(table, what);
}

static void add_rests(struct table *table, const struct heap_report *report)
{
	const struct census *census = &report->census;
	uint64_t count = census->count - census->single_count - census->unread_count;
	uint64_t bytes = census->bytes - census->single_bytes - census->unread_bytes;

	vec_for_each (group, &census->groups) {
		count -= group->count;
		bytes -= group->bytes;
	}
	if (census->group_count > census->groups.size) {
		char what[64];

		snprintf(what, sizeof(what), "(%" PRIu64 " more groups)",
			 census->group_count - census->groups.size);
		add_rest(table, report->by, count, bytes, census->bytes, what);
	}
	if (census->single_count)
		add_rest(table, report->by, census->single_count, census->single_bytes,
			 census->bytes,
			 census->missed_max ? "(alone, or few alike)" : "(alone of its kind)");
	if (census->unread_count)
		add_rest(table, report->by, census->unread_count, census->unread_bytes,
			 census->bytes, "(not readable)");
}

static struct error *print_report(FILE *out, void *data)
{
	const struct output *output = data;
	const struct heap_report *report = output->report;
	const struct census *census = &report->census;
	cleanup(table) struct table *table = table_create(command_style(output->context));
	char text[SIZE_TEXT_MAX];

	if (!table)
		return &error_no_memory;
	fprintf(out, "%" PRIu64 " block%s in use, %s, by %s\n", census->count,
		census->count == 1 ? "" : "s", format_size(census->bytes, text),
		by_name(report->by));
	heap_coverage_print(out, &report->coverage);
	if (!census->count)
		return NULL;
	fputc('\n', out);
	table_column(table, "COUNT", TABLE_RIGHT);
	table_column(table, "BYTES", TABLE_RIGHT);
	table_column(table, "SHARE", TABLE_RIGHT);
	table_column(table, "SIZE", TABLE_RIGHT);
	table_column(table, "EXAMPLE", TABLE_LEFT);
	if (report->by == CENSUS_BY_TYPE)
		table_column(table, "TYPE", TABLE_LEFT);
	if (report->by == CENSUS_BY_CONTENT)
		table_column(table, "BEGINS WITH", TABLE_LEFT);
	vec_for_each (group, &census->groups)
		add_row(table, report->by, group, census->bytes);
	add_rests(table, report);
	return table_print(table, out);
}

/* ---- as stacks ---- */

static struct error *add_group(struct profile *profile, enum census_by by,
			       const struct census_group *group)
{
	const char *type = group->type ? group->type->name : NULL, *names[2];
	char size[GROUP_SIZE_MAX];
	size_t depth = 0;

	/* By content, a key begins with the type. */
	if (type)
		names[depth++] = type;
	else if (by == CENSUS_BY_TYPE)
		names[depth++] = "(untyped)";
	if (by == CENSUS_BY_CONTENT)
		names[depth++] = group->key + (type ? strlen(type) + 1 : 0);
	else if (!type)
		names[depth++] = group_profile_size(group->size, size);
	return group_profile_add(profile, names, depth, group->count, group->bytes);
}

/* Sums are those of the totals. */
static struct error *write_stacks(struct command_context *context, const struct heap_report *report,
				  struct profile_output output)
{
	const struct census *census = &report->census;
	cleanup(profile) struct profile *profile = NULL;
	struct error *error = group_profile_create(context, &profile);
	char subtitle[64];

	vec_for_each (group, &census->groups)
		if (!error)
			error = add_group(profile, report->by, group);
	if (!error)
		error = group_profile_add(profile, (const char *[]){ "(alone of its kind)" }, 1,
					  census->single_count, census->single_bytes);
	if (!error)
		error = group_profile_add(profile, (const char *[]){ "(not readable)" }, 1,
					  census->unread_count, census->unread_bytes);
	if (error)
		return error;
	snprintf(subtitle, sizeof(subtitle), "blocks in use, by %s", by_name(report->by));
	output.options.subtitle = subtitle;
	return group_profile_write(context, &output, profile);
}

struct error *heap_report_write(struct command_context *context, const struct heap_report *report,
				const struct profile_output *profile_output)
{
	struct output output = { context, report };

	if (profile_output->format)
		return write_stacks(context, report, *profile_output);
	if (context->json)
		return command_write_json(context, json_report(context, report));
	return command_print(context, print_report, &output);
}
