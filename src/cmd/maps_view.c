#include "memprobe/maps_view.h"

#include <string.h>

#include "memprobe/num.h"

/* Parts of the columns. */
enum { PART_USAGE = 1, PART_KEY = 2, PART_SIZES = 4 };

/* What is known without usage. */
static struct map_sum known_of(const struct map_sum *sum, bool usage)
{
	struct map_sum known = *sum;

	if (!usage)
		known.rss = known.pss = known.private_dirty = known.swap = known.huge =
			JSON_UNKNOWN;
	return known;
}

/* clang-format off */
#define USAGE_COLUMNS(row) \
	RECORD(row, sum.size, "size", "SIZE", RECORD_SIZE), \
	RECORD(row, sum.rss, "rss", "RSS", RECORD_SIZE, .part = PART_USAGE), \
	RECORD(row, sum.pss, "pss", "PSS", RECORD_SIZE, .part = PART_USAGE, .rank = 2), \
	RECORD(row, sum.private_dirty, "private_dirty", "DIRTY", RECORD_SIZE, .part = PART_USAGE, \
	       .rank = 1), \
	RECORD(row, sum.swap, "swap", "SWAP", RECORD_SIZE, .part = PART_USAGE, .rank = 3), \
	RECORD(row, sum.huge, "huge", "HUGE", RECORD_SIZE, .part = PART_USAGE, .rank = 5)

#define IDENTITY_KEYS(row) \
	RECORD(row, start, "start", NULL, RECORD_HEX), \
	RECORD(row, end, "end", NULL, RECORD_HEX), \
	RECORD(row, perms, "perms", NULL, RECORD_TEXT), \
	RECORD(row, path, "path", NULL, RECORD_TEXT), \
	RECORD(row, type, "type", NULL, RECORD_TEXT), \
	RECORD(row, label, "label", NULL, RECORD_TEXT), \
	RECORD(row, tid, "tid", NULL, RECORD_ID, .optional = true), \
	RECORD(row, thread, "thread", NULL, RECORD_TEXT, .optional = true)
/* clang-format on */

/* ---- mappings ---- */

struct map_row {
	const struct mapping *mapping;
	uint64_t start, end;
	const char *perms, *path, *type, *label, *thread;
	pid_t tid;
	char perms_text[5];
	/* Of one; of a change only what is left of it counts. */
	struct map_sum sum;
	const char *change;
	int64_t size, rss, pss, private_dirty, swap;
};

static void name_cell(struct table *table, const void *data)
{
	const struct map_row *row = data;
	const struct mapping *mapping = row->mapping;
	const char *separator = mapping->path[0] && mapping->label ? "  " : "";
	const char *label = mapping->label ? mapping->label : "";

	if (mapping->tid && mapping->thread && mapping->type == MAPPING_ARENA)
		table_cell(table, "%s%s%s of %s (tid %d)", mapping->path, separator, label,
			   mapping->thread, (int)mapping->tid);
	else if (mapping->tid)
		table_cell(table, "%s%s%s (tid %d)", mapping->path, separator, label,
			   (int)mapping->tid);
	else if (mapping->label || mapping->deleted)
		table_cell(table, "%s%s%s%s", mapping->path, mapping->deleted ? " (deleted)" : "",
			   separator, label);
	else
		table_cell_text(table, mapping->path);
}

static const struct record_column mapping_columns[] = {
	IDENTITY_KEYS(map_row),
	RECORD(map_row, start, NULL, "START", RECORD_HEX),
	RECORD(map_row, end, NULL, "END", RECORD_HEX, .rank = 6),
	RECORD(map_row, perms, NULL, "PERM", RECORD_TEXT, .rank = 4),
	USAGE_COLUMNS(map_row),
	RECORD(map_row, type, NULL, "TYPE", RECORD_TEXT),
	{ .heading = "NAME", .kind = RECORD_OTHER, .cell = name_cell, .fit = TABLE_PATH },
	{ 0 },
};

static void fill_identity(struct map_row *row, const struct mapping *mapping)
{
	*row = (struct map_row){
		.mapping = mapping,
		.start = mapping->start,
		.end = mapping->end,
		.path = mapping->path,
		.type = mapping_type_name(mapping->type),
		.label = mapping->label,
		.thread = mapping->thread,
		.tid = mapping->tid,
	};
	mapping_perms_text(mapping->perms, row->perms_text);
	row->perms = row->perms_text;
}

