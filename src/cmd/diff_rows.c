#include "diff_rows.h"

#include <stdlib.h>
#include <string.h>

#include "memprobe/hash_index.h"
#include "memprobe/log.h"
#include "memprobe/sites_table.h"
#include "profile_input.h"
#include "profile_output.h"

#define KEY_PARTS 3

/* Of a terminal's width, for the figures; what is left is for the key, but at least so much. */
#define FIGURES	  30u
#define KEY_LEAST 40u

/* Which list of a command's JSON has the rows, what names one, and what is compared. */
static const struct comparison {
	const char *command, *list;
	const char *key[KEY_PARTS]; /* joined by a blank; what is null or missing is left out */
	const char *instead;	    /* of the key, if all of it is */
	const char *look;	    /* of a row, shown behind its key, which it may differ for */
	const char *prefix;
	const char *value;
} comparisons[] = {
	{ "maps", "mappings", { "start", "type", "path" }, NULL, NULL, "", "rss" },
	{ "mallinfo", "arenas", { "address" }, "index", NULL, "arena ", "in_use" },
	{ "heap", "groups", { "key", "size" }, NULL, NULL, "", "bytes" },
	{ "leaks", "leaks", { "type", "size" }, NULL, "preview", "", "bytes" },
	{ "threads", "threads", { "name", "tid" }, NULL, NULL, "", "stack_rss" },
	{ "strings", "strings", { "text" }, NULL, NULL, "", "bytes" },
	{ "diagnose", "parts", { "name" }, NULL, NULL, "", "bytes" },
	{ "top", "processes", { "name", "pid" }, NULL, NULL, "", "rss" },
	/* A process that was started again in between is the same one. */
	{ "watch", "samples", { "name" }, NULL, NULL, "", "rss" },
};

/* ---- rows ---- */

struct building {
	struct diff_rows *rows;
	struct hash_index index;
	bool for_people;
};

struct search {
	const struct diff_rows *rows;
	const char *key;
};

static bool is_row(const void *context, uint32_t id)
{
	const struct search *search = context;

	const struct diff_row *row = &search->rows->rows.data[id];
	size_t length = strlen(search->key);

	return length == row->key_length && !memcmp(row->key, search->key, length);
}

