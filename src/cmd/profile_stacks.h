/*
 * profile_stacks.h - turns recorded stacks of addresses into stacks of a profile.
 *
 * Each address is looked up once. Functions that were inlined become frames of their own.
 */
#ifndef CMD_PROFILE_STACKS_H
#define CMD_PROFILE_STACKS_H

#include "memprobe/profile.h"
#include "memprobe/target.h"

struct profile_stacks;

/*
 * @target: whose modules the addresses lie in; it need not live any more. Its modules become the
 * profile's mappings. Both must outlive the result.
 */
struct error *profile_stacks_create(struct target *target, struct profile *profile,
				    struct profile_stacks **ret);
void profile_stacks_destroy(struct profile_stacks *stacks);
CLEANUP_DEFINE(profile_stacks, struct profile_stacks *, profile_stacks_destroy)

/*
 * @pcs: as in stack_set.h, leaf first. A
 * truncated stack begins with a frame that says so. *stack_ret is the profile's number.
 */
struct error *profile_stacks_add(struct profile_stacks *stacks, const uint64_t *pcs, size_t depth,
				 bool truncated, uint32_t *stack_ret);

/* The same with @leaf, a frame of the profile, called by the stack's leaf. */
struct error *profile_stacks_add_leaf(struct profile_stacks *stacks, const uint64_t *pcs,
				      size_t depth, bool truncated, uint32_t leaf,
				      uint32_t *stack_ret);

#endif
