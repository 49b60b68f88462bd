/*
 * seccomp.h - would a thread's seccomp filters let these system calls through?
 *
 * The filters are fetched from the stopped thread (PTRACE_SECCOMP_GET_FILTER, Linux
 * kernel/seccomp.c seccomp_get_filter(): needs CAP_SYS_ADMIN and that memprobe itself runs under
 * no filter) and run here on the system calls that memprobe is about to make in the thread.
 */
#ifndef MEMPROBE_SECCOMP_H
#define MEMPROBE_SECCOMP_H

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "memprobe/error.h"
#include "memprobe/vec.h"

/* One classic BPF program, as installed. */
struct seccomp_program {
	struct sock_filter *code; /* owned */
	unsigned length;	  /* instructions */
};

VEC_DEFINE(seccomp_program_vec, struct seccomp_program)

/* Zeroed: a thread without seccomp. */
struct seccomp_filters {
	bool strict;			     /* mode 1: only read, write, exit, sigreturn */
	struct seccomp_program_vec programs; /* in the order in which they were installed */
};

void seccomp_deinit(struct seccomp_filters *filters);

/*
 * Fetches the filters of @tid, which is seized and stopped. @mode is process_status.seccomp, read
 * while it is stopped; for 0 and 1 nothing is asked. One ptrace call a filter, no simulation: the
 * stop stays short. ERROR_PERMISSION: memprobe may not look at them; ERROR_UNSUPPORTED: the kernel
 * cannot show them.
 */
struct error *seccomp_load(pid_t tid, int mode, struct seccomp_filters *ret);

/*
 * Whether a program is one the kernel would have accepted (net/core/filter.c bpf_check_classic(),
 * kernel/seccomp.c seccomp_check_filter()). ERROR_UNSUPPORTED names the instruction.
 */
struct error *seccomp_program_check(const struct seccomp_program *program);

/* What the program returns; ends, whatever the program: jumps only lead forward. Of a program
 * that fails the check: SECCOMP_RET_KILL_PROCESS. */
uint32_t seccomp_program_run(const struct seccomp_program *program,
			     const struct seccomp_data *data);

/* Whether there may be arguments with which the program kills the caller or raises a signal in it:
 * true if that cannot be ruled out. The answers that fail a call or ask somebody do no harm. */
#define SECCOMP_ANY_CALL (-1) /* for @nr: whatever its number */
bool seccomp_program_may_harm(const struct seccomp_program *program, uint32_t audit_arch, int nr);

/*
 * The most restrictive of all filters' answers, SECCOMP_RET_ALLOW if there are none: the action
 * and, below SECCOMP_RET_DATA, its number. @nr as the kernel sees it: with bit 30 set it is an x32
 * call. @ip is where the system call instruction ends.
 */
uint32_t seccomp_action(const struct seccomp_filters *filters, uint32_t audit_arch, int nr,
			const uint64_t args[6], uint64_t ip);

struct seccomp_call {
	const char *name; /* for the message; NULL: its number */
	int nr;		  /* -1: the architecture has none; it is skipped */
	uint64_t args[6];
	bool may_fail; /* who makes it takes an error: only what kills or raises SIGSYS counts */
};

/*
 * NULL if all of the calls would be carried out (SECCOMP_RET_ALLOW or SECCOMP_RET_LOG; with
 * may_fail also if they would fail or ask somebody). Otherwise ERROR_PERMISSION naming the first
 * that would not, and what would happen to the thread.
 */
struct error *seccomp_allows(const struct seccomp_filters *filters, pid_t tid, uint32_t audit_arch,
			     uint64_t ip, const struct seccomp_call *calls, size_t count);

/* The same for a function of which it is not known what calls it makes: ERROR_PERMISSION names the
 * first that may do harm. */
struct error *seccomp_allows_anything(const struct seccomp_filters *filters, pid_t tid,
				      uint32_t audit_arch);

/* `kills the process`, `answers errno 1` ... for an action. Returns @buffer. */
#define SECCOMP_TEXT_MAX 48
const char *seccomp_action_text(uint32_t action, char buffer[SECCOMP_TEXT_MAX]);

#endif
