/*
 * snapshot.h - a frozen copy of a process's memory, to be read while the process goes on.
 *
 * All threads are stopped for an instant, their registers and stacks copied, and one of them is
 * made to start a helper thread, which forks; the fork stays stopped at its first instruction,
 * traced by memprobe. The helper sleeps in wait4() until the fork is gone, reaps it, unmaps
 * itself and exits. So the target sees no child: it has no exit signal, no ordinary wait() finds
 * it, and no zombie stays, also in PID 1 of a container. Neither the helper nor the fork has a
 * descriptor, a lock or a working directory of the target: a file that is closed meanwhile is
 * closed. If memprobe dies at any instant, the fork runs on into exit() by itself.
 *
 * The fork ends as soon as it is seen that the target has ended or runs another program; reading
 * then fails with ERROR_FAILED. exec() ends the helper, too: the new program then gets the fork
 * reaped by one remote call. (Only if memprobe is killed right then does a zombie stay, which no
 * ordinary wait() finds.) A process with one thread has two meanwhile: unshare(CLONE_NEWUSER) and
 * setns() into a user namespace fail with EINVAL.
 *
 * What both write to is copied meanwhile. Where the target has less left than it could take
 * (memory, tasks, commitment: its cgroups' limits, its user's, the machine's), or has private huge
 * pages of the pool, it is held from the start; where it gets short while the fork is read, the
 * fork goes, and reading fails with ERROR_FAILED, so that nobody is killed for it.
 *
 * The pause is that of a fork: 22-29 ms for a GiB of 4 KiB pages, 1-4 ms with huge pages.
 */
#ifndef MEMPROBE_SNAPSHOT_H
#define MEMPROBE_SNAPSHOT_H

#include <stdbool.h>
#include <stdint.h>

#include "memprobe/target.h"
#include "memprobe/thread_state.h"

enum snapshot_kind {
	SNAPSHOT_FORK,	  /* a frozen fork: the target runs */
	SNAPSHOT_STOPPED, /* the target itself, held until snapshot_destroy() */
	SNAPSHOT_STILL,	  /* not a process: a core has nothing to freeze */
};

struct snapshot {
	enum snapshot_kind kind;
	/* Reads as of the stop. What a fork does not get (MADV_DONTFORK) and what is shared with
	 * others (MAP_SHARED) is read as it is now; what it gets empty (MADV_WIPEONFORK) is zeros:
	 * only smaps tells those, which takes too long. */
	struct target *target;
	struct thread_state_vec threads; /* registers and stacks of the same instant */
	struct pid_vec missed;		 /* threads that did not stop: they have no state */
	uint64_t live_bytes;		 /* size of the mappings that are read live */
	/* What a fork has of memprobe's own, which the target never had; 0, 0: nothing. */
	uint64_t own_start, own_end;
	void *backend;
};

struct snapshot_options {
	bool all_registers; /* as in stop.h */
	/* Nobody asks for registers and stacks: threads that sleep are not stopped (stop.h). */
	bool memory_only;
	bool no_fork; /* hold the target while it is read */
	uint64_t timeout_us;
	/* The target is not stopped for longer, as far as that can be told before; 0: no limit. */
	uint64_t max_pause_us;
	bool (*interrupted)(void); /* as in stop.h; may be NULL */
};

/*
 * Freezes a live @target. Where it may not fork (seccomp, pids.max, overcommit, no memory, no room
 * for the stub) the target is held instead, with a warning that says why; one that a signal has
 * stopped is always held. ERROR_PERMISSION, ERROR_BUSY, ERROR_NO_TARGET as stop_threads() and
 * call_open(). A target that is no live process is passed through with SNAPSHOT_STILL, with the
 * registers that a core has.
 */
struct error *snapshot_take(struct target *target, const struct snapshot_options *options,
			    struct snapshot **ret);

/* The longest time that a thread was held, microseconds; grows while the target itself is held. */
uint64_t snapshot_stopped_us(const struct snapshot *snapshot);

/* When no more is to be read: as snapshot_destroy(), but what was read of it stays valid. */
void snapshot_release(struct snapshot *snapshot);

/* Ends the copy, or lets the target go on. The target given to snapshot_take() stays. */
void snapshot_destroy(struct snapshot *snapshot);
CLEANUP_DEFINE(snapshot, struct snapshot *, snapshot_destroy)

#endif
