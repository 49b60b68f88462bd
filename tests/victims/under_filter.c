/*
 * `under_filter PROGRAM ARG...`: the program, under a seccomp filter that refuses memfd_create with
 * EPERM: the agent cannot be brought into it. `under_filter bpf PROGRAM ARG...`: refuses bpf.
 */
#include "filter.h"

int main(int argc, char **argv)
{
	int first = argc > 1 && !strcmp(argv[1], "bpf") ? 2 : 1;

	if (argc <= first)
		return 2;
	filter_install((int[]){ first == 2 ? SYS_bpf : SYS_memfd_create }, 1,
		       SECCOMP_RET_ERRNO | EPERM, SECCOMP_RET_ALLOW);
	execv(argv[first], argv + first);
	return 2;
}