struct mapping_source {
	const struct mapping *const *order;
	bool usage;
	struct map_row row;
};

static const void *mapping_row(void *data, size_t i)
{
	struct mapping_source *source = data;
	const struct mapping *mapping = source->order[i];
	const struct mapping_usage *usage = &mapping->usage;
	const struct map_sum sum = {
		.count = 1,
		.size = mapping->end - mapping->start,
		.rss = usage->rss,
		.pss = usage->pss,
		.private_dirty = usage->private_dirty,
		.swap = usage->swap,
		.huge = usage->huge,
	};

	fill_identity(&source->row, mapping);
	source->row.sum = known_of(&sum, source->usage);
	return &source->row;
}

struct error *maps_view_mappings(const struct maps_view *view, const struct mapping_vec *maps,
				 const struct mapping *const *order, FILE *out)
{
	struct mapping_source source = { order, view->usage, { 0 } };
	const struct records records = {
		.columns = mapping_columns,
		.without = view->usage ? 0 : PART_USAGE,
		.count = maps->size,
		.row = mapping_row,
		.data = &source,
	};
	const struct map_row total = { .sum = maps_total(maps) };
	cleanup(table) struct table *table = records_table(&records, view->style);

	records_total(table, mapping_columns, records.without, &total);
	return table_print(table, out);
}

json_t *maps_json_mappings(const struct mapping_vec *maps, const struct mapping *const *order,
			   bool usage)
{
	struct mapping_source source = { order, usage, { 0 } };
	const struct records records = {
		.columns = mapping_columns,
		.count = maps->size,
		.row = mapping_row,
		.data = &source,
	};

	return records_array(&records);
}

/* ---- groups ---- */

struct group_row {
	const char *key;
	uint64_t each; /* JSON_UNKNOWN: by other things than size */
	struct map_sum sum;
};

/* The first one's name is of the grouping. */
static const struct record_column group_columns[] = {
	RECORD(group_row, key, "type", "TYPE", RECORD_TEXT, .part = PART_KEY, .fit = TABLE_PATH),
	RECORD(group_row, each, "each", NULL, RECORD_SIZE, .optional = true),
	RECORD(group_row, sum.count, "count", "COUNT", RECORD_NUMBER),
	RECORD(group_row, each, NULL, "EACH", RECORD_SIZE, .part = PART_SIZES),
	USAGE_COLUMNS(group_row),
	RECORD(group_row, key, NULL, "TYPE", RECORD_TEXT, .part = PART_SIZES),
	{ 0 },
};

#define GROUP_COLUMNS (sizeof(group_columns) / sizeof(group_columns[0]))

static void name_groups(struct record_column columns[GROUP_COLUMNS], const char *key,
			const char *heading)
{
	memcpy(columns, group_columns, sizeof(group_columns));
	columns[0].key = key;
	columns[0].heading = heading;
}

struct group_source {
	const struct map_group_vec *groups;
	bool usage;
	struct group_row row;
};

static const void *group_row(void *data, size_t i)
{
	struct group_source *source = data;
	const struct map_group *group = &source->groups->data[i];

	source->row = (struct group_row){
		.key = group->each ? mapping_type_name(group->type) : group->key,
		.each = group->each ? group->each : JSON_UNKNOWN,
		.sum = known_of(&group->sum, source->usage),
	};
	return &source->row;
}

struct error *maps_view_groups(const struct maps_view *view, const char *heading,
			       const struct map_group_vec *groups, const struct map_sum *total,
			       FILE *out)
{
	struct group_source source = { groups, view->usage, { 0 } };
	struct record_column columns[GROUP_COLUMNS];
	const struct records records = {
		.columns = columns,
		.without = PART_SIZES | (view->usage ? 0 : PART_USAGE),
		.count = groups->size,
		.row = group_row,
		.data = &source,
	};
	const struct group_row sum = { .sum = *total };
	cleanup(table) struct table *table = NULL;

	name_groups(columns, heading, heading);
	table = records_table(&records, view->style);
	records_total(table, columns, records.without, &sum);
	return table_print(table, out);
}

