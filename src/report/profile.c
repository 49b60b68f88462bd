#include "memprobe/profile.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "memprobe/hash_index.h"
#include "string_pool.h"

struct profile_tables {
	struct string_pool strings;
	struct hash_index frame_index, stack_index, site_index;
};

int64_t profile_sum(int64_t a, int64_t b)
{
	int64_t sum;

	if (__builtin_add_overflow(a, b, &sum))
		return a < 0 ? INT64_MIN : INT64_MAX;
	return sum;
}

struct error *profile_create(struct profile **ret)
{
	cleanup(profile) struct profile *profile = calloc(1, sizeof(*profile));
	struct error *error;

	if (!profile)
		return &error_no_memory;
	profile->tables = calloc(1, sizeof(*profile->tables));
	if (!profile->tables)
		return &error_no_memory;
	profile->weight = PROFILE_BYTES;
	error = profile_set_column(profile, PROFILE_COUNT, "inuse_objects", "count");
	if (!error)
		error = profile_set_column(profile, PROFILE_BYTES, "inuse_space", "bytes");
	if (!error)
		*ret = take_pointer(profile);
	return error;
}

static void tables_destroy(struct profile_tables *tables)
{
	if (!tables)
		return;
	string_pool_deinit(&tables->strings);
	hash_index_deinit(&tables->frame_index);
	hash_index_deinit(&tables->stack_index);
	hash_index_deinit(&tables->site_index);
	free(tables);
}

void profile_destroy(struct profile *profile)
{
	if (!profile)
		return;
	profile_frame_vec_deinit(&profile->frames);
	profile_stack_vec_deinit(&profile->stacks);
	profile_id_vec_deinit(&profile->frame_ids);
	profile_site_vec_deinit(&profile->sites);
	profile_mapping_vec_deinit(&profile->mappings);
	tables_destroy(profile->tables);
	free(profile);
}

struct error *profile_set_column(struct profile *profile, enum profile_column column,
				 const char *name, const char *unit)
{
	struct profile_value value = { 0 };
	struct error *error = profile_intern(profile, name, &value.name);

	if (!error && name)
		error = profile_intern(profile, unit, &value.unit);
	if (!error)
		profile->columns[column] = value;
	return error;
}

bool profile_has(const struct profile *profile, enum profile_column column)
{
	return profile->columns[column].name != NULL;
}

/* ---- strings ---- */

struct error *profile_intern_bytes(struct profile *profile, const char *text, size_t length,
				   const char **ret)
{
	struct string_pool *strings = &profile->tables->strings;
	uint32_t id;
	struct error *error = string_pool_add(strings, text, length, &id);

	if (!error)
		*ret = string_pool_text(strings, id);
	return error;
}

struct error *profile_intern(struct profile *profile, const char *text, const char **ret)
{
	if (!text) {
		*ret = NULL;
		return NULL;
	}
	return profile_intern_bytes(profile, text, strlen(text), ret);
}

/* ---- frames ---- */

struct frame_key {
	const struct profile *profile;
	const struct profile_frame *frame; /* its strings are interned */
};

static bool same_frame(const void *context, uint32_t id)
{
	const struct frame_key *key = context;
	const struct profile_frame *a = key->frame, *b = &key->profile->frames.data[id];

	return a->function == b->function && a->module == b->module && a->build_id == b->build_id &&
	       a->file == b->file && a->line == b->line && a->address == b->address &&
	       a->offset == b->offset && a->inlined == b->inlined && a->kernel == b->kernel;
}

static uint32_t hash_frame(const struct profile_frame *frame)
{
	uint64_t hash = HASH_SEED;

	hash = hash_word(hash, (uintptr_t)frame->function);
	hash = hash_word(hash, (uintptr_t)frame->module);
	hash = hash_word(hash, (uintptr_t)frame->file);
	hash = hash_word(hash, frame->line);
	hash = hash_word(hash, frame->address);
	hash = hash_word(hash, frame->offset);
	return hash_fold(hash);
}

struct error *profile_add_frame(struct profile *profile, const struct profile_frame *frame,
				uint32_t *id_ret)
{
	struct profile_frame copy = *frame;
	struct frame_key key = { profile, &copy };
	struct error *error = profile_intern(profile, frame->function, &copy.function);
	uint32_t hash, id;

	if (!error)
		error = profile_intern(profile, frame->module, &copy.module);
	if (!error)
		error = profile_intern(profile, frame->build_id, &copy.build_id);
	if (!error)
		error = profile_intern(profile, frame->file, &copy.file);
	if (error)
		return error;
	hash = hash_frame(&copy);
	id = hash_index_find(&profile->tables->frame_index, hash, same_frame, &key);
	if (id == HASH_INDEX_NONE) {
		id = profile->frames.size;
		if (profile->frames.size >= HASH_INDEX_NONE)
			return &error_no_memory;
		error = profile_frame_vec_append(&profile->frames, &copy);
		if (!error)
			error = hash_index_add(&profile->tables->frame_index, hash, id);
	}
	if (!error)
		*id_ret = id;
	return error;
}

