/*
 * ptrace.h - the one door to ptrace(2) and to waiting for what it reports.
 *
 * Rules that keep a target alive when memprobe is killed at any instant (Linux kernel/ptrace.c,
 * kernel/signal.c):
 * - Threads are SEIZEd, with PTRACE_O_TRACESYSGOOD from the start and never EXITKILL. Without
 *   TRACESYSGOOD a tracer that dies while its tracee is in a system call stop leaves it a SIGTRAP.
 * - Stops are looked at with WNOWAIT and never consumed: wait(2) would take the signal out of a
 *   signal-delivery-stop, and a tracer that dies before PTRACE_CONT would have lost it.
 * - Nothing here single-steps or sets debug registers.
 *
 * All of these must be called by the thread that seized. They return ERROR_FAILED with errnum
 * ESRCH when the thread is gone or not stopped.
 */
#ifndef MEMPROBE_PTRACE_H
#define MEMPROBE_PTRACE_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/ptrace.h>
#include <sys/types.h>
#include <sys/user.h>

#include "memprobe/error.h"

struct process;
struct arch;

enum ptrace_stop_kind {
	PTRACE_STOP_NONE,    /* timed out, or a signal came to memprobe: it still runs */
	PTRACE_STOP_TRAP,    /* by PTRACE_INTERRUPT, or a new thread's first stop */
	PTRACE_STOP_GROUP,   /* stopped by a stopping signal; `signal` says which */
	PTRACE_STOP_SIGNAL,  /* about to get `signal` */
	PTRACE_STOP_SYSCALL, /* entry or exit of a system call, under PTRACE_SYSCALL */
	PTRACE_STOP_EVENT,   /* `event` is PTRACE_EVENT_CLONE, ... */
	PTRACE_STOP_EXITED,  /* gone; it has been reaped */
};

struct ptrace_stop {
	enum ptrace_stop_kind kind;
	int signal;
	int event;
};

/* Any request; the result is never ignored. @what words the message: `cannot WHAT TID: WHY`. */
struct error *ptrace_call(enum __ptrace_request request, pid_t tid, uintptr_t address, void *data,
			  const char *what);

/* The same for requests whose answer is a number. */
struct error *ptrace_call_result(enum __ptrace_request request, pid_t tid, uintptr_t address,
				 void *data, const char *what, long *ret);

/* Attaches without stopping. @options beside PTRACE_O_TRACESYSGOOD. */
struct error *ptrace_seize(pid_t tid, unsigned long options);
struct error *ptrace_interrupt(pid_t tid);
/* From a stop; @signal 0: none. Logs failures: an undo path. */
void ptrace_detach(pid_t tid, int signal);
/* PTRACE_CONT, PTRACE_SYSCALL or PTRACE_LISTEN. */
struct error *ptrace_resume(enum __ptrace_request request, pid_t tid, int signal);
struct error *ptrace_get_regs(pid_t tid, struct user_regs_struct *ret);
/* Fills @state->regsets and sig_blocked as far as that can be had. */
struct thread_state;
void ptrace_get_all(pid_t tid, struct thread_state *state);
/*
 * What a thread in a stop does: in a PTRACE_STOP_SYSCALL the entry with number and arguments, or
 * the exit with the result, and by which ABI. ERROR_UNSUPPORTED: before Linux 5.3.
 */
struct error *ptrace_get_call(pid_t tid, struct __ptrace_syscall_info *ret);
/*
 * All registers at once. The kernel copies them one by one from our memory: @regs must be
 * resident (see ptrace_prepare()), so that a kill cannot fall between two of them.
 */
struct error *ptrace_set_regs(pid_t tid, const struct user_regs_struct *regs);
/* The arguments of the system call that a thread is in, or has come from. */
void ptrace_call_args(const struct arch *arch, const struct user_regs_struct *regs,
		      uint64_t args[6]);
/* The one-word commit. */
struct error *ptrace_set_pc(pid_t tid, uint64_t pc);

/*
 * Waits until @tid stops or exits, at most @timeout_us. Needs ptrace_prepare() before. A stop is
 * reported again on every call until the thread is resumed.
 */
struct error *ptrace_wait(pid_t tid, uint64_t timeout_us, struct ptrace_stop *ret);

