#include "memprobe/maps_view.h"

#include "memprobe/cmd.h"
#include "memprobe/num.h"
#include "memprobe/table.h"

/* ---- tables ---- */

static void usage_columns(struct table *table, bool usage)
{
	table_column(table, "SIZE", TABLE_RIGHT);
	if (!usage)
		return;
	table_column(table, "RSS", TABLE_RIGHT);
	table_column(table, "PSS", TABLE_RIGHT);
	table_column(table, "DIRTY", TABLE_RIGHT);
	table_column(table, "SWAP", TABLE_RIGHT);
	table_column(table, "HUGE", TABLE_RIGHT);
}

static void usage_cells(struct table *table, const struct map_sum *sum, bool usage)
{
	table_cell_size(table, sum->size);
	if (!usage)
		return;
	table_cell_size(table, sum->rss);
	table_cell_size(table, sum->pss);
	table_cell_size(table, sum->private_dirty);
	table_cell_size(table, sum->swap);
	table_cell_size(table, sum->huge);
}

static void name_cell(struct table *table, const struct mapping *mapping)
{
	const char *separator = mapping->path[0] && mapping->label ? "  " : "";
	const char *label = mapping->label ? mapping->label : "";

	if (mapping->tid && mapping->thread && mapping->type == MAPPING_ARENA)
		table_cell(table, "%s%s%s of %s (tid %d)", mapping->path, separator, label,
			   mapping->thread, (int)mapping->tid);
	else if (mapping->tid)
		table_cell(table, "%s%s%s (tid %d)", mapping->path, separator, label,
			   (int)mapping->tid);
	else
		table_cell(table, "%s%s%s%s", mapping->path, mapping->deleted ? " (deleted)" : "",
			   separator, label);
}

static struct map_sum sum_of(const struct mapping *mapping)
{
	const struct mapping_usage *usage = &mapping->usage;

	return (struct map_sum){
		.count = 1,
		.size = mapping->end - mapping->start,
		.rss = usage->rss,
		.pss = usage->pss,
		.private_dirty = usage->private_dirty,
		.swap = usage->swap,
		.huge = usage->huge,
	};
}

struct error *maps_view_mappings(const struct maps_view *view, const struct mapping_vec *maps,
				 const struct mapping *const *order)
{
	cleanup(table) struct table *table = table_create(view->style);
	struct map_sum total = maps_total(maps);

	table_column(table, "START", TABLE_RIGHT);
	table_column(table, "END", TABLE_RIGHT);
	table_column(table, "PERM", TABLE_LEFT);
	usage_columns(table, view->usage);
	table_column(table, "TYPE", TABLE_LEFT);
	table_column(table, "NAME", TABLE_LEFT);
	for (size_t i = 0; i < maps->size; i++) {
		const struct mapping *mapping = order[i];
		struct map_sum sum = sum_of(mapping);
		char perms[5];

		mapping_perms_text(mapping->perms, perms);
		table_cell_hex(table, mapping->start);
		table_cell_hex(table, mapping->end);
		table_cell_text(table, perms);
		usage_cells(table, &sum, view->usage);
		table_cell_text(table, mapping_type_name(mapping->type));
		if (mapping->label || mapping->deleted || mapping->tid)
			name_cell(table, mapping);
		else
			table_cell_text(table, mapping->path);
	}
	table_rule(table);
	table_cell_text(table, "total");
	table_cell_text(table, "");
	table_cell_text(table, "");
	usage_cells(table, &total, view->usage);
	table_cell_text(table, "");
	table_cell(table, "%zu mapping%s", maps->size, maps->size == 1 ? "" : "s");
	return table_print(table, view->out);
}

struct error *maps_view_groups(const struct maps_view *view, const char *heading,
			       const struct map_group_vec *groups, const struct map_sum *total)
{
	cleanup(table) struct table *table = table_create(view->style);

	table_column(table, heading, TABLE_LEFT);
	table_column(table, "COUNT", TABLE_RIGHT);
	usage_columns(table, view->usage);
	vec_for_each (group, groups) {
		table_cell_text(table, group->key);
		table_cell(table, "%zu", group->sum.count);
		usage_cells(table, &group->sum, view->usage);
	}
	table_rule(table);
	table_cell_text(table, "total");
	table_cell(table, "%zu", total->count);
	usage_cells(table, total, view->usage);
	return table_print(table, view->out);
}

struct error *maps_view_sizes(const struct maps_view *view, const struct map_group_vec *groups,
			      size_t most)
{
	cleanup(table) struct table *table = table_create(view->style);
	size_t shown = 0;

	table_column(table, "COUNT", TABLE_RIGHT);
	table_column(table, "EACH", TABLE_RIGHT);
	usage_columns(table, view->usage);
	table_column(table, "TYPE", TABLE_LEFT);
	vec_for_each (group, groups) {
		if (group->sum.count < 2 || shown++ >= most)
			continue;
		table_cell(table, "%zu x", group->sum.count);
		table_cell_size(table, group->each);
		usage_cells(table, &group->sum, view->usage);
		table_cell_text(table, mapping_type_name(group->type));
	}
	return shown ? table_print(table, view->out) : NULL;
}

static void delta_cell(struct table *table, int64_t delta)
{
	char text[SIZE_TEXT_MAX];

	if (delta)
		table_cell(table, "%c%s", delta < 0 ? '-' : '+',
			   format_size(delta < 0 ? -(uint64_t)delta : (uint64_t)delta, text));
	else
		table_cell_text(table, "0");
}

