/*
 * process.h - what /proc tells about a process, a thread, and this machine.
 *
 * Everything is opened below one directory descriptor of /proc/PID, so that a PID that is reused
 * midway shows as ESRCH instead of as another process.
 */
#ifndef MEMPROBE_PROCESS_H
#define MEMPROBE_PROCESS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "memprobe/vec.h"

VEC_DEFINE(pid_vec, pid_t)

struct process {
	pid_t pid;
	int dirfd;	     /* /proc/PID */
	uint64_t start_time; /* clock ticks after boot: with pid, the identity */
};

/*
 * ERROR_NO_TARGET if there is no such process; a zombie, a kernel thread and memprobe itself are
 * opened like any other (process_status() tells). A TID that is no thread group leader is answered
 * by ERROR_NO_TARGET with the leader in the hint.
 */
struct error *process_open(pid_t pid, struct process **ret);
void process_close(struct process *process);
CLEANUP_DEFINE(process, struct process *, process_close)

/* False once it has exited (a zombie is still there) or its PID has been given to another. */
bool process_is_alive(const struct process *process);

/* Whether nothing of it runs any more: it is gone, or a zombie that its parent has not waited for.
 */
bool process_has_ended(const struct process *process);

/* Those whose comm, or the last component of argv[0] or exe, is exactly @name; never memprobe
 * itself. */
struct error *process_find_by_name(const char *name, struct pid_vec *ret);

/* Fields of /proc/PID/status or /proc/PID/task/TID/status (and of stat where it says so). What a
 * kernel does not show is -1 or 0 as noted. */
struct process_status {
	char name[64]; /* comm, escapes undone */
	char state;    /* R S D T t Z X I */
	pid_t tgid, ppid, tracer_pid;
	pid_t ns_tid; /* the id in the innermost PID namespace; 0: unknown */
	uid_t uid, euid, suid, fsuid;
	gid_t gid, egid, sgid, fsgid;
	uint64_t cap_effective, cap_permitted;
	int seccomp;	     /* 0 none, 1 strict, 2 filter, -1 unknown */
	int seccomp_filters; /* count, -1 unknown */
	bool no_new_privs;
	bool kernel_thread; /* no mm: no Vm lines, or Kthread: 1 */
	bool shadow_stack;  /* x86_Thread_features: shstk */
	uint64_t sig_blocked, sig_ignored, sig_caught, sig_pending;
	uint64_t vm_size, vm_rss, vm_swap, vm_data; /* bytes */
	uint64_t rss_anon;			    /* of vm_rss; vm_rss before Linux 4.5 */
	uint64_t hugetlb; /* bytes of huge pages from the pool (hugetlbfs) */
	unsigned threads;
	uint64_t switches; /* how often it has left a CPU, whether it wanted to or not */
};

/* @tid 0: the process itself. ERROR_NO_TARGET if it is gone. */
struct error *process_read_status(const struct process *process, pid_t tid,
				  struct process_status *ret);

/* Every thread now alive (task/). Appends. */
struct error *process_list_threads(const struct process *process, struct pid_vec *tids);

/*
 * What a thread does, without stopping it (/proc/PID/task/TID/syscall; needs ptrace access).
 * running: on a CPU or runnable, nothing else is known.
 */
struct process_syscall {
	bool running;
	long nr; /* -1: stopped outside a system call */
	uint64_t args[6];
	uint64_t sp, pc;
};

struct error *process_read_syscall(const struct process *process, pid_t tid,
				   struct process_syscall *ret);

/* The CPU that a thread ran on last, -1: unknown. */
int process_last_cpu(const struct process *process, pid_t tid);

/* Clock ticks that a thread has spent in the program and in the kernel; the parts are estimates. */
bool process_cpu_time(const struct process *process, pid_t tid, uint64_t *user_ret,
		      uint64_t *system_ret);

/*
 * The soft limit that /proc/PID/limits calls @name (`Max stack size`); UINT64_MAX: unlimited, or
 * not known.
 */
uint64_t process_limit(const struct process *process, const char *name);

#endif
