/*
 * frozen_heap.h - a snapshot of the target and the heap in it: what `leaks` and `heap` work on.
 */
#ifndef FROZEN_HEAP_H
#define FROZEN_HEAP_H

#include "memprobe/cmd.h"
#include "memprobe/heap.h"
#include "memprobe/object_type.h"
#include "memprobe/snapshot.h"

/* By --no-fork, --timeout and --max-pause. */
struct snapshot_options command_snapshot_options(const struct command_context *context);

struct frozen_heap {
	struct snapshot *snapshot;
	struct heap *heap; /* of snapshot->target */
};

/*
 * Takes a snapshot, or holds the target if --no-fork is given or it may not fork, and reads its
 * heap. A thread may have been caught in malloc: another snapshot may be luckier, so a few are
 * taken. Warns of what is wrong with the last. @observer may be NULL.
 */
struct error *frozen_heap_open(struct command_context *context,
			       const struct heap_observer *observer, struct frozen_heap *ret);

/* The same for what is only to be written down: @frozen->heap stays, its memory is not read. */
void frozen_heap_release(struct command_context *context, const struct frozen_heap *frozen);

/* Notes for how long the target was held. Afterwards it may go on. */
void frozen_heap_close(struct command_context *context, struct frozen_heap *frozen);

/* Says as a warning that classes may be unknown for want of the program's files. @types may be
 * NULL. */
void frozen_heap_warn_of_types(const struct object_types *types);

/* For the options of such a command. */
#define OPTION_NO_FORK                                                                            \
	{                                                                                         \
		"no-fork", 0, NULL, "hold the target while it is read, instead of reading a copy" \
	}

#endif
