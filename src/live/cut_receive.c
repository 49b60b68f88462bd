#include "cut_receive.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "memprobe/cleanup.h"
#include "memprobe/log.h"
#include "memprobe/ptrace.h"
#include "memprobe/waits.h"

/* Not in the headers of older C libraries. */
#ifndef SYS_pidfd_getfd
#define SYS_pidfd_getfd 438
#endif
#define PIDFD_OF_THREAD O_EXCL /* Linux 6.9 */

#define KERNEL_RESTART 512 /* ERESTARTSYS */

static bool is_cut_receive(const struct arch *arch, const struct user_regs_struct *regs,
			   const uint64_t args[6])
{
	long nr = arch->bits == 32 ? (int32_t)regs->orig_rax : (long)regs->orig_rax;
	const char *name = arch_call_name(arch, nr);
	int count = (int)regs->rax;

	return name && !strcmp(name, "recvmmsg") && count > 0 &&
	       (unsigned)count < (uint32_t)args[2];
}

static int open_pidfd(const struct process *process, pid_t tid)
{
	int pidfd = (int)syscall(SYS_pidfd_open, tid, PIDFD_OF_THREAD);

	return pidfd < 0 && errno == EINVAL ? (int)syscall(SYS_pidfd_open, process->pid, 0) : pidfd;
}

/* Threads need not have the same descriptors as the first one. */
static bool is_the_same(const struct process *process, pid_t tid, int fd, int copy)
{
	struct stat theirs, ours;
	char path[64];

	snprintf(path, sizeof(path), "task/%d/fd/%d", (int)tid, fd);
	return fstatat(process->dirfd, path, &theirs, 0) == 0 && fstat(copy, &ours) == 0 &&
	       S_ISSOCK(ours.st_mode) && theirs.st_dev == ours.st_dev &&
	       theirs.st_ino == ours.st_ino;
}

/* A copy of the descriptor @fd of a thread; -1: it cannot be had, errno tells why. */
static int get_socket(const struct process *process, pid_t tid, int fd)
{
	cleanup(close) int pidfd = open_pidfd(process, tid);
	cleanup(close) int copy = -1;

	if (pidfd < 0)
		return -1;
	copy = (int)syscall(SYS_pidfd_getfd, pidfd, fd, 0);
	if (copy < 0)
		return -1;
	errno = EBADF;
	return is_the_same(process, tid, fd, copy) ? take_fd(&copy) : -1;
}

/* Asking for the error takes it away: only if there is one. */
static void take_error(int socket, pid_t tid, int fd)
{
	struct pollfd poll_fd = { .fd = socket };
	int number = 0;
	socklen_t size = sizeof(number);

	if (poll(&poll_fd, 1, 0) != 1 || !(poll_fd.revents & POLLERR) ||
	    getsockopt(socket, SOL_SOCKET, SO_ERROR, &number, &size) < 0)
		return;
	if (number && number != KERNEL_RESTART && number != EINTR)
		log_warn("thread %d will not see an error of its socket %d that came while it was "
			 "being stopped: %s",
			 (int)tid, fd, strerror(number));
}

void cut_receive_mend(const struct process *process, const struct arch *arch, pid_t tid,
		      const struct user_regs_struct *regs)
{
	cleanup(close) int socket = -1;
	uint64_t args[6];

	ptrace_call_args(arch, regs, args);
	if (!is_cut_receive(arch, regs, args))
		return;
	socket = get_socket(process, tid, (int)args[0]);
	if (socket >= 0)
		take_error(socket, tid, (int)args[0]);
	else
		log_warn("the next call of thread %d on its socket %d may fail with error %d: "
			 "cannot look at the socket: %s",
			 (int)tid, (int)args[0], KERNEL_RESTART, strerror(errno));
}
