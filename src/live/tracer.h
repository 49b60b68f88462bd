/*
 * tracer.h - what the parts of the syscall tracer share; all of it is done by the tracing thread.
 * Private to live/.
 */
#ifndef TRACER_H
#define TRACER_H

#include <pthread.h>
#include <stdatomic.h>

#include "call_queue.h"
#include "memprobe/map64.h"
#include "memprobe/ptrace.h"
#include "memprobe/syscall_tracer.h"
#include "memprobe/vec.h"

#define CALLS_MAX 16

struct tracee {
	pid_t tid;
	bool gone, traced; /* traced: has been told to stop at system calls */
	bool interrupted;  /* by us, and has not stopped for it yet */
	bool parked;	   /* in its last stop, its wait repaired, until the others are, too */
	int call;	   /* index into `calls` of the one that it is in; -1: none of them */
	uint64_t args[6];
	uint64_t running_us; /* when it was last seen not to be stopped */
};

VEC_DEFINE(tracee_vec, struct tracee)

struct syscall_tracer {
	struct target *target;
	struct traced_syscall calls[CALLS_MAX];
	unsigned call_count;
	uint32_t stack_bytes;
	uint64_t max_pause_us;
	pthread_t thread;
	bool joined;
	struct call_queue queue;
	atomic_bool ending, ended, execed;
	atomic_uint_fast64_t stopped_us;
	atomic_int tracer; /* the id of the tracing thread */
	/* The tracing thread's own. */
	struct tracee_vec tracees;
	struct map64 by_tid; /* tid -> index into tracees */
	size_t living, untraced, parked;
	bool leaving;	   /* threads stay in their next stop by our interrupt */
	bool letting_go;   /* or are let go there */
	uint64_t woken_us; /* no thread that is stopped now was stopped before */
	uint8_t *stack;	   /* stack_bytes */
};

/* ---- syscall_tracer.c ---- */

/* Whatever happens to be reported of @tid, which goes on. */
struct error *tracer_handle(struct syscall_tracer *tracer, pid_t tid,
			    const struct ptrace_stop *stop);
void tracer_forget(struct syscall_tracer *tracer, struct tracee *tracee);
void tracer_interrupt_all(struct syscall_tracer *tracer);
/* That @tracee has been held until now. */
void tracer_note_held(struct syscall_tracer *tracer, struct tracee *tracee);

/* ---- tracer_leave.c ---- */

/*
 * One look at each, so that who stops often does not keep the others waiting. *found_ret: somebody
 * had something to tell.
 */
struct error *tracer_look_at_each(struct syscall_tracer *tracer, bool *found_ret);

/*
 * Lets all go. The kernel would when the tracing thread ends, but a wait that has ended only
 * because of us would not be repaired then.
 */
void tracer_leave(struct syscall_tracer *tracer);

#endif