/* ---- stacks ---- */

struct stack_key {
	const struct profile *profile;
	const uint32_t *frames;
	size_t depth;
};

static bool same_stack(const void *context, uint32_t id)
{
	const struct stack_key *key = context;
	size_t depth;
	const uint32_t *frames = profile_stack_frames(key->profile, id, &depth);

	return depth == key->depth && (!depth || !memcmp(frames, key->frames, depth * 4));
}

static struct error *append_stack(struct profile *profile, const uint32_t *frames, size_t depth)
{
	struct profile_stack stack = { profile->frame_ids.size, depth };
	size_t needed = profile->frame_ids.size + depth;
	struct error *error = NULL;

	if (needed > profile->frame_ids.capacity)
		error = profile_id_vec_reserve(&profile->frame_ids, 2 * needed + 64);
	if (!error)
		error = profile_stack_vec_append(&profile->stacks, &stack);
	if (!error && depth) {
		memcpy(profile->frame_ids.data + stack.first, frames, depth * sizeof(*frames));
		profile->frame_ids.size = needed;
	}
	return error;
}

struct error *profile_add_stack(struct profile *profile, const uint32_t *frames, size_t depth,
				uint32_t *id_ret)
{
	struct stack_key key = { profile, frames, depth };
	uint32_t hash = hash_fold(hash_bytes(HASH_SEED, frames, depth * sizeof(*frames)));
	uint32_t id = hash_index_find(&profile->tables->stack_index, hash, same_stack, &key);
	struct error *error = NULL;

	if (id == HASH_INDEX_NONE) {
		id = profile->stacks.size;
		if (profile->stacks.size >= HASH_INDEX_NONE || depth > UINT32_MAX)
			return &error_no_memory;
		error = append_stack(profile, frames, depth);
		if (!error)
			error = hash_index_add(&profile->tables->stack_index, hash, id);
	}
	if (!error)
		*id_ret = id;
	return error;
}

const uint32_t *profile_stack_frames(const struct profile *profile, uint32_t stack,
				     size_t *depth_ret)
{
	const struct profile_stack *found = &profile->stacks.data[stack];

	*depth_ret = found->depth;
	return found->depth ? profile->frame_ids.data + found->first : NULL;
}

/* ---- sites ---- */

struct site_key {
	const struct profile *profile;
	uint32_t stack;
};

static bool same_site(const void *context, uint32_t id)
{
	const struct site_key *key = context;

	return key->profile->sites.data[id].stack == key->stack;
}

static uint32_t hash_stack_id(uint32_t stack)
{
	return hash_fold(hash_word(HASH_SEED, stack));
}

struct error *profile_add_site(struct profile *profile, uint32_t stack,
			       const int64_t values[PROFILE_COLUMNS])
{
	struct hash_index *index = &profile->tables->site_index;
	struct site_key key = { profile, stack };
	uint32_t hash = hash_stack_id(stack);
	uint32_t id = hash_index_find(index, hash, same_site, &key);
	struct profile_site site = { .stack = stack };
	struct error *error;

	if (id != HASH_INDEX_NONE) {
		int64_t *sums = profile->sites.data[id].values;

		for (size_t i = 0; i < PROFILE_COLUMNS; i++)
			sums[i] = profile_sum(sums[i], values[i]);
		return NULL;
	}
	memcpy(site.values, values, sizeof(site.values));
	error = profile_site_vec_append(&profile->sites, &site);
	return error ? error : hash_index_add(index, hash, profile->sites.size - 1);
}

/* A site of @old as the same frames of @profile. */
static struct error *add_old_site(struct profile *profile, const struct profile *old,
				  const struct profile_site *site, struct profile_id_vec *ids)
{
	const int64_t values[PROFILE_COLUMNS] = {
		[PROFILE_OLD_BYTES] = site->values[PROFILE_BYTES],
	};
	size_t depth;
	const uint32_t *frames = profile_stack_frames(old, site->stack, &depth);
	struct error *error;
	uint32_t id;

	ids->size = 0;
	for (size_t i = 0; i < depth; i++) {
		error = profile_add_frame(profile, &old->frames.data[frames[i]], &id);
		if (!error)
			error = profile_id_vec_append(ids, &id);
		if (error)
			return error;
	}
	error = profile_add_stack(profile, ids->data, ids->size, &id);
	return error ? error : profile_add_site(profile, id, values);
}