/* @look is shown behind the key, @brief in place of it; NULL: nothing. */
static struct error *add(struct building *building, const char *key, const char *look,
			 const char *brief, int64_t value, bool is_new)
{
	const struct search search = { building->rows, key };
	uint32_t hash = hash_fold(hash_bytes(HASH_SEED, key, strlen(key)));
	uint32_t id = hash_index_find(&building->index, hash, is_row, &search);
	struct diff_row_vec *rows = &building->rows->rows;
	struct error *error;

	if (id == HASH_INDEX_NONE) {
		struct diff_row row = { .key_length = strlen(key) };

		id = (uint32_t)rows->size;
		if (asprintf(&row.key, "%s%s%s", key, look ? " " : "", look ? look : "") < 0)
			return &error_no_memory;
		row.brief = brief ? strdup(brief) : NULL;
		error = !brief || row.brief ? diff_row_vec_append(rows, &row) : &error_no_memory;
		if (error) {
			free(row.key);
			free(row.brief);
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

		if (__builtin_add_overflow(rows->old_total, row->old, &rows->old_total))
			rows->old_total = INT64_MAX;
		if (__builtin_add_overflow(rows->new_total, row->fresh, &rows->new_total))
			rows->new_total = INT64_MAX;
		if (__builtin_sub_overflow(row->fresh, row->old, &row->delta))
			row->delta = row->fresh > row->old ? INT64_MAX : INT64_MIN;
		if (row->delta) {
			rows->rows.data[kept++] = *row;
		} else {
			free(row->key);
			free(row->brief);
		}
	}
	rows->rows.size = kept;
	if (kept)
		qsort(rows->rows.data, kept, sizeof(*rows->rows.data), compare_growth);
}

void diff_rows_deinit(struct diff_rows *rows)
{
	vec_for_each (row, &rows->rows) {
		free(row->key);
		free(row->brief);
	}
	diff_row_vec_deinit(&rows->rows);
}

/* A pipe can be read but once. */
struct input {
	const char *path;
	char *text;
	size_t size;
	json_t *json; /* NULL: it is none */
};

/* ---- a recording of watch: lines of JSON ---- */

/* The last sample of each process, as a document. */
static json_t *last_samples(const char *text, size_t size)
{
	json_t *samples = json_object(), *list = json_array();
	const json_t *sample;
	const char *series;

	for (const char *line = text, *end; line < text + size; line = end + 1) {
		json_t *object;
		char key[24];

		end = memchr(line, '\n', (size_t)(text + size - line));
		if (!end)
			end = text + size;
		object = json_loadb(line, (size_t)(end - line), 0, NULL);
		snprintf(key, sizeof(key), "%lld",
			 json_integer_value(json_object_get(object, "series")));
		if (json_is_integer(json_object_get(object, "rss")))
			json_object_set(samples, key, object);
		json_decref(object);
	}
	json_object_foreach(samples, series, sample) json_array_append(list, (json_t *)sample);
	json_decref(samples);
	return json_pack("{s:s, s:o}", "command", "watch", "samples", list);
}

static bool is_recording(const char *text)
{
	static const char begin[] = "{\"time\":";

	return !strncmp(text, begin, sizeof(begin) - 1);
}

static struct error *load(const char *path, struct input *ret)
{
	json_error_t problem;
	struct error *error = input_read(path, &ret->text, &ret->size);

	ret->path = path;
	if (error || !input_is_json(ret->text))
		return error;
	if (is_recording(ret->text)) {
		ret->json = last_samples(ret->text, ret->size);
		return ret->json ? NULL : &error_no_memory;
	}
	ret->json = json_loadb(ret->text, ret->size, 0, &problem);
	return ret->json ? NULL
			 : error_create(ERROR_FAILED, "cannot read %s: line %d: %s", path,
					problem.line, problem.text);
}

static void unload(struct input *input)
{
	free(input->text);
	json_decref(input->json);
}

/* ---- JSON ---- */

/* `(untyped) 40` needs no 40 behind it. */
static bool ends_with_number(const char *text, json_int_t number)
{
	const char *last = strrchr(text, ' ');
	char *end;

	last = last ? last + 1 : text;
	return *last && strtoll(last, &end, 10) == number && !*end;
}

static bool put_part(FILE *out, const json_t *part, const char *blank)
{
	if (json_is_string(part) && *json_string_value(part))
		fprintf(out, "%s%s", blank, json_string_value(part));
	else if (json_is_integer(part))
		fprintf(out, "%s%lld", blank, (long long)json_integer_value(part));
	else
		return false;
	return true;
}

static struct error *row_key(const struct comparison *comparison, const json_t *item, char **ret)
{
	const char *first = json_string_value(json_object_get(item, comparison->key[0]));
	bool any = false;
	size_t size;
	FILE *out = open_memstream(ret, &size);

	if (!out)
		return &error_no_memory;
	fputs(comparison->prefix, out);
	for (size_t i = 0; i < KEY_PARTS && comparison->key[i]; i++) {
		const json_t *part = json_object_get(item, comparison->key[i]);

		if (i && first && json_is_integer(part) &&
		    ends_with_number(first, json_integer_value(part)))
			continue;
		any |= put_part(out, part, any ? " " : "");
	}
	if (!any && comparison->instead)
		put_part(out, json_object_get(item, comparison->instead), "");
	return fclose(out) ? &error_no_memory : NULL;
}

static const char *row_look(const struct comparison *comparison, const json_t *item)
{
	return comparison->look ? json_string_value(json_object_get(item, comparison->look)) : NULL;
}

/* What one of the documents lacks would seem to have come or gone. */
static void warn_if_cut(struct command_context *context, const struct input *input)
{
	json_int_t left_out = json_integer_value(json_object_get(input->json, "groups_left_out"));

	if (left_out <= 0)
		return;
	log_warn("%s lacks %lld groups: what is new or gone may be wrong; --top 0 writes all",
		 input->path, (long long)left_out);
	context->status = ERROR_PARTIAL;
}

static struct error *add_document(struct building *building, const struct comparison *comparison,
				  const struct input *input, bool is_new)
{
	const json_t *list = json_object_get(input->json, comparison->list), *item;
	const char *value = building->rows->value;
	size_t i, used = 0;

	if (!json_is_array(list))
		return error_create(ERROR_FAILED, "cannot compare %s: it has no `%s`", input->path,
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
			error = add(building, key, row_look(comparison, item), NULL,
				    json_integer_value(number), is_new);
		if (error)
			return error;
	}
	if (i && !used)
		return error_hint(error_create(ERROR_FAILED,
					       "cannot compare %s: `%s` of its %s is "
					       "no number",
					       input->path, value, comparison->list),
				  "--value chooses another key");
	return NULL;
}

static const struct comparison *find_comparison(const json_t *document)
{
	const char *command = json_string_value(json_object_get(document, "command"));

	for (size_t i = 0; command && i < sizeof(comparisons) / sizeof(comparisons[0]); i++)
		if (!strcmp(comparisons[i].command, command))
			return &comparisons[i];
	return NULL;
}

static bool is_grouped_alike(const json_t *old, const json_t *fresh)
{
	const char *by = json_string_value(json_object_get(old, "by"));
	const char *other = json_string_value(json_object_get(fresh, "by"));

	return !by || !other || !strcmp(by, other);
}

/* Most of what can be compared is. */
static bool is_bytes(const char *value)
{
	static const char *const others[] = { "count", "chunks", "threads",
					      "fds",   "faults", "cpu_us" };

	for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++)
		if (strstr(value, others[i]))
			return false;
	return true;
}

