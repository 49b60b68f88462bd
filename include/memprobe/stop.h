/*
 * stop.h - holds all threads of a process for an instant and takes their registers and stacks.
 *
 * Nothing is worked out while the target is held: the registers and stack bytes are copied, the
 * threads released, and unwinding (unwind.h) and naming (symbols.h) happen afterwards.
 *
 * The work is done by a thread of memprobe's own, which runs at real-time priority where that is
 * permitted. The kernel detaches what is still attached when that thread ends, and when memprobe
 * dies at any instant: no path leaves a thread of the target held.
 */
#ifndef MEMPROBE_STOP_H
#define MEMPROBE_STOP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "memprobe/process.h"
#include "memprobe/target.h"
#include "memprobe/thread_state.h"

#define STOP_STACK_MAX	 (256u << 10)
#define STOP_STACK_TOTAL (64u << 20)

struct stop;

struct stop_options {
	const pid_t *tids; /* only these are stopped; NULL: every thread */
	size_t tid_count;
	size_t stack_max;   /* bytes copied per thread; 0: STOP_STACK_MAX */
	size_t stack_total; /* bytes copied of all threads; 0: STOP_STACK_TOTAL */
	bool no_stacks;	    /* registers only */
	/* For how long threads that have stopped may wait for others that have not; 0: 100 ms. On a
	 * busy machine it takes a thread milliseconds to come to its stop. */
	uint64_t patience_us;
	/* --max-pause: how long a thread may be stopped, by an estimate made before; 0: no limit.
	 */
	uint64_t max_pause_us;
	bool all_registers; /* also thread_state.regsets */
	/*
	 * Who sleeps in a system call is not stopped, so that it has no state in the result: only
	 * that nobody changes the memory counts. Who was awake nonetheless is told in stop.woken,
	 * too late: the caller does all again, with those in @unless, who are then stopped even if
	 * they sleep. Never stopped asleep is who is in a transfer that a stop would cut short.
	 * @use is offered those that are stopped anyway, then sleepers whom a stop does not harm.
	 * Not with @tids or @held.
	 */
	bool sleepers_run_on;
	const struct pid_vec *unless;
	/* Asked between waits; true releases everything and fails. May be NULL. */
	bool (*interrupted)(void);
	/*
	 * For who wants more of a stop than a copy; each may be NULL and is called by the thread
	 * that traces. @use: while all are held, offered one thread after another until it says
	 * that it has taken one over and detached it. @held: then, for as long as the others are to
	 * be held;
	 * @after: when all have been released. These two take over @stop, or @error; only the
	 * return of @after ends the tracing thread, and with that detaches what else it traces by
	 * then. At most one of them may be given; *ret is not set then.
	 */
	bool (*use)(void *data, pid_t tid, struct user_regs_struct *regs);
	void (*held)(void *data, struct stop *stop, struct error *error);
	void (*after)(void *data, struct stop *stop, struct error *error);
	void *data;
	/* With @held: raised to the longest time that a thread was held, @held included. May be
	 * NULL. */
	uint64_t *stopped_us_ret;
};

/* What one stop found. */
struct stop {
	struct thread_state_vec threads; /* in the order of /proc/PID/task */
	/* Threads that did not stop in time (in an uninterruptible wait), in no order. */
	struct pid_vec missed;
	struct pid_vec woken; /* with sleepers_run_on: ran before the others were released */
	pid_t in_transfer;    /* likewise: one that no stop may cut short; 0: none is */
	uint64_t stopped_us;  /* the longest time that a thread was held */
	/* Threads were born faster than they could be stopped: some were left running. */
	bool incomplete;
};

/*
 * Stops the threads of a live @target at one common instant, copies, and releases them. A thread
 * that takes too long to stop, on a busy machine, is taken by itself afterwards. Waits that
 * the stop alone would have ended with EINTR go on. Threads that had been stopped by a signal stay
 * so. NULL @options: the defaults.
 *
 * ERROR_UNSUPPORTED: not a live process. ERROR_PERMISSION: may not attach. ERROR_NO_TARGET: it
 * vanished, or has none of the given threads. ERROR_BUSY: as stop_check(). ERROR_FAILED:
 * interrupted.
 */
struct error *stop_threads(struct target *target, const struct stop_options *options,
			   struct stop **ret);

/*
 * ERROR_BUSY if not one thread of @target has stopped, with the reason: it sleeps uninterruptibly,
 * say. stop_threads() has asked that itself, but for who is called back.
 */
struct error *stop_check(struct target *target, const struct stop *stop);

void stop_destroy(struct stop *stop);
CLEANUP_DEFINE(stop, struct stop *, stop_destroy)

#endif