struct error *maps_view_sizes(const struct maps_view *view, const struct map_group_vec *groups,
			      size_t most, FILE *out)
{
	struct group_source source = { groups, view->usage, { 0 } };
	unsigned without = PART_KEY | (view->usage ? 0 : PART_USAGE);
	cleanup(table) struct table *table = table_create(view->style);
	size_t shown = 0;

	records_columns(table, group_columns, without);
	for (size_t i = 0; i < groups->size; i++)
		if (groups->data[i].sum.count > 1 && shown++ < most)
			records_row(table, group_columns, without, group_row(&source, i));
	return shown ? table_print(table, out) : NULL;
}

json_t *maps_json_groups(const struct map_group_vec *groups, const char *key, bool usage)
{
	struct group_source source = { groups, usage, { 0 } };
	struct record_column columns[GROUP_COLUMNS];
	const struct records records = {
		.columns = columns,
		.count = groups->size,
		.row = group_row,
		.data = &source,
	};

	name_groups(columns, key, key);
	return records_array(&records);
}

json_t *maps_json_sum(const struct map_sum *sum, bool usage)
{
	const struct group_row row = { .each = JSON_UNKNOWN, .sum = known_of(sum, usage) };
	json_t *object = json_object();

	if (object && records_set(object, group_columns, PART_KEY, &row))
		return object;
	json_decref(object);
	return NULL;
}

/* ---- changes ---- */

static const struct record_column change_columns[] = {
	IDENTITY_KEYS(map_row),
	RECORD(map_row, start, NULL, "START", RECORD_HEX),
	RECORD(map_row, change, "change", "CHANGE", RECORD_TEXT),
	RECORD(map_row, size, "size", "SIZE", RECORD_DELTA),
	RECORD(map_row, rss, "rss", "RSS", RECORD_DELTA, .part = PART_USAGE),
	RECORD(map_row, pss, "pss", NULL, RECORD_DELTA),
	RECORD(map_row, private_dirty, "private_dirty", "DIRTY", RECORD_DELTA, .part = PART_USAGE,
	       .rank = 1),
	RECORD(map_row, swap, "swap", "SWAP", RECORD_DELTA, .part = PART_USAGE, .rank = 2),
	RECORD(map_row, type, NULL, "TYPE", RECORD_TEXT),
	{ .heading = "NAME", .kind = RECORD_OTHER, .cell = name_cell, .fit = TABLE_PATH },
	{ 0 },
};

struct change_source {
	const struct map_change_vec *changes;
	bool usage;
	struct map_row row;
};

static const void *change_row(void *data, size_t i)
{
	struct change_source *source = data;
	const struct map_change *change = &source->changes->data[i];
	struct map_row *row = &source->row;

	fill_identity(row, change->mapping);
	row->change = map_change_name(change->kind);
	row->size = change->size;
	row->rss = source->usage ? change->rss : INT64_MIN;
	row->pss = source->usage ? change->pss : INT64_MIN;
	row->private_dirty = source->usage ? change->private_dirty : INT64_MIN;
	row->swap = source->usage ? change->swap : INT64_MIN;
	return row;
}

struct error *maps_view_changes(const struct maps_view *view, const struct map_change_vec *changes,
				size_t most, FILE *out)
{
	struct change_source source = { changes, view->usage, { 0 } };
	const struct records records = {
		.columns = change_columns,
		.without = view->usage ? 0 : PART_USAGE,
		.count = min_u64(changes->size, most),
		.row = change_row,
		.data = &source,
	};
	struct map_row total = { 0 };
	cleanup(table) struct table *table = records_table(&records, view->style);
	struct error *error;

	vec_for_each (change, changes) {
		total.size += change->size;
		total.rss += change->rss;
		total.private_dirty += change->private_dirty;
		total.swap += change->swap;
	}
	records_total(table, change_columns, records.without, &total);
	error = table_print(table, out);
	if (!error && changes->size > most)
		fprintf(out, "and %zu more\n", changes->size - most);
	return error;
}

json_t *maps_json_changes(const struct map_change_vec *changes, bool usage)
{
	struct change_source source = { changes, usage, { 0 } };
	const struct records records = {
		.columns = change_columns,
		.count = changes->size,
		.row = change_row,
		.data = &source,
	};

	return records_array(&records);
}
