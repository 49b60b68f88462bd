#include "memprobe/mapgroup.h"

#include <string.h>

static void add(struct map_sum *sum, const struct mapping *mapping)
{
	sum->count++;
	sum->size += mapping->end - mapping->start;
	sum->rss += mapping->usage.rss;
	sum->pss += mapping->usage.pss;
	sum->private_dirty += mapping->usage.private_dirty;
	sum->swap += mapping->usage.swap;
	sum->huge += mapping->usage.huge;
}

struct map_sum maps_total(const struct mapping_vec *maps)
{
	struct map_sum sum = { 0 };

	vec_for_each (mapping, maps)
		add(&sum, mapping);
	return sum;
}

static int descending(uint64_t a, uint64_t b)
{
	return a > b ? -1 : a < b;
}

static int compare_rss(const void *left, const void *right)
{
	const struct map_group *a = left, *b = right;
	int order = descending(a->sum.rss, b->sum.rss);

	if (!order)
		order = descending(a->sum.size, b->sum.size);
	return order ? order : strcmp(a->key, b->key);
}

static int compare_size(const void *left, const void *right)
{
	const struct map_group *a = left, *b = right;
	int order = descending(a->sum.size, b->sum.size);

	if (!order)
		order = descending(a->each, b->each);
	return order ? order : (int)a->type - (int)b->type;
}

static void sort_groups(struct map_group_vec *groups,
			int (*compare)(const void *left, const void *right))
{
	if (groups->size)
		qsort(groups->data, groups->size, sizeof(*groups->data), compare);
}

struct error *maps_by_type(const struct mapping_vec *maps, struct map_group_vec *ret)
{
	struct map_sum sums[MAPPING_TYPES] = { 0 };
	struct error *error = NULL;

	vec_for_each (mapping, maps)
		add(&sums[mapping->type], mapping);
	for (enum mapping_type type = 0; !error && type < MAPPING_TYPES; type++) {
		struct map_group group = { mapping_type_name(type), type, 0, sums[type] };

		if (group.sum.count)
			error = map_group_vec_append(ret, &group);
	}
	sort_groups(ret, compare_rss);
	return error;
}

/* ---- groups of what sorts together ---- */

static const char *file_key(const struct mapping *mapping)
{
	static const char *const types[MAPPING_TYPES] = {
		[MAPPING_EXE] = "[exe]",     [MAPPING_LIB] = "[lib]",
		[MAPPING_FILE] = "[file]",   [MAPPING_HEAP] = "[heap]",
		[MAPPING_ARENA] = "[arena]", [MAPPING_MMAP_CHUNK] = "[mmap-chunk]",
		[MAPPING_STACK] = "[stack]", [MAPPING_THREAD_STACK] = "[thread-stack]",
		[MAPPING_ANON] = "[anon]",   [MAPPING_SHM] = "[shm]",
		[MAPPING_GUARD] = "[guard]", [MAPPING_KERNEL] = "[kernel]",
	};

	return mapping->path[0] ? mapping->path : types[mapping->type];
}

static int order_by_file(const void *left, const void *right)
{
	const struct mapping *a = *(const struct mapping *const *)left;
	const struct mapping *b = *(const struct mapping *const *)right;
	int order = strcmp(file_key(a), file_key(b));

	return order ? order : (a->start > b->start) - (a->start < b->start);
}

static int order_by_size(const void *left, const void *right)
{
	const struct mapping *a = *(const struct mapping *const *)left;
	const struct mapping *b = *(const struct mapping *const *)right;
	int order = descending(a->end - a->start, b->end - b->start);

	return order ? order : (int)a->type - (int)b->type;
}

static bool is_same_file(const struct mapping *a, const struct mapping *b)
{
	return !strcmp(file_key(a), file_key(b));
}

static bool is_same_size(const struct mapping *a, const struct mapping *b)
{
	return a->end - a->start == b->end - b->start && a->type == b->type;
}

static struct error *group_runs(const struct mapping_vec *maps,
				int (*order)(const void *left, const void *right),
				bool (*is_same)(const struct mapping *a, const struct mapping *b),
				struct map_group_vec *ret)
{
	cleanup(free) const struct mapping **sorted = calloc(maps->size + 1, sizeof(*sorted));
	struct error *error = NULL;

	if (!sorted)
		return &error_no_memory;
	for (size_t i = 0; i < maps->size; i++)
		sorted[i] = &maps->data[i];
	qsort(sorted, maps->size, sizeof(*sorted), order);
	for (size_t i = 0; !error && i < maps->size; i++) {
		if (!i || !is_same(sorted[i - 1], sorted[i])) {
			struct map_group group = {
				.key = file_key(sorted[i]),
				.type = sorted[i]->type,
				.each = is_same == is_same_size ? sorted[i]->end - sorted[i]->start
								: 0,
			};

			error = map_group_vec_append(ret, &group);
		}
		if (!error)
			add(&ret->data[ret->size - 1].sum, sorted[i]);
	}
	return error;
}

