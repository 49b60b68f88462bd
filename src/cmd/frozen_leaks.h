/*
 * frozen_leaks.h - a frozen heap made ready for the leak scan: what `leaks` and `allocs
 * --reachable` work on.
 *
 *	frozen_leaks_open(context, &leaks);
 *	leaks_find(leaks.frozen.heap, &leaks.options, &result);
 *	frozen_leaks_close(context, &leaks);		after failure, too
 */
#ifndef FROZEN_LEAKS_H
#define FROZEN_LEAKS_H

#include "frozen_heap.h"
#include "memprobe/leaks.h"

struct frozen_leaks {
	struct frozen_heap frozen;
	struct thread_vec threads;
	struct leak_prescan *prescan;
	struct leak_options options; /* points into this struct: do not move it */
};

/* *ret has to be zeroed. Warns of the threads that could not be stopped. */
struct error *frozen_leaks_open(struct command_context *context, struct frozen_leaks *ret);
void frozen_leaks_close(struct command_context *context, struct frozen_leaks *leaks);

/* Warns of the threads that could not be stopped. */
void frozen_leaks_warn_missed(const struct snapshot *snapshot);

/* Warns, and makes the exit status that of a partial output, if blocks could not be read. */
void frozen_leaks_warn(struct command_context *context, const struct leak_result *result);

#endif
