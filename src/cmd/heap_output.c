#include "heap_output.h"

#include <inttypes.h>
#include <string.h>

#include "group_profile.h"
#include "memprobe/num.h"
#include "memprobe/records.h"

static const char *by_name(enum census_by by)
{
	static const char *const names[] = { "size", "type", "content" };

	return names[by];
}

/* ---- the groups ---- */

enum { PART_TYPE = 1, PART_CONTENT = 2, PART_SIZE = 4 };

/* A group, or what is in none of those that are shown. */
struct heap_row {
	const char *key, *type;
	uint64_t size, count, bytes, example; /* JSON_UNKNOWN: of different ones */
	uint64_t whole;
	const char *name; /* in the table */
};

static void share_cell(struct table *table, const void *data)
{
	const struct heap_row *row = data;

	table_cell(table, "%.1f%%",
		   row->whole ? 100.0 * (double)row->bytes / (double)row->whole : 0.0);
}

static const struct record_column columns[] = {
	RECORD(heap_row, key, "key", NULL, RECORD_TEXT),
	RECORD(heap_row, count, NULL, "COUNT", RECORD_NUMBER),
	RECORD(heap_row, bytes, NULL, "BYTES", RECORD_SIZE),
	{ .heading = "SHARE", .kind = RECORD_OTHER, .cell = share_cell, .right = true, .rank = 1 },
	RECORD(heap_row, size, "size", "SIZE", RECORD_SIZE),
	RECORD(heap_row, type, "type", NULL, RECORD_TEXT),
	RECORD(heap_row, count, "count", NULL, RECORD_NUMBER),
	RECORD(heap_row, bytes, "bytes", NULL, RECORD_SIZE),
	RECORD(heap_row, example, "example", "EXAMPLE", RECORD_ADDRESS),
	RECORD(heap_row, name, NULL, "TYPE", RECORD_TEXT, .part = PART_TYPE),
	RECORD(heap_row, name, NULL, "BEGINS WITH", RECORD_TEXT, .part = PART_CONTENT),
	RECORD(heap_row, name, NULL, "", RECORD_TEXT, .part = PART_SIZE),
	{ 0 },
};

struct source {
	const struct heap_report *report;
	struct heap_row row;
};

static const void *group_row(void *data, size_t i)
{
	struct source *source = data;
	const struct census_group *group = &source->report->census.groups.data[i];

	source->row = (struct heap_row){
		.key = group->key,
		.type = group->type ? group->type->name : NULL,
		.size = group->size ? group->size : JSON_UNKNOWN,
		.count = group->count,
		.bytes = group->bytes,
		.example = group->example,
		.whole = source->report->census.bytes,
		.name = group->key,
	};
	if (source->report->by == CENSUS_BY_TYPE && !group->type)
		source->row.name = "(untyped)";
	if (source->report->by == CENSUS_BY_SIZE)
		source->row.name = "";
	return &source->row;
}

static struct records records_of(struct source *source)
{
	static const unsigned parts[] = { PART_SIZE, PART_TYPE, PART_CONTENT };

	return (struct records){
		.columns = columns,
		.without = (PART_SIZE | PART_TYPE | PART_CONTENT) & ~parts[source->report->by],
		.count = source->report->census.groups.size,
		.row = group_row,
		.data = source,
	};
}

/* ---- JSON ---- */

struct pair {
	uint64_t count, bytes;
};

static json_t *json_pair(uint64_t count, uint64_t bytes)
{
	static const struct record_column pair_columns[] = {
		RECORD(pair, count, "count", NULL, RECORD_NUMBER),
		RECORD(pair, bytes, "bytes", NULL, RECORD_SIZE),
		{ 0 },
	};
	const struct pair pair = { count, bytes };

	return records_json(pair_columns, &pair);
}

static const struct record_column figure_columns[] = {
	RECORD(heap_figures, system, "system", NULL, RECORD_SIZE),
	RECORD(heap_figures, in_use, "in_use", NULL, RECORD_SIZE),
	RECORD(heap_figures, in_use_chunks, "in_use_chunks", NULL, RECORD_NUMBER),
	RECORD(heap_figures, tcache, "tcache", NULL, RECORD_SIZE),
	RECORD(heap_figures, tcache_chunks, "tcache_chunks", NULL, RECORD_NUMBER),
	RECORD(heap_figures, free, "free", NULL, RECORD_SIZE),
	{ 0 },
};

static json_t *json_totals(const struct heap_report *report)
{
	json_t *totals = json_pair(report->census.count, report->census.bytes);

	if (!totals || !records_set(totals, figure_columns, 0, &report->stats.totals))
		return NULL;
	json_object_set_new(totals, "own", json_pair(report->own_count, report->own_bytes));
	json_object_set_new(totals, "mmapped",
			    json_pair(report->stats.mmapped_count, report->stats.mmapped_bytes));
	return totals;
}

static json_t *json_report(struct command_context *context, const struct heap_report *report)
{
	const struct census *census = &report->census;
	struct source source = { report, { 0 } };
	const struct records records = records_of(&source);
	json_t *document = command_json(context);

	json_object_set_new(document, "by", json_string(by_name(report->by)));
	json_object_set_new(document, "groups", records_array(&records));
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

/* What is in no group that is shown. */
static void add_rest(struct table *table, const struct records *records, uint64_t count,
		     uint64_t bytes, const char *what)
{
	const struct source *source = records->data;
	const struct heap_row row = {
		.size = JSON_UNKNOWN,
		.count = count,
		.bytes = bytes,
		.example = JSON_UNKNOWN,
		.whole = source->report->census.bytes,
		.name = what,
	};

	if (count)
		records_row(table, records->columns, records->without, &row);
}

static void add_rests(struct table *table, const struct records *records,
		      const struct census *census)
{
	uint64_t count = census->count - census->single_count - census->unread_count;
	uint64_t bytes = census->bytes - census->single_bytes - census->unread_bytes;
	char what[64];

	vec_for_each (group, &census->groups) {
		count -= group->count;
		bytes -= group->bytes;
	}
	snprintf(what, sizeof(what), "(%" PRIu64 " more groups)",
		 census->group_count - census->groups.size);
	if (census->group_count > census->groups.size)
		add_rest(table, records, count, bytes, what);
	add_rest(table, records, census->single_count, census->single_bytes,
		 census->missed_max ? "(alone, or few alike)" : "(alone of its kind)");
	add_rest(table, records, census->unread_count, census->unread_bytes, "(not readable)");
}

static struct error *print_report(FILE *out, void *data)
{
	const struct output *output = data;
	const struct census *census = &output->report->census;
	struct table_style style = command_style(output->context);
	struct source source = { output->report, { 0 } };
	const struct records records = records_of(&source);
	cleanup(table) struct table *table = NULL;
	char items[ITEMS_TEXT_MAX], size[TABLE_SIZE_MAX];

	fprintf(out, "heap: %s (%s) in use, by %s\n", format_items(census->count, "block", items),
		table_size(style, census->bytes, size), by_name(output->report->by));
	heap_coverage_print(out, style, &output->report->coverage);
	if (!census->count)
		return NULL;
	fputc('\n', out);
	table = records_table(&records, style);
	add_rests(table, &records, census);
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