struct error *profile_compare(struct profile *profile, const struct profile *old)
{
	const struct profile_value *weight = &old->columns[PROFILE_BYTES];
	struct profile_id_vec ids = { 0 };
	struct error *error = profile_set_column(profile, PROFILE_OLD_BYTES, "old",
						 weight->unit ? weight->unit : "");

	vec_for_each (site, &old->sites)
		if (!error)
			error = add_old_site(profile, old, site, &ids);
	profile_id_vec_deinit(&ids);
	return error;
}

enum profile_column profile_weight_count(const struct profile *profile)
{
	return profile->weight == PROFILE_ALL_BYTES ? PROFILE_ALL_COUNT : PROFILE_COUNT;
}

static int compare_sites(const void *left, const void *right, void *data)
{
	const struct profile *profile = data;
	const struct profile_site *a = left, *b = right;
	const enum profile_column order[] = { profile->weight, profile_weight_count(profile) };

	for (size_t i = 0; i < sizeof(order) / sizeof(order[0]); i++)
		if (a->values[order[i]] != b->values[order[i]])
			return a->values[order[i]] > b->values[order[i]] ? -1 : 1;
	return a->stack < b->stack ? -1 : a->stack > b->stack;
}

void profile_sort(struct profile *profile)
{
	struct hash_index *index = &profile->tables->site_index;

	if (profile->sites.size < 2)
		return;
	qsort_r(profile->sites.data, profile->sites.size, sizeof(*profile->sites.data),
		compare_sites, profile);
	/* The table is as large as before: nothing is allocated, nothing fails. */
	memset(index->slots, 0xff, index->capacity * sizeof(*index->slots));
	index->used = 0;
	for (size_t i = 0; i < profile->sites.size; i++)
		error_destroy(
			hash_index_add(index, hash_stack_id(profile->sites.data[i].stack), i));
}

int64_t profile_total(const struct profile *profile, enum profile_column column)
{
	int64_t total = 0;

	vec_for_each (site, &profile->sites)
		total = profile_sum(total, site->values[column]);
	return total;
}

/* ---- the rest ---- */

struct error *profile_add_mapping(struct profile *profile, const struct profile_mapping *mapping)
{
	struct profile_mapping copy = *mapping;
	struct error *error = profile_intern(profile, mapping->path, &copy.path);

	if (!error)
		error = profile_intern(profile, mapping->build_id, &copy.build_id);
	return error ? error : profile_mapping_vec_append(&profile->mappings, &copy);
}

const char *profile_frame_name(const struct profile_frame *frame, char buffer[PROFILE_NAME_MAX])
{
	const char *base;

	if (frame->function && *frame->function)
		return frame->function;
	if (frame->module && *frame->module) {
		base = strrchr(frame->module, '/');
		base = base && base[1] ? base + 1 : frame->module;
		if (frame->offset)
			snprintf(buffer, PROFILE_NAME_MAX, "[%.256s+0x%" PRIx64 "]", base,
				 frame->offset);
		else
			snprintf(buffer, PROFILE_NAME_MAX, "[%.256s]", base);
		return buffer;
	}
	if (!frame->address)
		return "[unknown]";
	snprintf(buffer, PROFILE_NAME_MAX, "[0x%" PRIx64 "]", frame->address);
	return buffer;
}

#define KERNEL_MARK "_[k]"

char *profile_frame_label(const struct profile_frame *frame)
{
	char buffer[PROFILE_NAME_MAX], *label;
	const char *name = profile_frame_name(frame, buffer);

	if (asprintf(&label, "%s%s", name, frame->kernel ? KERNEL_MARK : "") < 0)
		return NULL;
	return label;
}

struct error *profile_add_label(struct profile *profile, const char *label, size_t length,
				uint32_t *id_ret)
{
	struct profile_frame frame = { 0 };
	size_t mark = strlen(KERNEL_MARK);
	struct error *error;

	frame.kernel = length > mark && !memcmp(label + length - mark, KERNEL_MARK, mark);
	length -= frame.kernel ? mark : 0;
	error = profile_intern_bytes(profile, label, length, &frame.function);
	return error ? error : profile_add_frame(profile, &frame, id_ret);
}