struct error *maps_by_file(const struct mapping_vec *maps, struct map_group_vec *ret)
{
	struct error *error = group_runs(maps, order_by_file, is_same_file, ret);

	sort_groups(ret, compare_rss);
	return error;
}

struct error *maps_by_size(const struct mapping_vec *maps, struct map_group_vec *ret)
{
	struct error *error = group_runs(maps, order_by_size, is_same_size, ret);

	sort_groups(ret, compare_size);
	return error;
}

/* ---- two looks ---- */

const char *map_change_name(enum map_change_kind kind)
{
	static const char *const names[] = {
		[MAP_NEW] = "new",
		[MAP_GONE] = "gone",
		[MAP_GREW] = "grew",
		[MAP_SHRANK] = "shrank",
	};

	return names[kind];
}

static int compare_changes(const void *left, const void *right)
{
	const struct map_change *a = left, *b = right;

	if (a->rss != b->rss)
		return a->rss > b->rss ? -1 : 1;
	if (a->size != b->size)
		return a->size > b->size ? -1 : 1;
	return a->mapping->start < b->mapping->start ? -1 : a->mapping->start > b->mapping->start;
}

/*
 * What is compared: a mapping, or a heap of an arena together with the rest of its reserve, which
 * shrinks by what the heap grows.
 */
struct piece {
	const struct mapping *mapping;
	uint64_t start, end;
	struct map_sum sum;
};

static bool is_reserve_of(const struct mapping *reserve, const struct mapping *heap)
{
	const unsigned access = PERM_READ | PERM_WRITE | PERM_EXEC;

	/* Without usage, size is all that tells. */
	return heap->usage_known && heap->type == MAPPING_ARENA && reserve->type == MAPPING_ARENA &&
	       heap->end == reserve->start && (heap->perms & PERM_WRITE) &&
	       !(reserve->perms & access);
}

/* The piece at *index_ret, which is then that of the next; false: there is none. */
static bool take_piece(const struct mapping_vec *maps, size_t *index_ret, struct piece *ret)
{
	const struct mapping *mapping = maps->data + *index_ret;

	if (*index_ret >= maps->size)
		return false;
	*ret = (struct piece){ mapping, mapping->start, mapping->end, { 0 } };
	add(&ret->sum, mapping);
	++*index_ret;
	if (*index_ret < maps->size && is_reserve_of(mapping + 1, mapping)) {
		ret->end = mapping[1].end;
		add(&ret->sum, mapping + 1);
		++*index_ret;
	}
	return true;
}

/* Either may be NULL: it was not there. */
static struct error *note_change(const struct piece *before, const struct piece *now,
				 struct map_change_vec *ret)
{
	struct map_sum old = { 0 }, new = { 0 };
	struct map_change change = { .mapping = now ? now->mapping : before->mapping };

	if (before)
		old = before->sum;
	if (now)
		new = now->sum;
	change.size = (int64_t)(new.size - old.size);
	change.rss = (int64_t)(new.rss - old.rss);
	change.pss = (int64_t)(new.pss - old.pss);
	change.private_dirty = (int64_t)(new.private_dirty - old.private_dirty);
	change.swap = (int64_t)(new.swap - old.swap);
	if (!before)
		change.kind = MAP_NEW;
	else if (!now)
		change.kind = MAP_GONE;
	else if (!change.size && !change.rss && !change.private_dirty && !change.swap)
		return NULL;
	else
		change.kind = change.rss > 0 || (!change.rss && change.size + change.swap > 0)
				      ? MAP_GREW
				      : MAP_SHRANK;
	return map_change_vec_append(ret, &change);
}

struct error *maps_compare(const struct mapping_vec *before, const struct mapping_vec *now,
			   struct map_change_vec *ret)
{
	size_t i = 0, j = 0;
	struct piece old, new;
	bool has_old = take_piece(before, &i, &old), has_new = take_piece(now, &j, &new);
	struct error *error = NULL;

	while (!error && (has_old || has_new)) {
		bool takes_old = has_old && (!has_new || old.start < new.end);
		bool takes_new = has_new && (!has_old || new.start < old.end);

		error = note_change(takes_old ? &old : NULL, takes_new ? &new : NULL, ret);
		if (takes_old)
			has_old = take_piece(before, &i, &old);
		if (takes_new)
			has_new = take_piece(now, &j, &new);
	}
	if (ret->size)
		qsort(ret->data, ret->size, sizeof(*ret->data), compare_changes);
	return error;
}
