/*
 * allocs_reach.h - which of the recorded blocks nothing points to any more.
 *
 * The recording says where a block is from, the leak scan whether anything still knows it.
 */
#ifndef ALLOCS_REACH_H
#define ALLOCS_REACH_H

#include "memprobe/cmd.h"
#include "memprobe/trace.h"

enum allocs_fate {
	ALLOCS_REACHABLE,
	ALLOCS_UNREACHABLE,
	ALLOCS_FREED, /* after the recording, before the heap was searched */
};

struct allocs_reach {
	uint8_t *fates;		     /* enum allocs_fate, by index into trace_data.blocks */
	uint64_t unreachable, freed; /* how many of them */
};

/* Whether the heap of this target can be walked. Reads ELF files only. */
struct error *allocs_reach_walks(struct target *target, bool *ret);

/*
 * Takes a snapshot of the target, in which the agent must not be any more, and looks for the
 * blocks of @data in its heap. *ret has to be zeroed.
 */
struct error *allocs_reach_find(struct command_context *context, const struct trace_data *data,
				struct allocs_reach *ret);
void allocs_reach_deinit(struct allocs_reach *reach);

#endif
