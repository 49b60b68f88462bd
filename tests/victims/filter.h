/* filter.h - seccomp filters for victims: one answer for some system calls, allow for the rest. */
#ifndef FILTER_H
#define FILTER_H

#include "victim.h"

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>

#ifdef __x86_64__
#define FILTER_ARCH AUDIT_ARCH_X86_64
#else
#define FILTER_ARCH AUDIT_ARCH_I386
#endif

#define FILTER_CALLS_MAX 32

/* @listed for the @count calls, @other for the rest; another architecture is killed. Valid until
 * the next call. */
__attribute__((unused)) static struct sock_fprog *filter_make(const int *calls, unsigned count,
							      uint32_t listed, uint32_t other)
{
	static struct sock_filter code[FILTER_CALLS_MAX + 6];
	static struct sock_fprog program = { .filter = code };
	unsigned n = 0;

	code[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
						 offsetof(struct seccomp_data, arch));
	code[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, FILTER_ARCH, 1, 0);
	code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS);
	code[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
						 offsetof(struct seccomp_data, nr));
	for (unsigned i = 0; i < count; i++)
		code[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, calls[i],
							 count - i, 0);
	code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, other);
	code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, listed);
	program.len = (unsigned short)n;
	return &program;
}

__attribute__((unused)) static void filter_install(const int *calls, unsigned count,
						   uint32_t listed, uint32_t other)
{
	struct sock_fprog *program = filter_make(calls, count, listed, other);

	check_that(!prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs");
	check_that(!prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, program), "seccomp");
}

#endif
