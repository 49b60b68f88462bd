/*
 * mapgroup.h - mappings added up, and what changed between two looks at them.
 *
 * All of it works on classified, sorted vectors and borrows their strings: keep them for as long.
 */
#ifndef MEMPROBE_MAPGROUP_H
#define MEMPROBE_MAPGROUP_H

#include "memprobe/maps.h"

struct map_sum {
	size_t count;
	uint64_t size, rss, pss, private_dirty, swap, huge; /* bytes */
};

struct map_group {
	const char *key; /* the type's name, or the path */
	enum mapping_type type;
	uint64_t each; /* by size only: what every one of them measures; else 0 */
	struct map_sum sum;
};

VEC_DEFINE(map_group_vec, struct map_group)

struct map_sum maps_total(const struct mapping_vec *maps);

/* Types that occur, those with most RSS first (without usage: size). */
struct error *maps_by_type(const struct mapping_vec *maps, struct map_group_vec *ret);

/* Files and named memory; what has no name goes by its type in brackets, e.g. `[anon]`. Order as
 * above. */
struct error *maps_by_file(const struct mapping_vec *maps, struct map_group_vec *ret);

/* Mappings of one type and size together, those that take most address space first. */
struct error *maps_by_size(const struct mapping_vec *maps, struct map_group_vec *ret);

enum map_change_kind { MAP_NEW, MAP_GONE, MAP_GREW, MAP_SHRANK };

struct map_change {
	enum map_change_kind kind;
	const struct mapping *mapping;		     /* as it is, or with MAP_GONE was */
	int64_t size, rss, pss, private_dirty, swap; /* now minus before */
};

VEC_DEFINE(map_change_vec, struct map_change)

/*
 * What is different: mappings that overlap are the same one, grown or moved at either end; each is
 * matched once, so that the changes add up to the difference of the totals. Those whose RSS grew
 * most first. A heap of an arena and the rest of its reserve, which shrinks by what that grows, are
 * one.
 */
struct error *maps_compare(const struct mapping_vec *before, const struct mapping_vec *now,
			   struct map_change_vec *ret);

const char *map_change_name(enum map_change_kind kind);

#endif
