/*
 * allocs_profile.h - recorded allocations as a profile.
 */
#ifndef ALLOCS_PROFILE_H
#define ALLOCS_PROFILE_H

#include "allocs_reach.h"
#include "memprobe/profile.h"
#include "memprobe/trace.h"
#include "profile_stacks.h"

struct allocs_columns {
	bool all;			  /* what was allocated, also as the weight */
	const struct allocs_reach *reach; /* what nothing points to; NULL: not known */
};

/* Names the columns. */
struct error *allocs_profile_set_columns(struct profile *profile,
					 const struct allocs_columns *columns);

/* The figures of a site, estimates rounded. False: nothing is left of it. */
bool allocs_site_values(const struct trace_site *site, bool all, int64_t ret[PROFILE_COLUMNS]);

/* Adds all sites, and sorts them. @stacks are those of @profile. */
struct error *allocs_profile_fill(struct profile *profile, struct profile_stacks *stacks,
				  const struct trace_data *data,
				  const struct allocs_columns *columns);

#endif
