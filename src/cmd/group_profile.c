#include "group_profile.h"

#include <inttypes.h>
#include <time.h>

#include "memprobe/core.h"
#include "memprobe/num.h"

struct error *group_profile_create(const struct command_context *context, struct profile **ret)
{
	const struct target *target = context->target;
	cleanup(profile) struct profile *profile = NULL;
	struct timespec now;
	struct error *error = profile_create(&profile);

	if (!error)
		error = profile_intern(profile, target->name, &profile->name);
	if (!error)
		error = profile_intern(profile, target->exe, &profile->exe);
	if (error)
		return error;
	profile->pid = target->pid;
	/* When a core was written is not known. */
	if (!target_is_core(target)) {
		clock_gettime(CLOCK_REALTIME, &now);
		profile->time_us = (uint64_t)now.tv_sec * 1000000u + (uint64_t)now.tv_nsec / 1000u;
	}
	*ret = take_pointer(profile);
	return NULL;
}

struct error *group_profile_add(struct profile *profile, const char *const *names, size_t depth,
				uint64_t count, uint64_t bytes)
{
	int64_t values[PROFILE_COLUMNS] = {
		[PROFILE_COUNT] = (int64_t)min_u64(count, INT64_MAX),
		[PROFILE_BYTES] = (int64_t)min_u64(bytes, INT64_MAX),
	};
	struct profile_id_vec ids = { 0 };
	struct error *error = NULL;
	uint32_t stack;

	if (!count && !bytes)
		return NULL;
	for (size_t i = 0; !error && i < depth; i++) {
		const struct profile_frame frame = { .function = names[i] };
		uint32_t id;

		error = profile_add_frame(profile, &frame, &id);
		if (!error)
			error = profile_id_vec_append(&ids, &id);
	}
	if (!error)
		error = profile_add_stack(profile, ids.data, ids.size, &stack);
	if (!error)
		error = profile_add_site(profile, stack, values);
	profile_id_vec_deinit(&ids);
	return error;
}

const char *group_profile_size(uint64_t size, char buffer[GROUP_SIZE_MAX])
{
	snprintf(buffer, GROUP_SIZE_MAX, "%" PRIu64 " bytes", size);
	return buffer;
}

struct error *group_profile_write(struct command_context *context,
				  const struct profile_output *output, struct profile *profile)
{
	profile_sort(profile);
	return profile_output_write(context, output, profile, NULL);
}
