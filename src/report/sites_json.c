#include "memprobe/sites_json.h"

#include "memprobe/text.h"

/* By column. */
static const struct {
	const char *key;
	const char *name, *unit; /* of a column that is read */
} keys[PROFILE_COLUMNS] = {
	[PROFILE_COUNT] = { "count", "inuse_objects", "count" },
	[PROFILE_BYTES] = { "bytes", "inuse_space", "bytes" },
	[PROFILE_ALL_COUNT] = { "all_count", "alloc_objects", "count" },
	[PROFILE_ALL_BYTES] = { "all_bytes", "alloc_space", "bytes" },
	[PROFILE_UNREACHABLE_COUNT] = { "unreachable_count", "unreachable_objects", "count" },
	[PROFILE_UNREACHABLE_BYTES] = { "unreachable_bytes", "unreachable_space", "bytes" },
	[PROFILE_OLD_BYTES] = { "old_bytes", "old_space", "bytes" },
	[PROFILE_NET_BYTES] = { "net_bytes", "mapped_space", "bytes" },
};

/* ---- writing ---- */

/* One JSON string for each frame, shared by all stacks. */
struct names {
	json_t **texts; /* by frame id */
	size_t count;
};

static void names_deinit(struct names *names)
{
	for (size_t i = 0; names->texts && i < names->count; i++)
		json_decref(names->texts[i]);
	free(names->texts);
}

static struct error *names_init(struct names *names, const struct profile *profile)
{
	names->count = profile->frames.size;
	names->texts = calloc(names->count + 1, sizeof(*names->texts));
	if (!names->texts)
		return &error_no_memory;
	for (size_t i = 0; i < names->count; i++) {
		cleanup(free) char *label = profile_frame_label(&profile->frames.data[i]);
		cleanup(free) char *valid = label ? text_utf8(label) : NULL;

		names->texts[i] = valid ? json_string(valid) : NULL;
		if (!names->texts[i])
			return &error_no_memory;
	}
	return NULL;
}

static int set_values(json_t *object, const struct profile *profile,
		      const int64_t values[PROFILE_COLUMNS])
{
	int failed = 0;

	for (size_t i = 0; i < PROFILE_COLUMNS; i++)
		if (profile_has(profile, i))
			failed |= json_object_set_new(object, keys[i].key, json_integer(values[i]));
	return failed;
}

/* NULL: out of memory. */
static json_t *json_site(const struct profile *profile, const struct profile_site *site,
			 const struct names *names)
{
	json_t *object = json_object(), *frames = json_array();
	size_t depth;
	const uint32_t *ids = profile_stack_frames(profile, site->stack, &depth);
	int failed = 0;

	for (size_t i = 0; i < depth; i++)
		failed |= json_array_append(frames, names->texts[ids[i]]);
	failed |= json_object_set_new(object, "frames", frames);
	failed |= set_values(object, profile, site->values);
	if (!failed)
		return object;
	json_decref(object);
	return NULL;
}

struct error *sites_json_add(json_t *document, const struct profile *profile, bool recorded)
{
	json_t *sites = json_array(), *totals = json_object();
	struct names names = { 0 };
	int64_t values[PROFILE_COLUMNS];
	struct error *error = names_init(&names, profile);
	int failed = 0;

	for (size_t i = 0; i < PROFILE_COLUMNS; i++)
		values[i] = profile_total(profile, i);
	for (size_t i = 0; !error && i < profile->sites.size; i++)
		if (json_array_append_new(sites,
					  json_site(profile, &profile->sites.data[i], &names)))
			error = &error_no_memory;
	if (recorded) {
		failed |= json_object_set_new(document, "duration",
					      json_real((double)profile->duration_us / 1e6));
		failed |= json_object_set_new(document, "events",
					      json_integer((json_int_t)profile->events));
		failed |= json_object_set_new(document, "lost",
					      json_integer((json_int_t)profile->lost));
	}
	failed |= set_values(totals, profile, values);
	failed |= json_object_set_new(document, "sites", sites);
	failed |= json_object_set_new(document, "totals", totals);
	names_deinit(&names);
	return failed && !error ? &error_no_memory : error;
}

/* ---- reading ---- */

/* Columns are those of the first site: a later one lacks nothing that the writer had. */
static struct error *set_columns(struct profile *profile, const json_t *sites)
{
	const json_t *first = json_array_get(sites, 0);
	struct error *error = NULL;

	for (size_t i = 0; !error && i < PROFILE_COLUMNS; i++) {
		bool has = i == PROFILE_BYTES || json_object_get(first, keys[i].key);

		error = profile_set_column(profile, i, has ? keys[i].name : NULL, keys[i].unit);
	}
	return error;
}

/* False: it is no site. */
static bool is_site(const json_t *site)
{
	const json_t *frame;
	size_t i;

	if (!json_is_array(json_object_get(site, "frames")) ||
	    !json_is_integer(json_object_get(site, "bytes")))
		return false;
	json_array_foreach(json_object_get(site, "frames"), i, frame)
	{
		if (!json_is_string(frame))
			return false;
	}
	return true;
}

static struct error *read_site(const json_t *site, struct profile *profile,
			       struct profile_id_vec *ids)
{
	int64_t values[PROFILE_COLUMNS];
	struct error *error = NULL;
	const json_t *text;
	uint32_t stack;
	size_t i;

	ids->size = 0;
	json_array_foreach(json_object_get(site, "frames"), i, text)
	{
		uint32_t id;

		error = profile_add_label(profile, json_string_value(text),
					  json_string_length(text), &id);
		if (!error)
			error = profile_id_vec_append(ids, &id);
		if (error)
			return error;
	}
	for (i = 0; i < PROFILE_COLUMNS; i++)
		values[i] = json_integer_value(json_object_get(site, keys[i].key));
	error = profile_add_stack(profile, ids->data, ids->size, &stack);
	return error ? error : profile_add_site(profile, stack, values);
}

struct error *sites_json_read(const json_t *document, struct profile *profile, size_t *left_out_ret)
{
	const json_t *sites = json_object_get(document, "sites"), *site;
	struct profile_id_vec ids = { 0 };
	struct error *error;
	size_t i, left_out = 0;

	if (!json_is_array(sites))
		return error_create(ERROR_FAILED, "the JSON has no `sites`");
	error = set_columns(profile, sites);
	json_array_foreach(sites, i, site)
	{
		if (error)
			break;
		if (is_site(site))
			error = read_site(site, profile, &ids);
		else
			left_out++;
	}
	profile_id_vec_deinit(&ids);
	if (!error)
		*left_out_ret = left_out;
	return error;
}
