#include "diff_rows.h"

#include <stdlib.h>
#include <string.h>

#include "memprobe/hash_index.h"
#include "profile_input.h"

#define KEY_PARTS 3

/* Which list of a command's JSON has the rows, what names one, and what is compared. */
static const struct comparison {
	const char *command, *list;
	const char *key[KEY_PARTS]; /* joined by a blank; what is null or missing is left out */
	const char *prefix;
	const char *value;
} comparisons[] = {
	{ "maps", "mappings", { "start", "type", "path" }, "", "rss" },
	{ "mallinfo", "arenas", { "address" }, "arena ", "in_use" },
	{ "heap", "groups", { "key", "size" }, "", "bytes" },
	{ "leaks", "leaks", { "type", "size", "preview" }, "", "bytes" },
};

/* ---- rows ---- */

struct building {
	struct diff_rows *rows;
	struct hash_index index;
};

struct search {
	const struct diff_rows *rows;
	const char *key;
};

static bool is_row(const void *context, uint32_t id)
{
	const struct search *search = context;

	return !strcmp(search->rows->rows.data[id].key, search->key);
}

static struct error *add(struct building *building, const char *key, int64_t value, bool is_new)
{
	const struct search search = { building->rows, key };
	uint32_t hash = hash_fold(hash_bytes(HASH_SEED, key, strlen(key)));
	uint32_t id = hash_index_find(&building->index, hash, is_row, &search);
	struct diff_row_vec *rows = &building->rows->rows;
	struct error *error;

	if (id == HASH_INDEX_NONE) {
		struct diff_row row = { .key = strdup(key) };

		id = (uint32_t)rows->size;
		error = row.key ? diff_row_vec_append(rows, &row) : &error_no_memory;
		if (error) {
			free(row.key);
			return error;
		}
		error = hash_index_add(&building->index, hash, id);
		if (error)
			return error;
	}
	if (is_new && __builtin_add_overflow(rows->data[id].fresh, value, &rows->data[id].fresh))
		rows->data[id].fresh = INT64_MAX;
	if (!is_new && __builtin_add_overflow(rows->data[id].old, value, &rows->data[id].old))
		rows->data[id].old = INT64_MAX;
	return NULL;
}

static int compare_growth(const void *left, const void *right)
{
	const struct diff_row *a = left, *b = right;

	if (a->delta != b->delta)
		return a->delta > b->delta ? -1 : 1;
	return strcmp(a->key, b->key);
}

/* Leaves out what is as it was. */
static void finish(struct diff_rows *rows)
{
	size_t kept = 0;

	for (size_t i = 0; i < rows->rows.size; i++) {
		struct diff_row *row = &rows->rows.data[i];

		if (__builtin_sub_overflow(row->fresh, row->old, &row->delta))
			row->delta = row->fresh > row->old ? INT64_MAX : INT64_MIN;
		if (row->delta)
			rows->rows.data[kept++] = *row;
		else
			free(row->key);
	}
	rows->rows.size = kept;
	if (kept)
		qsort(rows->rows.data, kept, sizeof(*rows->rows.data), compare_growth);
}

void diff_rows_deinit(struct diff_rows *rows)
{
	vec_for_each (row, &rows->rows)
		free(row->key);
	diff_row_vec_deinit(&rows->rows);
}

/* ---- JSON ---- */

static struct error *row_key(const struct comparison *comparison, const json_t *item, char **ret)
{
	size_t size;
	FILE *out = open_memstream(ret, &size);

	if (!out)
		return &error_no_memory;
	fputs(comparison->prefix, out);
	for (size_t i = 0; i < KEY_PARTS && comparison->key[i]; i++) {
		const json_t *part = json_object_get(item, comparison->key[i]);
		const char *blank = i ? " " : "";

		if (json_is_string(part) && *json_string_value(part))
			fprintf(out, "%s%s", blank, json_string_value(part));
		else if (json_is_integer(part))
			fprintf(out, "%s%lld", blank, (long long)json_integer_value(part));
	}
	return fclose(out) ? &error_no_memory : NULL;
}

static struct error *add_document(struct building *building, const struct comparison *comparison,
				  const char *path, const json_t *document, bool is_new)
{
	const json_t *list = json_object_get(document, comparison->list), *item;
	const char *value = building->rows->value;
	size_t i, used = 0;

	if (!json_is_array(list))
		return error_create(ERROR_FAILED, "cannot compare %s: it has no `%s`", path,
				    comparison->list);
	json_array_foreach(list, i, item)
	{
		const json_t *number = json_object_get(item, value);
		cleanup(free) char *key = NULL;
		struct error *error;

		if (!json_is_integer(number))
			continue;
		used++;
		error = row_key(comparison, item, &key);
		if (!error)
			error = add(building, key, json_integer_value(number), is_new);
		if (error)
			return error;
	}
	if (i && !used)
		return error_hint(error_create(ERROR_FAILED,
					       "cannot compare %s: `%s` of its %s is "
					       "no number",
					       path, value, comparison->list),
				  "--value chooses another key");
	return NULL;
}

