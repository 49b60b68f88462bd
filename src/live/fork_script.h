/* fork_script.h - what the target runs for a snapshot. Private to live/. */
#ifndef FORK_SCRIPT_H
#define FORK_SCRIPT_H

#include "script.h"

/*
 * A thread of the target maps an area and starts a helper thread in it. The helper parts with the
 * target's descriptors and its working directory, forks, waits for the end of the fork, unmaps the
 * area and exits. The fork is stopped at its first instruction; should it ever run, it exits.
 *
 * So neither the helper nor the fork has a descriptor of the target: what the target closes is
 * closed, and its record locks are its own. The helper never has any either: it shares the table
 * until close_range() gives it an empty one (CLOSE_RANGE_UNSHARE, Linux fs/file.c: the range is not
 * copied), so that no file is closed, or flushed, on its behalf.
 */
struct fork_script {
	uint64_t area, area_size;
	uint64_t helper_frame; /* where the helper's block lies */
	struct call_script outer_script, inner_script;
	struct block outer, inner, child;
	size_t fork_id; /* the inner script's data that holds the fork's process id */
};

/* ERROR_UNSUPPORTED where the kernel has no close_range() (before Linux 5.9). */
struct error *fork_script_write(struct target *target, struct fork_script *ret);

#endif
