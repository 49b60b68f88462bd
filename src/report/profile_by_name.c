#include "memprobe/profile.h"

#include <stdlib.h>

#include "memprobe/sites_table.h"

/* How much of a stack is copied. */
enum part { PART_ALL, PART_SITE, PART_SITE_AND_LEAF };

/* What is known of the whole. */
static struct error *copy_head(const struct profile *from, struct profile *to)
{
	struct error *error = NULL;

	for (unsigned i = 0; i < PROFILE_COLUMNS && !error; i++)
		error = profile_set_column(to, i, from->columns[i].name, from->columns[i].unit);
	if (!error)
		error = profile_intern(to, from->name, &to->name);
	if (!error)
		error = profile_intern(to, from->exe, &to->exe);
	to->time_us = from->time_us;
	to->duration_us = from->duration_us;
	to->period = from->period;
	to->events = from->events;
	to->lost = from->lost;
	to->pid = from->pid;
	to->weight = from->weight;
	return error;
}

/* The new number of each frame. */
static struct error *copy_frames(const struct profile *from, struct profile *to, uint32_t *ids)
{
	for (size_t i = 0; i < from->frames.size; i++) {
		char buffer[PROFILE_NAME_MAX];
		const struct profile_frame frame = {
			.function = profile_frame_name(&from->frames.data[i], buffer),
			.kernel = from->frames.data[i].kernel,
		};
		struct error *error = profile_add_frame(to, &frame, &ids[i]);

		if (error)
			return error;
	}
	return NULL;
}

/* The frames, root first, from @old: as far as the one that matters, and the leaf if asked for. */
static struct error *copy_part(const struct profile *from, const uint32_t *old, size_t depth,
			       enum part part, const uint32_t *ids, struct profile_id_vec *frames)
{
	size_t leaf = part == PART_SITE_AND_LEAF && depth ? depth - 1 : depth, end = depth;
	struct error *error = NULL;

	if (part != PART_ALL && leaf)
		end = site_frame_of_interest(from, old, leaf) + 1;
	for (size_t k = 0; k < depth && !error; k++)
		if (k < end || k == leaf)
			error = profile_id_vec_append(frames, &ids[old[k]]);
	return error;
}

static struct error *copy_sites(const struct profile *from, struct profile *to, enum part part,
				const uint32_t *ids)
{
	struct profile_id_vec frames = { 0 };
	struct error *error = NULL;

	for (size_t i = 0; i < from->sites.size && !error; i++) {
		const struct profile_site *site = &from->sites.data[i];
		uint32_t stack;
		size_t depth;
		const uint32_t *old = profile_stack_frames(from, site->stack, &depth);

		frames.size = 0;
		error = copy_part(from, old, depth, part, ids, &frames);
		if (!error)
			error = profile_add_stack(to, frames.data, frames.size, &stack);
		if (!error)
			error = profile_add_site(to, stack, site->values);
	}
	profile_id_vec_deinit(&frames);
	return error;
}

static struct error *copy_profile(const struct profile *profile, enum part part,
				  struct profile **ret)
{
	cleanup(free) uint32_t *ids = reallocarray(NULL, profile->frames.size + 1, sizeof(*ids));
	cleanup(profile) struct profile *copy = NULL;
	struct error *error = ids ? profile_create(&copy) : &error_no_memory;

	if (!error)
		error = copy_head(profile, copy);
	if (!error)
		error = copy_frames(profile, copy, ids);
	if (!error)
		error = copy_sites(profile, copy, part, ids);
	if (error)
		return error;
	profile_sort(copy);
	*ret = take_pointer(copy);
	return NULL;
}

struct error *profile_by_name(const struct profile *profile, struct profile **ret)
{
	return copy_profile(profile, PART_ALL, ret);
}

struct error *profile_by_site(const struct profile *profile, bool leaf, struct profile **ret)
{
	return copy_profile(profile, leaf ? PART_SITE_AND_LEAF : PART_SITE, ret);
}
