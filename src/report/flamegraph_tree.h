/*
 * flamegraph_tree.h - the stacks of a profile merged into a tree, from the root or from the leaf.
 *
 *	flame_tree_init(&tree, profile, reverse);
 *	flame_tree_add(&tree, site);		every site
 *	flame_tree_finish(&tree, smallest, most);
 *
 * Frames of one name and one caller are one node, whatever their lines. finish() leaves of the
 * nodes those that are worth drawing and lists them in the order of drawing. A stack that only the
 * old profile has is as wide as it was there: what has gone is to be seen, too.
 */
#ifndef REPORT_FLAMEGRAPH_TREE_H
#define REPORT_FLAMEGRAPH_TREE_H

#include "memprobe/profile.h"
#include "string_pool.h"

#define FLAME_NONE UINT32_MAX

enum flame_sum {
	FLAME_VALUE,
	FLAME_COUNT,
	FLAME_OLD,
	FLAME_UNREACHABLE,
	FLAME_WIDE, /* what it is drawn as wide as: its value, and what only the old profile has */
	FLAME_SUMS
};

struct flame_node {
	uint32_t name; /* in tree.names */
	uint32_t parent;
	uint32_t level; /* 0: the root, of all stacks */
	int64_t x;	/* where it begins, in units of FLAME_WIDE; after finish() */
	int64_t placed; /* of it, taken by children; private */
	int64_t sums[FLAME_SUMS];
};

VEC_DEFINE(flame_node_vec, struct flame_node)

struct flame_tree {
	const struct profile *profile;
	bool reverse;
	struct string_pool names;
	uint32_t *frame_names;	     /* by frame id; FLAME_NONE: not met yet */
	struct flame_node_vec nodes; /* parents before children; [0] is the root */
	struct hash_index children;
	size_t negative; /* sites left out for being below zero */

	/* After finish(). */
	struct profile_id_vec drawn; /* node ids: a node, then its children by name */
	uint32_t levels;
	size_t hidden; /* nodes that are not in drawn */
};

struct error *flame_tree_init(struct flame_tree *tree, const struct profile *profile, bool reverse);
struct error *flame_tree_add(struct flame_tree *tree, const struct profile_site *site);
/* Nodes below @smallest of FLAME_WIDE are left out, and of the others all but the @most largest
 * (0: no such limit). Ancestors of what is drawn are always drawn. */
struct error *flame_tree_finish(struct flame_tree *tree, double smallest, size_t most);
void flame_tree_deinit(struct flame_tree *tree);

#endif
