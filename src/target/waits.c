#include "memprobe/waits.h"

#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "memprobe/io.h"

/* What a stop does to a call, as far as the call alone tells. */
enum rule {
	RULE_RESTARTS,
	RULE_FAILS,
	RULE_CUT,
	RULE_STAYS,
	RULE_READ,    /* of a descriptor: ends with the first bytes that come */
	RULE_WRITE,   /* ends when all has gone */
	RULE_WRITEV,  /* the same, of a size that stands in memory */
	RULE_RECV,    /* flags are the 4th argument */
	RULE_RECVMSG, /* flags are the 3rd */
	RULE_RECVMMSG,
	RULE_SEND,
	RULE_SOCKET, /* fails only on sockets with a timeout */
	RULE_RING,
	RULE_FALLOCATE,
	RULE_RANDOM,
	RULE_CLONE,
	RULE_SOCKETCALL,
};

struct row {
	const char *name;
	int x86_64, i386, aarch64; /* -1: has none */
	enum rule rule;
};

/* arch/x86/entry/syscalls/syscall_64.tbl and syscall_32.tbl, asm-generic/unistd.h. */
static const struct row rows[] = {
	{ "restart_syscall", 219, 0, 128, RULE_RESTARTS },
	{ "nanosleep", 35, 162, 101, RULE_RESTARTS },
	{ "clock_nanosleep", 230, 267, 115, RULE_RESTARTS },
	{ "clock_nanosleep", -1, 407, -1, RULE_RESTARTS },
	{ "futex", 202, 240, 98, RULE_RESTARTS },
	{ "futex", -1, 422, -1, RULE_RESTARTS },
	{ "poll", 7, 168, -1, RULE_RESTARTS },
	{ "ppoll", 271, 309, 73, RULE_RESTARTS },
	{ "ppoll", -1, 414, -1, RULE_RESTARTS },
	{ "select", 23, 142, -1, RULE_RESTARTS },
	{ "select", -1, 82, -1, RULE_RESTARTS },
	{ "pselect6", 270, 308, 72, RULE_RESTARTS },
	{ "pselect6", -1, 413, -1, RULE_RESTARTS },
	{ "pause", 34, 29, -1, RULE_RESTARTS },
	{ "rt_sigsuspend", 130, 179, 133, RULE_RESTARTS },
	{ "sigsuspend", -1, 72, -1, RULE_RESTARTS },
	{ "wait4", 61, 114, 260, RULE_RESTARTS },
	{ "waitpid", -1, 7, -1, RULE_RESTARTS },
	{ "waitid", 247, 284, 95, RULE_RESTARTS },
	{ "flock", 73, 143, 32, RULE_RESTARTS },
	{ "fcntl", 72, 55, 25, RULE_RESTARTS },
	{ "fcntl", -1, 221, -1, RULE_RESTARTS },
	{ "open", 2, 5, -1, RULE_RESTARTS },
	{ "openat", 257, 295, 56, RULE_RESTARTS },
	{ "mq_timedsend", 242, 279, 182, RULE_RESTARTS },
	{ "mq_timedsend", -1, 418, -1, RULE_RESTARTS },
	{ "mq_timedreceive", 243, 280, 183, RULE_RESTARTS },
	{ "mq_timedreceive", -1, 419, -1, RULE_RESTARTS },
	{ "epoll_wait", 232, 256, -1, RULE_FAILS },
	{ "epoll_pwait", 281, 319, 22, RULE_FAILS },
	{ "epoll_pwait2", 441, 441, 441, RULE_FAILS },
	{ "rt_sigtimedwait", 128, 177, 137, RULE_FAILS },
	{ "rt_sigtimedwait", -1, 421, -1, RULE_FAILS },
	{ "semop", 65, -1, 193, RULE_FAILS },
	{ "semtimedop", 220, 420, 192, RULE_FAILS },
	{ "msgsnd", 69, 400, 189, RULE_FAILS },
	{ "msgrcv", 70, 401, 188, RULE_FAILS },
	{ "ipc", -1, 117, -1, RULE_FAILS },
	{ "io_getevents", 208, 247, 4, RULE_FAILS },
	{ "io_pgetevents", 333, 385, 292, RULE_FAILS },
	{ "io_pgetevents", -1, 416, -1, RULE_FAILS },
	{ "io_uring_enter", 426, 426, 426, RULE_RING },
	{ "fallocate", 285, 324, 47, RULE_FALLOCATE },
	{ "read", 0, 3, 63, RULE_READ },
	{ "readv", 19, 145, 65, RULE_READ },
	{ "write", 1, 4, 64, RULE_WRITE },
	{ "writev", 20, 146, 66, RULE_WRITEV },
	{ "recvfrom", 45, 371, 207, RULE_RECV },
	{ "recvmsg", 47, 372, 212, RULE_RECVMSG },
	{ "recvmmsg", 299, 337, 243, RULE_RECVMMSG },
	{ "recvmmsg", -1, 417, -1, RULE_RECVMMSG },
	{ "sendto", 44, 369, 206, RULE_SEND },
	{ "sendmsg", 46, 370, 211, RULE_CUT },
	{ "sendmmsg", 307, 345, 269, RULE_CUT },
	{ "accept", 43, -1, 202, RULE_SOCKET },
	{ "accept4", 288, 364, 242, RULE_SOCKET },
	{ "connect", 42, 362, 203, RULE_SOCKET },
	{ "socketcall", -1, 102, -1, RULE_SOCKETCALL },
	{ "sendfile", 40, 187, 71, RULE_CUT },
	{ "sendfile", -1, 239, -1, RULE_CUT },
	{ "splice", 275, 313, 76, RULE_CUT },
	{ "tee", 276, 315, 77, RULE_CUT },
	{ "vmsplice", 278, 316, 75, RULE_CUT },
	{ "copy_file_range", 326, 377, 285, RULE_CUT },
	{ "getrandom", 318, 355, 278, RULE_RANDOM },
	{ "pread64", 17, 180, 67, RULE_CUT },
	{ "pwrite64", 18, 181, 68, RULE_CUT },
	{ "preadv", 295, 333, 69, RULE_CUT },
	{ "pwritev", 296, 334, 70, RULE_CUT },
	{ "preadv2", 327, 378, 286, RULE_CUT },
	{ "pwritev2", 328, 379, 287, RULE_CUT },
	{ "process_vm_readv", 310, 347, 270, RULE_CUT },
	{ "process_vm_writev", 311, 348, 271, RULE_CUT },
	{ "vfork", 58, 190, -1, RULE_STAYS },
	{ "clone", 56, 120, 220, RULE_CLONE },
	{ "clone3", 435, 435, 435, RULE_STAYS },
	{ "fork", 57, 2, -1, RULE_RESTARTS },
	{ "execve", 59, 11, 221, RULE_STAYS },
	{ "fsync", 74, 118, 82, RULE_STAYS },
	{ "fdatasync", 75, 148, 83, RULE_STAYS },
	{ "close", 3, 6, 57, RULE_STAYS },
};

