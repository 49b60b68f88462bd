/*
 * `under_filter PROGRAM ARG...`: the program, under a seccomp filter that refuses memfd_create with
 * EPERM: the agent cannot be brought into it.
 */
#include "filter.h"

int main(int argc, char **argv)
{
	if (argc < 2)
		return 2;
	filter_install((int[]){ SYS_memfd_create }, 1, SECCOMP_RET_ERRNO | EPERM,
		       SECCOMP_RET_ALLOW);
	execv(argv[1], argv + 1);
	return 2;
}
