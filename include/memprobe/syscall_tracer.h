/*
 * syscall_tracer.h - tells of chosen system calls of all threads of a process, by ptrace(2).
 *
 *	syscall_tracer_start(target, &options, &tracer);
 *	repeat:	syscall_tracer_poll(tracer, timeout_ms, visit, data);
 *	syscall_tracer_stop(tracer);  syscall_tracer_poll(tracer, 0, visit, data);
 *	syscall_tracer_destroy(tracer);
 *
 * PTRACE_SYSCALL stops a thread twice for each of its system calls, the others included: dozens
 * of times slower than untraced. A thread of memprobe's own does it, at real-time priority where it
 * may; nothing that the caller does delays the target. Threads born later are traced from their
 * first instruction; other processes that the target makes are let go.
 *
 * The target loses nothing: signals and stops pass through unchanged, waits that attaching would
 * end with EINTR go on. The end of the tracing thread, and of memprobe at any instant, detaches
 * without stopping anything: no stop is consumed (see ptrace.h), so that a signal that is on its
 * way comes all the same.
 */
#ifndef MEMPROBE_SYSCALL_TRACER_H
#define MEMPROBE_SYSCALL_TRACER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/user.h>

#include "memprobe/target.h"

struct traced_syscall {
	int nr;	       /* in the target's own ABI; -1: it has none of these */
	bool indirect; /* the first argument points to the arguments: six words */
};

struct syscall_tracer_options {
	const struct traced_syscall *calls; /* need not outlive the start */
	unsigned call_count;
	uint32_t stack_bytes;  /* copied with each call, at most 64 KiB */
	uint64_t max_pause_us; /* as in stop.h */
};

/* A system call that has returned. */
struct traced_call {
	unsigned call; /* index into options.calls */
	pid_t tid;
	uint64_t time; /* ns, CLOCK_MONOTONIC: when it was seen to return */
	uint64_t args[6];
	uint64_t result; /* what it returned; -errno where it failed */
	bool failed;
	struct user_regs_struct regs; /* of user mode */
	const uint8_t *stack;	      /* from the stack pointer upwards; may be cut short */
	size_t stack_size;
};

/* What @call points to is gone when it returns. An error ends the poll. */
typedef struct error *syscall_visit(void *data, const struct traced_call *call);

struct syscall_tracer;

/*
 * Attaches to all threads, and returns when they are traced (or, where one does not stop in time,
 * soon will be). Errors as of stop_threads(); ERROR_UNSUPPORTED: before Linux 5.3. @target must
 * outlive it.
 */
struct error *syscall_tracer_start(struct target *target,
				   const struct syscall_tracer_options *options,
				   struct syscall_tracer **ret);

/* Waits until there is much to tell, at most @timeout_ms, and visits it, in the order in which the
 * calls were seen to return. */
struct error *syscall_tracer_poll(struct syscall_tracer *tracer, int timeout_ms,
				  syscall_visit *visit, void *data);

/* Detaches. What is still to be told can be polled. */
void syscall_tracer_stop(struct syscall_tracer *tracer);

/* The target has ended, or replaced its program; tracing is over then. */
bool syscall_tracer_ended(const struct syscall_tracer *tracer);
bool syscall_tracer_execed(const struct syscall_tracer *tracer);

/* Calls that could not be told since the caller had not polled for long. */
uint64_t syscall_tracer_lost(struct syscall_tracer *tracer);

/* The longest time that a thread was held in one stop, microseconds. */
uint64_t syscall_tracer_stopped_us(struct syscall_tracer *tracer);

void syscall_tracer_destroy(struct syscall_tracer *tracer);
CLEANUP_DEFINE(syscall_tracer, struct syscall_tracer *, syscall_tracer_destroy)

#endif