static const struct row *find_row(const struct arch *arch, long nr)
{
	for (size_t i = 0; nr >= 0 && i < sizeof(rows) / sizeof(rows[0]); i++) {
		int number = rows[i].aarch64;

		if (arch == &arch_x86_64)
			number = rows[i].x86_64;
		else if (arch == &arch_i386)
			number = rows[i].i386;
		if (number == nr)
			return &rows[i];
	}
	return NULL;
}

const char *wait_call_name(const struct arch *arch, long nr)
{
	const struct row *row = find_row(arch, nr);

	return row ? row->name : NULL;
}

enum wait_file wait_file_of(const char *link, mode_t mode)
{
	if (!strncmp(link, "pipe:", 5))
		return WAIT_FILE_PIPE;
	if (!strncmp(link, "socket:", 7))
		return WAIT_FILE_SOCKET;
	if (!strncmp(link, "anon_inode:", 11))
		return WAIT_FILE_ANON;
	if (!strncmp(link, "/dev/pts/", 9) || !strncmp(link, "/dev/tty", 8) ||
	    !strcmp(link, "/dev/console"))
		return WAIT_FILE_TERMINAL;
	if (S_ISFIFO(mode))
		return WAIT_FILE_PIPE;
	return *link ? WAIT_FILE_OTHER : WAIT_FILE_UNKNOWN;
}

