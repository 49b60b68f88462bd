/*
 * `sandbox ptrace PROGRAM [ARG...]`: runs it where ptrace fails with EPERM; `sandbox both`:
 * process_vm_readv, too; `sandbox kill`: ptrace kills; `sandbox none`: a filter that allows all.
 */
#include "filter.h"

int main(int argc, char **argv)
{
	static const int calls[] = { SYS_ptrace, SYS_process_vm_readv };
	uint32_t answer = SECCOMP_RET_ERRNO | EPERM;
	unsigned count;

	if (argc < 3)
		return 2;
	count = !strcmp(argv[1], "both") ? 2 : strcmp(argv[1], "none") ? 1 : 0;
	if (!strcmp(argv[1], "kill"))
		answer = SECCOMP_RET_KILL_PROCESS;
	filter_install(calls, count, answer, SECCOMP_RET_ALLOW);
	execvp(argv[2], argv + 2);
	return 127;
}