/*
 * The same for whichever of the calling thread's tracees has something to tell. Where none has, it
 * waits until one may have, for 50 ms at most, and returns PTRACE_STOP_NONE: to be called again. A
 * SIGCHLD by pthread_kill() ends the wait, too. *tid_ret 0 with PTRACE_STOP_EXITED: there is no
 * tracee any more.
 */
struct error *ptrace_wait_any(uint64_t timeout_us, pid_t *tid_ret, struct ptrace_stop *ret);

/* Blocks SIGCHLD (waiting is by sigtimedwait) and locks memprobe's memory as far as it may. Once.
 */
void ptrace_prepare(void);

/*
 * Raises the calling thread to real time, else to nice -20, as far as it may: a released or a held
 * thread of the target must not run in front of its tracer. For threads of memprobe that end with
 * their work on a target; their end also detaches whatever would not stop.
 */
void ptrace_raise_priority(void);
/* Back to normal for work that holds nobody. */
void ptrace_restore_priority(void);

/*
 * Waits for the end of a thread of memprobe that traces @process, and reaps meanwhile those of its
 * threads that the tracer does not get to: an execve() in the target waits for that, and
 * PTRACE_SEIZE waits for the execve() (kernel: cred_guard_mutex), so that both would hang for ever.
 */
void ptrace_join(pthread_t tracer, const struct process *process);

/* What ptrace_join() does from time to time, for who waits for something else than the end. */
void ptrace_reap(const struct process *process);

/*
 * Stops by PTRACE_INTERRUPT end some waits with EINTR (epoll_wait, sigtimedwait, semtimedop ...;
 * kernel: they return -EINTR where others return -ERESTART*). In a PTRACE_STOP_TRAP or GROUP stop
 * this has the kernel put the thread back on its system call instruction when it goes on, unless it
 * then has a handler to run, which ends the wait: so no signal is missed, however late it comes. A
 * relative timeout starts anew. Not in a PTRACE_STOP_SYSCALL, after which the kernel need not look.
 * @regs are the thread's registers, before and after. Includes ptrace_avoid_restart_syscall().
 *
 * Until this is done, the death of memprobe leaves the thread with the EINTR. So it is the first
 * thing to be done after any such stop, before anything else is looked at.
 */
void ptrace_leave_wait(const struct process *process, const struct arch *arch, pid_t tid,
		       struct user_regs_struct *regs);

/* Both at once, for a thread that has just come to such a stop: repairs, and reads the registers.
 */
struct error *ptrace_take(const struct process *process, const struct arch *arch, pid_t tid,
			  struct user_regs_struct *ret);

/*
 * Sleeps, polls and timed waits for futexes go on after a stop by restart_syscall(2), which kills a
 * thread whose seccomp filter does not allow it. In a stop that may have interrupted one, before
 * anything else: where the filter does not allow it, or cannot be read, the thread will make its
 * own call again, with a relative time limit anew. @regs, the thread's, change with it. True: they
 * did.
 */
bool ptrace_avoid_restart_syscall(const struct process *process, const struct arch *arch, pid_t tid,
				  struct user_regs_struct *regs);
/* The same for who has no use for the registers. */
void ptrace_avoid_restart(const struct process *process, const struct arch *arch, pid_t tid);

/*
 * The mask that a thread has outside of system calls that wait with one of their own; such waits
 * (arch->masked_waits) are shown differently by kernels before 4.20.
 */
struct error *ptrace_get_mask(pid_t tid, uint64_t *ret);
struct error *ptrace_set_mask(pid_t tid, uint64_t mask);

/* Whether a stopped thread is, or may be, under a seccomp filter (mode 2, not the strict mode). */
bool ptrace_is_filtered(const struct process *process, pid_t tid);

/* In a signal stop: the thread's own doing (a fault, abort()), not sent from outside. */
struct process_status;
bool ptrace_is_fault(pid_t tid, const struct process_status *process);

/*
 * Whether a held thread has its system calls dispatched to itself (PR_SET_SYSCALL_USER_DISPATCH, as
 * Wine does): those of code that it does not know would end in SIGSYS. False also on kernels that
 * do not tell: Linux has it since 5.11 and tells since 6.4.
 */
bool ptrace_has_dispatch(pid_t tid);

#endif
