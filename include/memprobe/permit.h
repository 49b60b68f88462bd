/*
 * permit.h - why may memprobe not look at, or attach to, a process, and what would allow it.
 *
 * The kernel answers EPERM or EACCES and no more. permit_judge() repeats its checks on what /proc
 * tells, in its order: Linux kernel/ptrace.c ptrace_attach() and __ptrace_may_access(),
 * security/commoncap.c cap_ptrace_access_check(), security/yama/yama_lsm.c. It is a pure function
 * over `struct permit_facts`, which permit_collect() fills.
 */
#ifndef MEMPROBE_PERMIT_H
#define MEMPROBE_PERMIT_H

#include <stdbool.h>
#include <stdint.h>

#include "memprobe/error.h"
#include "memprobe/process.h"

/* What was tried. */
enum permit_power {
	PERMIT_MAPS,   /* PTRACE_MODE_READ: maps, smaps, pagemap, map_files */
	PERMIT_READ,   /* PTRACE_MODE_ATTACH: process_vm_readv, /proc/PID/mem, /proc/PID/syscall */
	PERMIT_ATTACH, /* PTRACE_SEIZE */
};

enum permit_reason {
	PERMIT_GRANTED, /* nothing known forbids it */
	PERMIT_VANISHED,
	PERMIT_KERNEL_THREAD,
	PERMIT_ZOMBIE,
	PERMIT_SELF,
	PERMIT_FILTERED,       /* a seccomp filter on memprobe itself */
	PERMIT_OTHER_USER,     /* uids or gids differ, and no CAP_SYS_PTRACE */
	PERMIT_USER_NAMESPACE, /* CAP_SYS_PTRACE is held, but not where the target lives */
	PERMIT_NOT_DUMPABLE,
	PERMIT_CAPABILITIES, /* the target may do more than memprobe */
	PERMIT_YAMA,
	PERMIT_LEADER_EXITED, /* the main thread has, others live: ask one of them */
	PERMIT_TRACED,
	PERMIT_FILE_MODE,	/* the file in /proc is its owner's alone */
	PERMIT_SECURITY_MODULE, /* a guess: nothing else explains it */
};

/* The target's user namespace, seen from memprobe's. */
enum permit_namespace {
	PERMIT_NS_UNKNOWN, /* the kernel does not let us look */
	PERMIT_NS_SAME,
	PERMIT_NS_BELOW, /* a descendant: our capabilities count there */
	PERMIT_NS_OWNED, /* made by our user: we have every capability there */
	PERMIT_NS_OUTSIDE,
};

enum { YAMA_ABSENT = -1, YAMA_OFF, YAMA_RESTRICTED, YAMA_ADMIN_ONLY, YAMA_NO_ATTACH };

struct permit_facts {
	pid_t pid;
	bool alive;
	bool is_self;
	struct process_status target, self;
	int dumpable; /* 1 yes, 0 no, -1 cannot be told (the target runs as root) */
	char tracer_name[64], parent_name[64];
	enum permit_namespace userns;
	bool userns_initial; /* memprobe is in the first user namespace: every other is below */
	int yama;	     /* YAMA_*: kernel.yama.ptrace_scope */
	bool descendant;     /* of memprobe, by the chain of parents */
	bool ptrace_filtered, readv_filtered; /* a seccomp filter refuses these calls to memprobe */
	char label[128],
		self_label[128]; /* of the security module (AppArmor, SELinux); "" if none */
};

struct error *permit_collect(const struct process *process, struct permit_facts *ret);

/*
 * What forbids @power. @errnum is what the kernel answered when it was tried; 0: it was not tried,
 * and PERMIT_GRANTED is given if nothing known forbids it.
 */
enum permit_reason permit_judge(const struct permit_facts *facts, enum permit_power power,
				int errnum);

/*
 * The judgement as an error: ERROR_NO_TARGET (vanished), ERROR_UNSUPPORTED (nobody could: kernel
 * thread, zombie, self) or ERROR_PERMISSION, with its hint; NULL with PERMIT_GRANTED.
 */
struct error *permit_error(const struct permit_facts *facts, enum permit_power power, int errnum);

/* All of it. Never NULL, as @errnum is not 0. */
struct error *permit_explain(const struct process *process, enum permit_power power, int errnum);

/* Whether memprobe holds CAP_SYS_PTRACE over the target. */
bool permit_is_capable(const struct permit_facts *facts);

/* Below @proc_fd, a descriptor of /proc. */
int permit_read_yama(int proc_fd);

/* Whether @capability (CAP_* of linux/capability.h) is in @set. */
static inline bool capability_in(uint64_t set, unsigned capability)
{
	return set >> capability & 1;
}

#endif