static enum wait_kind of_read(enum wait_file file)
{
	switch (file) {
	case WAIT_FILE_SOCKET:
		return WAIT_FAILS;
	case WAIT_FILE_PIPE:
	case WAIT_FILE_ANON:
	case WAIT_FILE_TERMINAL:
		return WAIT_RESTARTS;
	case WAIT_FILE_UNKNOWN:
		return WAIT_UNKNOWN;
	default:
		return WAIT_CUT;
	}
}

/* What goes as one piece has not gone at all while it waits. */
static enum wait_kind of_write(enum wait_file file, uint64_t size)
{
	enum { PIPE_ATOMIC = 4096 };

	if (file == WAIT_FILE_ANON || (file == WAIT_FILE_PIPE && size <= PIPE_ATOMIC))
		return WAIT_RESTARTS;
	return file == WAIT_FILE_SOCKET && size <= 1 ? WAIT_FAILS : WAIT_CUT;
}

static enum wait_kind of_recv(uint64_t flags)
{
	return flags & MSG_WAITALL ? WAIT_CUT : WAIT_FAILS;
}

/* FALLOC_FL_COLLAPSE_RANGE and FALLOC_FL_INSERT_RANGE cannot be done twice. */
static bool may_allocate_again(uint64_t mode)
{
	return !(mode & (0x08 | 0x20));
}

/* i386: the arguments stand in memory. */
static enum wait_kind of_socketcall(uint64_t call)
{
	enum { CONNECT = 3, ACCEPT = 5, ACCEPT4 = 18 };

	return call == CONNECT || call == ACCEPT || call == ACCEPT4 ? WAIT_FAILS : WAIT_CUT;
}

enum wait_kind wait_kind_of(const struct arch *arch, const struct process_syscall *call,
			    enum wait_file file)
{
	/* Fills what is asked for in one piece. */
	enum { RANDOM_ATOMIC = 256 };
	const uint64_t *args = call->args;
	const struct row *row;

	if (call->running || call->nr < 0)
		return WAIT_RUNNING;
	row = find_row(arch, call->nr);
	if (!row)
		return WAIT_UNKNOWN;
	switch (row->rule) {
	case RULE_RESTARTS:
		return WAIT_RESTARTS;
	case RULE_FAILS:
	case RULE_SOCKET:
		return WAIT_FAILS;
	case RULE_CUT:
		return WAIT_CUT;
	case RULE_STAYS:
		return WAIT_STAYS;
	case RULE_READ:
		return of_read(file);
	case RULE_WRITE:
		return of_write(file, args[2]);
	case RULE_WRITEV:
		return of_write(file, UINT64_MAX);
	case RULE_RECV:
		return of_recv(args[3]);
	case RULE_RECVMSG:
		return of_recv(args[2]);
	case RULE_RECVMMSG:
		return args[2] > 1 ? WAIT_CUT : WAIT_FAILS;
	case RULE_SEND:
		return of_write(WAIT_FILE_SOCKET, args[2]);
	case RULE_RING:
		return (uint32_t)args[1] ? WAIT_CUT : WAIT_FAILS;
	case RULE_FALLOCATE:
		return may_allocate_again(args[1]) ? WAIT_FAILS : WAIT_CUT;
	case RULE_RANDOM:
		return args[1] <= RANDOM_ATOMIC ? WAIT_RESTARTS : WAIT_CUT;
	case RULE_CLONE:
		return args[0] & CLONE_VFORK ? WAIT_STAYS : WAIT_RESTARTS;
	case RULE_SOCKETCALL:
		return of_socketcall(args[0]);
	}
	return WAIT_UNKNOWN;
}

static enum wait_file look_at_file(const struct process *process, uint64_t fd)
{
	char path[32], link[32] = "";
	struct statx status = { 0 };

	snprintf(path, sizeof(path), "fd/%d", (int)fd);
	if (readlinkat(process->dirfd, path, link, sizeof(link) - 1) < 0)
		return WAIT_FILE_UNKNOWN;
	/* A FIFO has a path; no server of a network file system is to be asked, who may hang. */
	if (*link == '/')
		statx(process->dirfd, path, AT_STATX_DONT_SYNC, STATX_TYPE, &status);
	return wait_file_of(link, status.stx_mode);
}

