#include "flamegraph_tree.h"

#include <stdlib.h>
#include <string.h>

/* More levels than a stack has in earnest; the rest of a stack is cut off. */
#define LEVELS_MAX 4096

static struct error *add_name(struct flame_tree *tree, uint32_t frame_id, uint32_t *ret)
{
	cleanup(free) char *label = NULL;
	struct error *error;

	if (tree->frame_names[frame_id] == FLAME_NONE) {
		label = profile_frame_label(&tree->profile->frames.data[frame_id]);
		if (!label)
			return &error_no_memory;
		error = string_pool_add(&tree->names, label, strlen(label),
					&tree->frame_names[frame_id]);
		if (error)
			return error;
	}
	*ret = tree->frame_names[frame_id];
	return NULL;
}

struct error *flame_tree_init(struct flame_tree *tree, const struct profile *profile, bool reverse)
{
	struct flame_node root = { .parent = FLAME_NONE };
	struct error *error;

	*tree = (struct flame_tree){ .profile = profile, .reverse = reverse };
	tree->frame_names = reallocarray(NULL, profile->frames.size + 1, sizeof(uint32_t));
	if (!tree->frame_names)
		return &error_no_memory;
	memset(tree->frame_names, 0xff, (profile->frames.size + 1) * sizeof(uint32_t));
	error = string_pool_add(&tree->names, "all", 3, &root.name);
	return error ? error : flame_node_vec_append(&tree->nodes, &root);
}

struct child_key {
	const struct flame_tree *tree;
	uint32_t parent, name;
};

static bool same_child(const void *context, uint32_t id)
{
	const struct child_key *key = context;
	const struct flame_node *node = &key->tree->nodes.data[id];

	return node->parent == key->parent && node->name == key->name;
}

static struct error *find_child(struct flame_tree *tree, uint32_t parent, uint32_t name,
				uint32_t *ret)
{
	struct child_key key = { tree, parent, name };
	uint32_t hash = hash_fold(hash_word(hash_word(HASH_SEED, parent), name));
	uint32_t id = hash_index_find(&tree->children, hash, same_child, &key);
	struct flame_node node = { .name = name, .parent = parent };
	struct error *error = NULL;

	if (id == HASH_INDEX_NONE) {
		if (tree->nodes.size >= FLAME_NONE)
			return &error_no_memory;
		id = tree->nodes.size;
		node.level = tree->nodes.data[parent].level + 1;
		error = flame_node_vec_append(&tree->nodes, &node);
		if (!error)
			error = hash_index_add(&tree->children, hash, id);
	}
	if (!error)
		*ret = id;
	return error;
}

static void add_sums(struct flame_node *node, const int64_t sums[FLAME_SUMS])
{
	for (size_t i = 0; i < FLAME_SUMS; i++)
		node->sums[i] = profile_sum(node->sums[i], sums[i]);
}

static int64_t at_least_0(int64_t value)
{
	return value > 0 ? value : 0;
}

struct error *flame_tree_add(struct flame_tree *tree, const struct profile_site *site)
{
	int64_t weight = site->values[tree->profile->weight];
	int64_t sums[FLAME_SUMS] = {
		[FLAME_VALUE] = at_least_0(weight),
		[FLAME_COUNT] = at_least_0(site->values[profile_weight_count(tree->profile)]),
		[FLAME_OLD] = at_least_0(site->values[PROFILE_OLD_BYTES]),
		[FLAME_UNREACHABLE] = at_least_0(site->values[PROFILE_UNREACHABLE_BYTES]),
	};
	size_t depth;
	const uint32_t *frames = profile_stack_frames(tree->profile, site->stack, &depth);
	uint32_t at = 0;

	tree->negative += weight < 0;
	sums[FLAME_WIDE] = sums[FLAME_VALUE] ? sums[FLAME_VALUE] : sums[FLAME_OLD];
	if (!sums[FLAME_WIDE])
		return NULL;
	add_sums(&tree->nodes.data[0], sums);
	for (size_t i = 0; i < depth && i < LEVELS_MAX; i++) {
		uint32_t name;
		struct error *error =
			add_name(tree, frames[tree->reverse ? depth - 1 - i : i], &name);

		if (!error)
			error = find_child(tree, at, name, &at);
		if (error)
			return error;
		add_sums(&tree->nodes.data[at], sums);
	}
	return NULL;
}

