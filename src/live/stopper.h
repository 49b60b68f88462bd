/*
 * stopper.h - what the parts of stop_threads() share. Private to live/.
 *
 * stop_attach.c attaches to the threads and gets ready for the stop; stop_wait.c stops them and
 * lets them go; stop_copy.c copies their stacks and registers meanwhile; stop.c leads through all
 * that. All but what is noted is done by the one thread that traces.
 */
#ifndef STOPPER_H
#define STOPPER_H

#include "memprobe/map64.h"
#include "memprobe/stop.h"
#include "memprobe/vec.h"
#include "memprobe/waits.h"
#include "sleepers.h"

/* Passes over /proc/PID/task; each pass finds only threads born during the one before. */
#define PASSES_MAX 64

enum hold {
	HOLD_SEIZED,	  /* attached, running */
	HOLD_INTERRUPTED, /* asked to stop */
	HOLD_STOPPED,
	HOLD_LATE,     /* did not stop in time */
	HOLD_RELEASED, /* detached after it was stopped */
	HOLD_GONE,
};

struct held {
	pid_t tid;
	enum hold hold;
	enum wait_kind kind; /* shortly before the stop */
	uint64_t sp;	     /* likewise; 0: unknown */
	bool copied;	     /* `state` is complete; its stack points into the arena */
	uint64_t seized_us;
	uint64_t held_since_us; /* when it was last known not to be */
	struct thread_state state;
};

VEC_DEFINE(held_vec, struct held)

struct stopper {
	struct target *target;
	struct stop_options options;
	struct held_vec held; /* does not grow once threads are being stopped */
	struct pid_vec listing;
	struct map64 known;	     /* ids of those in `held`, and of the sleepers */
	struct sleeper_vec sleepers; /* who are not stopped */
	struct pid_vec awake, woken;
	bool quiet; /* those in `awake` were asleep when last seen */
	struct mapping_vec maps;
	uint8_t *arena; /* takes the stacks' bytes */
	size_t arena_size, arena_used;
	bool stopping;	/* from the first interrupt on */
	bool cancelled; /* by options.interrupted */
	bool lent;	/* options.held has been called */
	size_t late;	/* threads that were taken later than the others */
	bool overflow;	/* more threads were born than there is room for */
	uint64_t stopped_us;
	pid_t tracer; /* the stopper's own thread */
	struct error *error;
};

/* ---- stop_attach.c ---- */

/* Attaches to a thread, which does not stop it; one that exits is noted as gone. */
struct error *stopper_seize(struct stopper *stopper, pid_t tid);
/* To all that are to be stopped. */
struct error *stopper_seize_all(struct stopper *stopper);
/* To those that have been born since. */
struct error *stopper_seize_new(struct stopper *stopper, size_t *count_ret);
/* So that nothing needs memory, files or luck while threads are held. */
struct error *stopper_get_ready(struct stopper *stopper);
/* Names and states of those that have none yet. */
void stopper_read_names(struct stopper *stopper);

/* ---- stop_wait.c ---- */

void stopper_interrupt(struct held *held);
/* Until it has stopped, its wait repaired, or the time is over: HOLD_LATE. */
void stopper_wait_for(struct stopper *stopper, struct held *held, uint64_t deadline_us);
/* Stops what is attached, then what was born meanwhile, until nothing runs but the late ones. */
void stopper_stop_all(struct stopper *stopper);
void stopper_release(struct stopper *stopper, struct held *held);
/*
 * With everything else running again, each as it stops. What is in an uninterruptible wait does not
 * come to its stop, and is detached by the kernel as this thread ends.
 */
void stopper_take_late(struct stopper *stopper);

/* ---- stop_copy.c ---- */

/* Bytes of stacks that are expected to be copied. */
size_t stopper_expected_stacks(struct stopper *stopper);
/* Room for the stacks, @expected of it resident. */
struct error *stopper_make_arena(struct stopper *stopper, size_t expected);
/* Of a held thread. */
void stopper_copy(struct stopper *stopper, struct held *held);

#endif
