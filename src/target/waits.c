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
	const char *name; /* as in struct arch */
	enum rule rule;
};

static const struct row rows[] = {
	{ "restart_syscall", RULE_RESTARTS },
	{ "nanosleep", RULE_RESTARTS },
	{ "clock_nanosleep", RULE_RESTARTS },
	{ "futex", RULE_RESTARTS },
	{ "poll", RULE_RESTARTS },
	{ "ppoll", RULE_RESTARTS },
	{ "select", RULE_RESTARTS },
	{ "pselect6", RULE_RESTARTS },
	{ "pause", RULE_RESTARTS },
	{ "rt_sigsuspend", RULE_RESTARTS },
	{ "sigsuspend", RULE_RESTARTS },
	{ "wait4", RULE_RESTARTS },
	{ "waitpid", RULE_RESTARTS },
	{ "waitid", RULE_RESTARTS },
	{ "flock", RULE_RESTARTS },
	{ "fcntl", RULE_RESTARTS },
	{ "open", RULE_RESTARTS },
	{ "openat", RULE_RESTARTS },
	{ "mq_timedsend", RULE_RESTARTS },
	{ "mq_timedreceive", RULE_RESTARTS },
	{ "epoll_wait", RULE_FAILS },
	{ "epoll_pwait", RULE_FAILS },
	{ "epoll_pwait2", RULE_FAILS },
	{ "rt_sigtimedwait", RULE_FAILS },
	{ "semop", RULE_FAILS },
	{ "semtimedop", RULE_FAILS },
	{ "msgsnd", RULE_FAILS },
	{ "msgrcv", RULE_FAILS },
	{ "ipc", RULE_FAILS },
	{ "io_getevents", RULE_FAILS },
	{ "io_pgetevents", RULE_FAILS },
	{ "io_uring_enter", RULE_RING },
	{ "fallocate", RULE_FALLOCATE },
	{ "read", RULE_READ },
	{ "readv", RULE_READ },
	{ "write", RULE_WRITE },
	{ "writev", RULE_WRITEV },
	{ "recvfrom", RULE_RECV },
	{ "recvmsg", RULE_RECVMSG },
	{ "recvmmsg", RULE_RECVMMSG },
	{ "sendto", RULE_SEND },
	{ "sendmsg", RULE_CUT },
	{ "sendmmsg", RULE_CUT },
	{ "accept", RULE_SOCKET },
	{ "accept4", RULE_SOCKET },
	{ "connect", RULE_SOCKET },
	{ "socketcall", RULE_SOCKETCALL },
	{ "sendfile", RULE_CUT },
	{ "splice", RULE_CUT },
	{ "tee", RULE_CUT },
	{ "vmsplice", RULE_CUT },
	{ "copy_file_range", RULE_CUT },
	{ "getrandom", RULE_RANDOM },
	{ "pread64", RULE_CUT },
	{ "pwrite64", RULE_CUT },
	{ "preadv", RULE_CUT },
	{ "pwritev", RULE_CUT },
	{ "preadv2", RULE_CUT },
	{ "pwritev2", RULE_CUT },
	{ "process_vm_readv", RULE_CUT },
	{ "process_vm_writev", RULE_CUT },
	{ "vfork", RULE_STAYS },
	{ "clone", RULE_CLONE },
	{ "clone3", RULE_STAYS },
	{ "fork", RULE_RESTARTS },
	{ "execve", RULE_STAYS },
	{ "fsync", RULE_STAYS },
	{ "fdatasync", RULE_STAYS },
	{ "close", RULE_STAYS },
};

static const struct row *find_row(const struct arch *arch, long nr)
{
	const char *name = arch_call_name(arch, nr);

	for (size_t i = 0; name && i < sizeof(rows) / sizeof(rows[0]); i++)
		if (!strcmp(rows[i].name, name))
			return &rows[i];
	return NULL;
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
	name = arch_call_name(arch, call.nr);
	snprintf(text, WAIT_TEXT_MAX, " in %s%s%s%.40s%s", name ? name : number, name ? "()" : "",
		 where ? " (" : "", where ? where : "", where ? ")" : "");
	return text;
}

/* Linux kernel/cgroup/freezer.c, kernel/signal.c; kernel/freezer.c for version 1. Where the
 * compiler has inlined do_freezer_trap(), it is get_signal(), as it is for who a signal has
 * stopped. */
bool wait_is_frozen(const struct process *process, pid_t tid)
{
	cleanup(free) char *where = kernel_function(process, tid);
	struct process_status status = { 0 };

	if (!where || strstr(where, "freezer_trap") || strstr(where, "refrigerator"))
		return where != NULL;
	if (strcmp(where, "get_signal"))
		return false;
	error_destroy(process_read_status(process, tid, &status));
	return status.state == 'S';
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