static struct error *compare_documents(struct building *building, struct command_context *context,
				       const struct input *old, const struct input *fresh,
				       const char *value)
{
	const struct comparison *comparison = find_comparison(old->json);
	struct diff_rows *rows = building->rows;
	struct error *error;

	if (find_comparison(fresh->json) != comparison)
		return error_create(ERROR_FAILED,
				    "cannot compare %s and %s: they are of different commands",
				    old->path, fresh->path);
	if (!is_grouped_alike(old->json, fresh->json))
		return error_create(
			ERROR_FAILED,
			"cannot compare %s and %s: they are grouped by different things", old->path,
			fresh->path);
	warn_if_cut(context, old);
	warn_if_cut(context, fresh);
	snprintf(rows->what, sizeof(rows->what), "%s", comparison->command);
	snprintf(rows->value, sizeof(rows->value), "%s", value ? value : comparison->value);
	rows->is_bytes = is_bytes(rows->value);
	error = add_document(building, comparison, old, false);
	return error ? error : add_document(building, comparison, fresh, true);
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

static struct error *add_stack(struct building *building, const struct profile *profile,
			       const struct profile_site *site, size_t width, bool is_new)
{
	cleanup(free) char *key = NULL, *brief = NULL;
	size_t depth;
	const uint32_t *frames = profile_stack_frames(profile, site->stack, &depth);
	struct error *error;

	if (!building->for_people)
		error = stack_key(profile, site, &key);
	else
		error = site_text(profile, frames, depth, 0, &key);
	if (!error && building->for_people && width)
		error = site_text(profile, frames, depth, width, &brief);
	return error ? error : add(building, key, NULL, brief, site->values[PROFILE_BYTES], is_new);
}

static struct error *add_stacks(struct building *building, struct command_context *context,
				const struct input *input, bool is_new)
{
	cleanup(profile) struct profile *profile = NULL;
	unsigned width = command_style(context).width;
	struct error *error =
		profile_input_parse(context, input->path, input->text, input->size, true, &profile);

	if (width)
		width = width > FIGURES + KEY_LEAST ? width - FIGURES : KEY_LEAST;
	for (size_t i = 0; !error && i < profile->sites.size; i++)
		error = add_stack(building, profile, &profile->sites.data[i], width, is_new);
	if (!error && profile->sites.size) {
		const char *unit = profile->columns[PROFILE_BYTES].unit;

		building->rows->is_bytes = unit && !strcmp(unit, "bytes");
	}
	return error;
}

static struct error *compare_stacks(struct building *building, struct command_context *context,
				    const struct input *old, const struct input *fresh)
{
	struct error *error = add_stacks(building, context, old, false);

	if (!error)
		error = add_stacks(building, context, fresh, true);
	snprintf(building->rows->what, sizeof(building->rows->what), "stacks");
	snprintf(building->rows->value, sizeof(building->rows->value), "bytes");
	return error;
}

struct error *diff_rows_read(struct command_context *context, const char *old_path,
			     const char *new_path, const char *value, bool for_people,
			     struct diff_rows *ret)
{
	struct building building = { .rows = ret, .for_people = for_people };
	struct input old = { 0 }, fresh = { 0 };
	struct error *error = load(old_path, &old);

	if (!error)
		error = load(new_path, &fresh);
	if (!error && find_comparison(old.json))
		error = compare_documents(&building, context, &old, &fresh, value);
	else if (!error && find_comparison(fresh.json))
		error = error_create(ERROR_FAILED,
				     "cannot compare %s: it is of no command that "
				     "%s is of",
				     old_path, new_path);
	else if (!error)
		error = compare_stacks(&building, context, &old, &fresh);
	unload(&old);
	unload(&fresh);
	hash_index_deinit(&building.index);
	if (!error)
		finish(ret);
	return error;
}