static bool needs_file(const struct row *row)
{
	return row &&
	       (row->rule == RULE_READ || row->rule == RULE_WRITE || row->rule == RULE_WRITEV);
}

enum wait_kind wait_kind_now(const struct process *process, const struct arch *arch, pid_t tid,
			     struct process_syscall *ret)
{
	struct error *error = process_read_syscall(process, tid, ret);
	enum wait_file file = WAIT_FILE_UNKNOWN;

	if (error) {
		error_destroy(error);
		*ret = (struct process_syscall){ .running = true };
		return WAIT_RUNNING;
	}
	if (!ret->running && needs_file(find_row(arch, ret->nr)))
		file = look_at_file(process, ret->args[0]);
	return wait_kind_of(arch, ret, file);
}

bool wait_is_repairable(const struct process *process, const struct arch *arch, long nr,
			const uint64_t args[6])
{
	const struct row *row = find_row(arch, nr);

	if (!row)
		return false;
	switch (row->rule) {
	case RULE_FAILS:
	case RULE_RING:
		return true;
	case RULE_FALLOCATE:
		return may_allocate_again(args[1]);
	case RULE_READ:
	case RULE_WRITE:
	case RULE_WRITEV:
	case RULE_RECV:
	case RULE_RECVMSG:
	case RULE_RECVMMSG:
	case RULE_SEND:
	case RULE_SOCKET:
		return look_at_file(process, args[0]) == WAIT_FILE_SOCKET;
	case RULE_CUT:
		return (!strcmp(row->name, "sendmsg") || !strcmp(row->name, "sendmmsg")) &&
		       look_at_file(process, args[0]) == WAIT_FILE_SOCKET;
	default:
		return false;
	}
}

/* The function of the kernel that the thread sleeps in; NULL: it does not, or that is not to be
 * told. The caller frees it. */
static char *kernel_function(const struct process *process, pid_t tid)
{
	char path[40], *text = NULL;

	snprintf(path, sizeof(path), "task/%d/wchan", (int)tid);
	error_destroy(read_file_at(process->dirfd, path, &text, NULL));
	if (text && *text && *text != '0')
		return text;
	free(text);
	return NULL;
}

const char *wait_describe(const struct process *process, const struct arch *arch, pid_t tid,
			  char text[WAIT_TEXT_MAX])
{
	struct process_syscall call = { .nr = -1 };
	cleanup(free) char *where = kernel_function(process, tid);
	const char *name;
	char number[32];

	error_destroy(process_read_syscall(process, tid, &call));
	if (call.running || call.nr < 0) {
		snprintf(text, WAIT_TEXT_MAX, "%s%.60s", where ? " in " : "", where ? where : "");
		return text;
	}
	snprintf(number, sizeof(number), "system call %ld", call.nr);
	name = wait_call_name(arch, call.nr);
	snprintf(text, WAIT_TEXT_MAX, " in %s%s%s%.40s%s", name ? name : number, name ? "()" : "",
		 where ? " (" : "", where ? where : "", where ? ")" : "");
	return text;
}

/* Linux kernel/cgroup/freezer.c, kernel/signal.c; kernel/freezer.c for version 1. */
bool wait_is_frozen(const struct process *process, pid_t tid)
{
	cleanup(free) char *where = kernel_function(process, tid);

	return where && (strstr(where, "freezer_trap") || strstr(where, "refrigerator"));
}

const char *wait_describe_stuck(const struct process *process, const struct arch *arch, pid_t tid,
				char text[WAIT_TEXT_MAX])
{
	struct process_status status = { 0 };
	char where[WAIT_TEXT_MAX];

	error_destroy(process_read_status(process, tid, &status));
	if (wait_is_frozen(process, tid))
		snprintf(text, WAIT_TEXT_MAX, "is frozen by its control group");
	else if (status.state == 'D')
		snprintf(text, WAIT_TEXT_MAX, "sleeps uninterruptibly%.70s",
			 wait_describe(process, arch, tid, where));
	else
		snprintf(text, WAIT_TEXT_MAX, "did not stop in time");
	return text;
}
