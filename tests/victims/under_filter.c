/*
 * `under_filter PROGRAM ARG...`: the program, under a seccomp filter that refuses memfd_create with
 * EPERM: the agent cannot be brought into it. `under_filter bpf PROGRAM ARG...` refuses bpf so,
 * `under_filter no-bpf PROGRAM ARG...` with ENOSYS, as a kernel that knows it not, and
 * `under_filter links PROGRAM ARG...` refuses its command BPF_LINK_CREATE so.
 */
#include "filter.h"

#include <linux/bpf.h>

static void refuse_links(void)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_bpf, 0, 3),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, BPF_LINK_CREATE, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EINVAL),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = { .len = sizeof(code) / sizeof(code[0]), .filter = code };

	check_that(!prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs");
	check_that(!prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program), "seccomp");
}

int main(int argc, char **argv)
{
	const char *what = argc > 2 ? argv[1] : "";
	bool no_bpf = !strcmp(what, "no-bpf"), bpf = no_bpf || !strcmp(what, "bpf"),
	     links = !strcmp(what, "links");
	char **command = argv + 1 + (bpf || links);

	if (argc < 2)
		return 2;
	if (links)
		refuse_links();
	else
		filter_install((int[]){ bpf ? SYS_bpf : SYS_memfd_create }, 1,
			       SECCOMP_RET_ERRNO | (no_bpf ? ENOSYS : EPERM), SECCOMP_RET_ALLOW);
	execv(command[0], command);
	return 2;
}