static void delta_cells(struct table *table, const struct map_change *change, bool usage)
{
	delta_cell(table, change->size);
	if (!usage)
		return;
	delta_cell(table, change->rss);
	delta_cell(table, change->private_dirty);
	delta_cell(table, change->swap);
}

struct error *maps_view_changes(const struct maps_view *view, const struct map_change_vec *changes,
				size_t most)
{
	cleanup(table) struct table *table = table_create(view->style);
	struct map_change total = { 0 };
	size_t row = 0;

	table_column(table, "START", TABLE_RIGHT);
	table_column(table, "CHANGE", TABLE_LEFT);
	table_column(table, "SIZE", TABLE_RIGHT);
	if (view->usage) {
		table_column(table, "RSS", TABLE_RIGHT);
		table_column(table, "DIRTY", TABLE_RIGHT);
		table_column(table, "SWAP", TABLE_RIGHT);
	}
	table_column(table, "TYPE", TABLE_LEFT);
	table_column(table, "NAME", TABLE_LEFT);
	vec_for_each (change, changes) {
		total.size += change->size;
		total.rss += change->rss;
		total.private_dirty += change->private_dirty;
		total.swap += change->swap;
		if (row++ >= most)
			continue;
		table_cell_hex(table, change->mapping->start);
		table_cell_text(table, map_change_name(change->kind));
		delta_cells(table, change, view->usage);
		table_cell_text(table, mapping_type_name(change->mapping->type));
		name_cell(table, change->mapping);
	}
	table_rule(table);
	table_cell_text(table, "total");
	table_cell_text(table, "");
	delta_cells(table, &total, view->usage);
	table_cell_text(table, "");
	table_cell(table, "%zu mapping%s%s", changes->size, changes->size == 1 ? "" : "s",
		   changes->size > most ? ", not all shown" : "");
	return table_print(table, view->out);
}

/* ---- JSON ---- */

static json_t *bytes_or_null(uint64_t bytes, bool known)
{
	return known ? json_integer((json_int_t)bytes) : json_null();
}

static void set_usage(json_t *object, const struct map_sum *sum, bool known)
{
	json_object_set_new(object, "size", json_integer((json_int_t)sum->size));
	json_object_set_new(object, "rss", bytes_or_null(sum->rss, known));
	json_object_set_new(object, "pss", bytes_or_null(sum->pss, known));
	json_object_set_new(object, "private_dirty", bytes_or_null(sum->private_dirty, known));
	json_object_set_new(object, "swap", bytes_or_null(sum->swap, known));
	json_object_set_new(object, "huge", bytes_or_null(sum->huge, known));
}

static void set_identity(json_t *object, const struct mapping *mapping)
{
	char perms[5];

	mapping_perms_text(mapping->perms, perms);
	json_object_set_new(object, "start", json_address(mapping->start));
	json_object_set_new(object, "end", json_address(mapping->end));
	json_object_set_new(object, "perms", json_string(perms));
	json_object_set_new(object, "path", json_text(mapping->path));
	json_object_set_new(object, "type", json_string(mapping_type_name(mapping->type)));
	json_object_set_new(object, "label",
			    mapping->label ? json_text(mapping->label) : json_null());
	if (mapping->tid)
		json_object_set_new(object, "tid", json_integer(mapping->tid));
	if (mapping->thread)
		json_object_set_new(object, "thread", json_text(mapping->thread));
}

json_t *maps_json_mappings(const struct mapping_vec *maps, const struct mapping *const *order,
			   bool usage)
{
	json_t *array = json_array();

	for (size_t i = 0; i < maps->size; i++) {
		json_t *object = json_object();
		struct map_sum sum = sum_of(order[i]);

		set_identity(object, order[i]);
		set_usage(object, &sum, usage);
		json_array_append_new(array, object);
	}
	return array;
}

json_t *maps_json_groups(const struct map_group_vec *groups, const char *key, bool usage)
{
	json_t *array = json_array();

	vec_for_each (group, groups) {
		json_t *object = json_object();

		json_object_set_new(object, key, json_text(group->key));
		if (group->each) {
			json_object_set_new(object, key,
					    json_string(mapping_type_name(group->type)));
			json_object_set_new(object, "each", json_integer((json_int_t)group->each));
		}
		json_object_set_new(object, "count", json_integer((json_int_t)group->sum.count));
		set_usage(object, &group->sum, usage);
		json_array_append_new(array, object);
	}
	return array;
}

json_t *maps_json_sum(const struct map_sum *sum, bool usage)
{
	json_t *object = json_object();

	json_object_set_new(object, "count", json_integer((json_int_t)sum->count));
	set_usage(object, sum, usage);
	return object;
}

static json_t *delta_or_null(int64_t delta, bool known)
{
	return known ? json_integer(delta) : json_null();
}

json_t *maps_json_changes(const struct map_change_vec *changes, bool usage)
{
	json_t *array = json_array();

	vec_for_each (change, changes) {
		json_t *object = json_object();

		set_identity(object, change->mapping);
		json_object_set_new(object, "change", json_string(map_change_name(change->kind)));
		json_object_set_new(object, "size", json_integer(change->size));
		json_object_set_new(object, "rss", delta_or_null(change->rss, usage));
		json_object_set_new(object, "pss", delta_or_null(change->pss, usage));
		json_object_set_new(object, "private_dirty",
				    delta_or_null(change->private_dirty, usage));
		json_object_set_new(object, "swap", delta_or_null(change->swap, usage));
		json_array_append_new(array, object);
	}
	return array;
}
