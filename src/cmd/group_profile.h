/*
 * group_profile.h - groups of blocks as stacks, for the formats of profile_format.h: what tells a
 * group from the others are its frames, from the widest class of blocks to the narrowest.
 *
 *	group_profile_create(context, &profile);
 *	group_profile_add(profile, (const char *[]){ "Request", "48 bytes" }, 2, count, bytes);
 *	group_profile_write(context, &output, profile);
 */
#ifndef CMD_GROUP_PROFILE_H
#define CMD_GROUP_PROFILE_H

#include "memprobe/cmd.h"
#include "memprobe/profile.h"
#include "profile_output.h"

struct error *group_profile_create(const struct command_context *context, struct profile **ret);

/* Nothing is added for a group without blocks and bytes. Groups with the same @names add up. */
struct error *group_profile_add(struct profile *profile, const char *const *names, size_t depth,
				uint64_t count, uint64_t bytes);

/* What blocks of one size are called. */
#define GROUP_SIZE_MAX 32
const char *group_profile_size(uint64_t size, char buffer[GROUP_SIZE_MAX]);

/* Sorts it, and writes it in output->format, which is set. */
struct error *group_profile_write(struct command_context *context,
				  const struct profile_output *output, struct profile *profile);

#endif
