/*
 * sleepers.h - threads that need no stop, since they sleep in the kernel. Private to live/.
 *
 * Who has not been on a CPU between two looks has changed nothing meanwhile: it has the same number
 * of context switches after as before, and is in the same system call.
 */
#ifndef SLEEPERS_H
#define SLEEPERS_H

#include "memprobe/process.h"
#include "memprobe/target.h"
#include "memprobe/waits.h"

struct sleeper {
	pid_t tid;
	enum wait_kind kind;
	struct process_syscall call;
	uint64_t switches;
};

VEC_DEFINE(sleeper_vec, struct sleeper)

/*
 * Looks at all threads of @target until all sleep, or those that do not turn out to be busy: tens
 * of milliseconds at most. What a thread does that is never seen asleep cannot be told; to stop it
 * cuts short what it may be doing. @unless: those that do not count as sleepers, unless they are in
 * a transfer. Appends each thread that lives to one of the two.
 */
struct error *sleepers_find(const struct target *target, const struct pid_vec *unless,
			    struct sleeper_vec *sleepers, struct pid_vec *awake, bool *quiet_ret);

/* Waits until all of @tids sleep at the same time, and in no transfer; tens of milliseconds at
 * most. */
void sleepers_await(const struct target *target, const struct pid_vec *tids);

/*
 * Appends those who have been awake since. Of who is in the same transfer still, that it was on a
 * CPU for its next part does not count: so far it has not returned to the program.
 */
struct error *sleepers_check(const struct target *target, const struct sleeper_vec *sleepers,
			     struct pid_vec *woken);

#endif
