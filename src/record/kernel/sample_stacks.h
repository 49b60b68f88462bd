/*
 * sample_stacks.h - the call stacks of samples, unwound outside of the target.
 *
 * By the unwind tables of unwind_table.h over the registers and stack bytes that each sample
 * carries. The tables are built before the recording; modules that the target loads later are added
 * by sample_stacks_tick().
 */
#ifndef RECORD_SAMPLE_STACKS_H
#define RECORD_SAMPLE_STACKS_H

#include "perf_events.h"
#include "memprobe/stack_set.h"

struct sample_stacks;

/* @target must outlive it. */
struct error *sample_stacks_create(struct target *target, struct sample_stacks **ret);
void sample_stacks_destroy(struct sample_stacks *stacks);
CLEANUP_DEFINE(sample_stacks, struct sample_stacks *, sample_stacks_destroy)

/*
 * From now on keeps the modules that are there at some time, their files open: they can be named
 * after the target has ended, or has unloaded them. To be called at most once.
 */
struct error *sample_stacks_keep_modules(struct sample_stacks *stacks);

/* What has the modules so kept, to symbolize by; it lives as long as @stacks. */
struct target *sample_stacks_modules(const struct sample_stacks *stacks);

/* The stack of a sample; it is never empty where the sample has registers. */
struct error *sample_stacks_add(struct sample_stacks *stacks, const struct perf_sample *sample,
				uint32_t *id_ret);

/* How far above the stack pointer the last sample's walk went, in bytes; UINT64_MAX: as far as its
 * stack was copied, but not to the end. */
uint64_t sample_stacks_reach(const struct sample_stacks *stacks);

/* To be called now and then: learns new modules. Cheap where nothing has changed. */
struct error *sample_stacks_tick(struct sample_stacks *stacks);

/* perf_poll() of a session that these stacks are of, with a tick. *alive_ret false: the target has
 * ended, or replaced its program. */
struct error *sample_stacks_poll(struct sample_stacks *stacks, struct perf_session *perf,
				 int timeout_ms, perf_visit *visit, void *data, bool *alive_ret);

/* It owns the set. */
const struct stack_set *sample_stacks_set(const struct sample_stacks *stacks);

/* How many samples had a stack that could not be followed to its end. */
uint64_t sample_stacks_truncated(const struct sample_stacks *stacks);

/* How many of these were not copied far enough, as it seems. */
uint64_t sample_stacks_cut(const struct sample_stacks *stacks);

#endif
