/*
 * waits.h - what becomes of a system call that a thread sleeps in when the thread is stopped.
 *
 * Every stop by ptrace ends the sleep as a signal would. The kernel takes up again what it can;
 * some waits end with EINTR instead, though no signal came, and some transfers return with what
 * they have done so far. (Linux: signal_pending() in the sleeping function, and what it returns
 * then.)
 */
#ifndef MEMPROBE_WAITS_H
#define MEMPROBE_WAITS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "memprobe/arch.h"
#include "memprobe/process.h"

/* Who is best stopped comes first. */
enum wait_kind {
	WAIT_RESTARTS, /* goes on after a stop as if nothing had been */
	WAIT_RUNNING,  /* on a CPU or runnable, in which code is not known; or in no system call */
	WAIT_FAILS,    /* ends with EINTR, but can be made again: wait_is_repairable() */
	WAIT_UNKNOWN,
	WAIT_CUT,   /* may have been done in part: would return short */
	WAIT_STAYS, /* cannot be stopped before it is over by itself (vfork) */
};

/* What the first argument of a call is, where that is a descriptor. */
enum wait_file {
	WAIT_FILE_UNKNOWN, /* closed, or may not be looked at */
	WAIT_FILE_PIPE,
	WAIT_FILE_SOCKET,
	WAIT_FILE_ANON, /* eventfd, timerfd, signalfd, inotify ... */
	WAIT_FILE_TERMINAL,
	WAIT_FILE_OTHER,
};

/* From where a link in /proc/PID/fd leads, `pipe:[1234]`, and the type of the file there. */
enum wait_file wait_file_of(const char *link, mode_t mode);

/* Pure: by the call's number, its arguments and the kind of its descriptor. */
enum wait_kind wait_kind_of(const struct arch *arch, const struct process_syscall *call,
			    enum wait_file file);

/* Looks for itself what the thread is in. What cannot be told counts as running. */
enum wait_kind wait_kind_now(const struct process *process, const struct arch *arch, pid_t tid,
			     struct process_syscall *ret);

/*
 * Whether a call of WAIT_FAILS that has returned EINTR without a handler having run can be made
 * again as if nothing had been. close() on a network file system ends so, too, and its descriptor
 * is gone.
 */
bool wait_is_repairable(const struct process *process, const struct arch *arch, long nr,
			const uint64_t args[6]);

#define WAIT_TEXT_MAX 96

/*
 * In which call a thread is and where in the kernel, for messages: `in vfork()`,
 * `in read() (fuse_dev_do_read)`, `` if nothing is known. Returns @text.
 */
const char *wait_describe(const struct process *process, const struct arch *arch, pid_t tid,
			  char text[WAIT_TEXT_MAX]);

/* Whether a control group's freezer holds the thread: it does nothing until it is thawed. */
bool wait_is_frozen(const struct process *process, pid_t tid);

/*
 * What keeps a thread from stopping: `sleeps uninterruptibly in vfork() (kernel_clone)`, `has not
 * stopped in time`. Returns @text.
 */
const char *wait_describe_stuck(const struct process *process, const struct arch *arch, pid_t tid,
				char text[WAIT_TEXT_MAX]);

#endif
