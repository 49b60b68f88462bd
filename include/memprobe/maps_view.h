/*
 * maps_view.h - mappings and their sums as tables and as JSON.
 *
 * Tables leave usage columns out where @usage is false; JSON has null there.
 */
#ifndef MEMPROBE_MAPS_VIEW_H
#define MEMPROBE_MAPS_VIEW_H

#include "memprobe/mapgroup.h"
#include "memprobe/records.h"

struct maps_view {
	struct table_style style;
	bool usage;
};

/* In the order of @order, with a line of totals. */
struct error *maps_view_mappings(const struct maps_view *view, const struct mapping_vec *maps,
				 const struct mapping *const *order, FILE *out);

/* @heading names the first column. */
struct error *maps_view_groups(const struct maps_view *view, const char *heading,
			       const struct map_group_vec *groups, const struct map_sum *total,
			       FILE *out);

/* Only groups of several, the first @most of them. */
struct error *maps_view_sizes(const struct maps_view *view, const struct map_group_vec *groups,
			      size_t most, FILE *out);

/* With a line that sums them up; at most @most rows. */
struct error *maps_view_changes(const struct maps_view *view, const struct map_change_vec *changes,
				size_t most, FILE *out);

/* NULL: out of memory. */
json_t *maps_json_mappings(const struct mapping_vec *maps, const struct mapping *const *order,
			   bool usage);
/* The groups' keys go under the name @key. */
json_t *maps_json_groups(const struct map_group_vec *groups, const char *key, bool usage);
json_t *maps_json_sum(const struct map_sum *sum, bool usage);
json_t *maps_json_changes(const struct map_change_vec *changes, bool usage);

#endif