static struct error *load(const char *path, json_t **ret)
{
	cleanup(free) char *text = NULL;
	json_error_t problem;
	size_t size;
	struct error *error = input_read(path, &text, &size);

	*ret = NULL;
	if (error || !input_is_json(text))
		return error;
	*ret = json_loadb(text, size, 0, &problem);
	return *ret ? NULL
		    : error_create(ERROR_FAILED, "cannot read %s: line %d: %s", path, problem.line,
				   problem.text);
}

static const struct comparison *find_comparison(const json_t *document)
{
	const char *command = json_string_value(json_object_get(document, "command"));

	for (size_t i = 0; command && i < sizeof(comparisons) / sizeof(comparisons[0]); i++)
		if (!strcmp(comparisons[i].command, command))
			return &comparisons[i];
	return NULL;
}

static struct error *compare_documents(struct building *building, const char *old_path,
				       const json_t *old, const char *new_path, const json_t *fresh,
				       const char *value)
{
	const struct comparison *comparison = find_comparison(old);
	struct diff_rows *rows = building->rows;
	struct error *error;

	if (find_comparison(fresh) != comparison)
		return error_create(ERROR_FAILED,
				    "cannot compare %s and %s: they are of different commands",
				    old_path, new_path);
	snprintf(rows->what, sizeof(rows->what), "%s", comparison->command);
	snprintf(rows->value, sizeof(rows->value), "%s", value ? value : comparison->value);
	/* All that can be compared is bytes, except counts. */
	rows->is_bytes = !strstr(rows->value, "count") && !strstr(rows->value, "chunks");
	error = add_document(building, comparison, old_path, old, false);
	return error ? error : add_document(building, comparison, new_path, fresh, true);
}

/* ---- stacks ---- */

static struct error *stack_key(const struct profile *profile, const struct profile_site *site,
			       char **ret)
{
	size_t depth, size;
	const uint32_t *frames = profile_stack_frames(profile, site->stack, &depth);
	FILE *out = open_memstream(ret, &size);

	if (!out)
		return &error_no_memory;
	for (size_t i = 0; i < depth; i++) {
		char buffer[PROFILE_NAME_MAX];

		fprintf(out, "%s%s", i ? ";" : "",
			profile_frame_name(&profile->frames.data[frames[i]], buffer));
	}
	return fclose(out) ? &error_no_memory : NULL;
}

static struct error *add_stacks(struct building *building, struct command_context *context,
				const char *path, bool is_new)
{
	cleanup(profile) struct profile *profile = NULL;
	struct error *error = profile_input_read(context, path, &profile);

	for (size_t i = 0; !error && i < profile->sites.size; i++) {
		const struct profile_site *site = &profile->sites.data[i];
		cleanup(free) char *key = NULL;

		error = stack_key(profile, site, &key);
		if (!error)
			error = add(building, key, site->values[PROFILE_BYTES], is_new);
	}
	if (!error && is_new) {
		const char *unit = profile->columns[PROFILE_BYTES].unit;

		building->rows->is_bytes = unit && !strcmp(unit, "bytes");
	}
	return error;
}

static struct error *compare_stacks(struct building *building, struct command_context *context,
				    const char *old_path, const char *new_path)
{
	struct error *error = add_stacks(building, context, old_path, false);

	if (!error)
		error = add_stacks(building, context, new_path, true);
	snprintf(building->rows->what, sizeof(building->rows->what), "stacks");
	snprintf(building->rows->value, sizeof(building->rows->value), "bytes");
	return error;
}

struct error *diff_rows_read(struct command_context *context, const char *old_path,
			     const char *new_path, const char *value, struct diff_rows *ret)
{
	struct building building = { .rows = ret };
	json_t *old = NULL, *fresh = NULL;
	struct error *error = NULL;

	/* Standard input is read once, and has stacks. */
	if (strcmp(old_path, "-") && strcmp(new_path, "-")) {
		error = load(old_path, &old);
		if (!error)
			error = load(new_path, &fresh);
	}
	if (!error && find_comparison(old))
		error = compare_documents(&building, old_path, old, new_path, fresh, value);
	else if (!error && find_comparison(fresh))
		error = error_create(ERROR_FAILED,
				     "cannot compare %s: it is of no command that "
				     "%s is of",
				     old_path, new_path);
	else if (!error)
		error = compare_stacks(&building, context, old_path, new_path);
	json_decref(old);
	json_decref(fresh);
	hash_index_deinit(&building.index);
	if (!error)
		finish(ret);
	return error;
}
