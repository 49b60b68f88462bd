/*
 * A process under seccomp. `filtered strict`: mode 1. `filtered mmap`, `filtered sigprocmask`,
 * `filtered madvise`, `filtered brk`: a filter kills it on that call. `filtered container`: a list
 * of allowed calls, EPERM for the rest. `filtered two`: the first two filters. `filtered memfd`:
 * EPERM for memfd_create.
 *
 * variants: 32
 */
#include "filter.h"

#ifdef SYS_mmap2
#define MMAP SYS_mmap2
#else
#define MMAP SYS_mmap
#endif

static void kill_on(int call)
{
	filter_install(&call, 1, SECCOMP_RET_KILL_PROCESS, SECCOMP_RET_ALLOW);
}

static void allow_as_containers_do(void)
{
	static const int calls[] = {
		SYS_read,	  SYS_write,	     MMAP,
		SYS_munmap,	  SYS_mprotect,	     SYS_brk,
		SYS_futex,	  SYS_madvise,	     SYS_rt_sigprocmask,
		SYS_rt_sigaction, SYS_exit,	     SYS_clone,
		SYS_gettid,	  SYS_exit_group,    SYS_restart_syscall,
		SYS_poll,	  SYS_nanosleep,     SYS_rt_sigreturn,
		SYS_getpid,	  SYS_memfd_create,  SYS_close,
		SYS_dup3,	  SYS_wait4,	     SYS_ftruncate,
		SYS_mremap,	  SYS_rt_sigpending,
	};

	filter_install(calls, sizeof(calls) / sizeof(calls[0]), SECCOMP_RET_ALLOW,
		       SECCOMP_RET_ERRNO | EPERM);
}

int main(int argc, char **argv)
{
	const char *mode = argc > 1 ? argv[1] : "";
	int pid = (int)getpid();

	victim_init();
	if (!strcmp(mode, "mmap") || !strcmp(mode, "two"))
		kill_on(MMAP);
	if (!strcmp(mode, "sigprocmask") || !strcmp(mode, "two"))
		kill_on(SYS_rt_sigprocmask);
	if (!strcmp(mode, "madvise"))
		kill_on(SYS_madvise);
	if (!strcmp(mode, "brk"))
		kill_on(SYS_brk);
	if (!strcmp(mode, "memfd"))
		filter_install((int[]){ SYS_memfd_create }, 1, SECCOMP_RET_ERRNO | EPERM,
			       SECCOMP_RET_ALLOW);
	if (!strcmp(mode, "container"))
		allow_as_containers_do();
	if (!strcmp(mode, "strict"))
		check_that(!prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT), "seccomp");
	/* getpid() is not for strict mode. */
	say("ready %d", pid);
	victim_serve(NULL);
	/* Nor is exit_group(). */
	syscall(SYS_exit, 0);
	return 0;
}
