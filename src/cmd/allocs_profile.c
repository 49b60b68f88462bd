#include "allocs_profile.h"

#include <math.h>
#include <stdlib.h>

struct error *allocs_profile_set_columns(struct profile *profile,
					 const struct allocs_columns *columns)
{
	struct error *error = NULL;

	if (columns->all) {
		error = profile_set_column(profile, PROFILE_ALL_COUNT, "alloc_objects", "count");
		if (!error)
			error = profile_set_column(profile, PROFILE_ALL_BYTES, "alloc_space",
						   "bytes");
		profile->weight = PROFILE_ALL_BYTES;
	}
	if (!error && columns->reach)
		error = profile_set_column(profile, PROFILE_UNREACHABLE_COUNT,
					   "unreachable_objects", "count");
	if (!error && columns->reach)
		error = profile_set_column(profile, PROFILE_UNREACHABLE_BYTES, "unreachable_space",
					   "bytes");
	return error;
}

static int64_t rounded(double value)
{
	return value > 0 ? value < 9e18 ? llround(value) : INT64_MAX : 0;
}

bool allocs_site_values(const struct trace_site *site, bool all, int64_t ret[PROFILE_COLUMNS])
{
	for (size_t i = 0; i < PROFILE_COLUMNS; i++)
		ret[i] = 0;
	ret[PROFILE_COUNT] = rounded(site->live_count);
	ret[PROFILE_BYTES] = rounded(site->live_bytes);
	if (all) {
		ret[PROFILE_ALL_COUNT] = rounded(site->all_count);
		ret[PROFILE_ALL_BYTES] = rounded(site->all_bytes);
	}
	return ret[PROFILE_COUNT] || ret[PROFILE_ALL_COUNT];
}

/* Of a site. */
struct reach_sums {
	double freed_count, freed_bytes;
	double unreachable_count, unreachable_bytes;
};

/* By site; the caller frees it. NULL: out of memory. */
static struct reach_sums *sum_reach(const struct trace_data *data, const struct allocs_reach *reach)
{
	struct reach_sums *sums = calloc(data->sites.size + 1, sizeof(*sums));

	for (size_t i = 0; sums && i < data->blocks.size; i++) {
		const struct trace_block *block = &data->blocks.data[i];
		struct reach_sums *sum = &sums[block->site];
		double bytes = block->weight * (double)block->size;

		if (reach->fates[i] == ALLOCS_FREED) {
			sum->freed_count += block->weight;
			sum->freed_bytes += bytes;
		} else if (reach->fates[i] == ALLOCS_UNREACHABLE) {
			sum->unreachable_count += block->weight;
			sum->unreachable_bytes += bytes;
		}
	}
	return sums;
}

struct error *allocs_profile_fill(struct profile *profile, struct profile_stacks *stacks,
				  const struct trace_data *data,
				  const struct allocs_columns *columns)
{
	cleanup(free) struct reach_sums *sums =
		columns->reach ? sum_reach(data, columns->reach) : NULL;
	struct error *error = NULL;

	if (columns->reach && !sums)
		return &error_no_memory;
	for (size_t i = 0; !error && i < data->sites.size; i++) {
		struct trace_site site = data->sites.data[i];
		int64_t values[PROFILE_COLUMNS];
		uint32_t stack;

		if (sums) {
			site.live_count -= sums[i].freed_count;
			site.live_bytes -= sums[i].freed_bytes;
		}
		if (!allocs_site_values(&site, columns->all, values))
			continue;
		if (sums) {
			values[PROFILE_UNREACHABLE_COUNT] = rounded(sums[i].unreachable_count);
			values[PROFILE_UNREACHABLE_BYTES] = rounded(sums[i].unreachable_bytes);
		}
		error = profile_stacks_add(stacks, site.pcs, site.depth, site.truncated, &stack);
		if (!error)
			error = profile_add_site(profile, stack, values);
	}
	if (!error)
		profile_sort(profile);
	return error;
}