/* ---- what is drawn, and where ---- */

static int compare_values(const void *left, const void *right)
{
	const int64_t *a = left, *b = right;

	return *a > *b ? -1 : *a < *b;
}

/* The value from which on nodes are drawn. A parent is never smaller than its child. */
static struct error *find_threshold(const struct flame_tree *tree, double smallest, size_t most,
				    int64_t *ret)
{
	int64_t threshold = smallest < 1 ? 1 : smallest < 9e18 ? (int64_t)smallest : INT64_MAX;
	cleanup(free) int64_t *values = NULL;
	size_t count = 0;

	threshold += (double)threshold < smallest;
	if (most && tree->nodes.size > most) {
		values = reallocarray(NULL, tree->nodes.size, sizeof(*values));
		if (!values)
			return &error_no_memory;
		vec_for_each (node, &tree->nodes)
			if (node->sums[FLAME_WIDE] >= threshold)
				values[count++] = node->sums[FLAME_WIDE];
		if (count > most) {
			qsort(values, count, sizeof(*values), compare_values);
			/* Of equal ones all or none. */
			threshold = values[most] < INT64_MAX ? values[most] + 1 : INT64_MAX;
		}
	}
	*ret = threshold;
	return NULL;
}

/* A node among its siblings. */
struct place {
	const char *name;
	uint32_t parent, id;
};

static int compare_places(const void *left, const void *right)
{
	const struct place *a = left, *b = right;

	if (a->parent != b->parent)
		return a->parent < b->parent ? -1 : 1;
	return strcmp(a->name, b->name);
}

struct siblings {
	size_t first, end; /* in the sorted places */
};

/* By parents first, so that the children of a node are neighbours. */
static struct error *sort_places(const struct flame_tree *tree, struct place *places, size_t count,
				 struct siblings **ret)
{
	struct siblings *children = calloc(tree->nodes.size, sizeof(*children));

	if (!children)
		return &error_no_memory;
	qsort(places, count, sizeof(*places), compare_places);
	for (size_t i = 0; i < count; i++) {
		struct siblings *siblings = &children[places[i].parent];

		if (!siblings->end)
			siblings->first = i;
		siblings->end = i + 1;
	}
	*ret = children;
	return NULL;
}

/* Depth first, without recursion: stacks may be deep. */
static struct error *place_all(struct flame_tree *tree, const struct place *places,
			       struct siblings *children)
{
	uint32_t at = 0;
	struct error *error = profile_id_vec_append(&tree->drawn, &at);

	while (!error) {
		struct siblings *left = &children[at];
		struct flame_node *parent = &tree->nodes.data[at], *node;

		if (left->first == left->end) {
			at = parent->parent;
			if (at == FLAME_NONE)
				break;
			continue;
		}
		at = places[left->first++].id;
		node = &tree->nodes.data[at];
		node->x = profile_sum(parent->x, parent->placed);
		parent->placed = profile_sum(parent->placed, node->sums[FLAME_WIDE]);
		if (node->level >= tree->levels)
			tree->levels = node->level + 1;
		error = profile_id_vec_append(&tree->drawn, &at);
	}
	return error;
}

struct error *flame_tree_finish(struct flame_tree *tree, double smallest, size_t most)
{
	cleanup(free) struct siblings *children = NULL;
	cleanup(free) struct place *places = reallocarray(NULL, tree->nodes.size, sizeof(*places));
	int64_t threshold;
	size_t count = 0;
	struct error *error;

	if (!places)
		return &error_no_memory;
	error = find_threshold(tree, smallest, most, &threshold);
	if (error)
		return error;
	for (uint32_t id = 1; id < tree->nodes.size; id++) {
		const struct flame_node *node = &tree->nodes.data[id];

		if (node->sums[FLAME_WIDE] >= threshold)
			places[count++] =
				(struct place){ string_pool_text(&tree->names, node->name),
						node->parent, id };
	}
	tree->levels = 1;
	tree->hidden = tree->nodes.size - 1 - count;
	error = sort_places(tree, places, count, &children);
	return error ? error : place_all(tree, places, children);
}

void flame_tree_deinit(struct flame_tree *tree)
{
	string_pool_deinit(&tree->names);
	free(tree->frame_names);
	flame_node_vec_deinit(&tree->nodes);
	hash_index_deinit(&tree->children);
	profile_id_vec_deinit(&tree->drawn);
}
