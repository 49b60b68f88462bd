/* Collects what permit_judge() judges. */
#include "memprobe/permit.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/nsfs.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "memprobe/io.h"
#include "memprobe/num.h"

/* The inode of the first user namespace: PROC_USER_INIT_INO of Linux include/linux/proc_ns.h. */
#define USER_NS_INIT_INODE 0xeffffffdu
/* The kernel nests user namespaces 32 deep; parents of processes are bounded by patience. */
#define USER_NS_DEPTH  64
#define ANCESTORS_MAX  4096
#define SECCOMP_FILTER 2

/* The first line of a small file, "" on any failure. */
static void read_line(int dirfd, const char *path, char *line, size_t size)
{
	cleanup(free) char *text = NULL;
	size_t length;

	line[0] = '\0';
	error_destroy(read_file_at(dirfd, path, &text, &length));
	if (text)
		snprintf(line, size, "%.*s", (int)strcspn(text, "\n"), text);
}

static void read_comm(int proc_fd, pid_t pid, char name[64])
{
	char path[32];

	snprintf(path, sizeof(path), "%d/comm", (int)pid);
	read_line(proc_fd, path, name, 64);
}

int permit_read_yama(int proc_fd)
{
	char line[16];
	uint64_t scope;
	struct error *error;

	read_line(proc_fd, "sys/kernel/yama/ptrace_scope", line, sizeof(line));
	error = parse_u64(line, &scope);
	if (error) {
		error_destroy(error);
		return YAMA_ABSENT;
	}
	return scope > YAMA_NO_ATTACH ? YAMA_NO_ATTACH : (int)scope;
}

/*
 * The kernel gives the files of a process that is not dumpable to root (fs/proc/base.c
 * task_dump_owner), but not its directory.
 */
static int find_dumpable(const struct process *process, const struct process_status *status)
{
	struct stat file;

	if (fstatat(process->dirfd, "mem", &file, 0))
		return -1;
	if (file.st_uid != status->euid || file.st_gid != status->egid)
		return 0;
	return status->euid == 0 && status->egid == 0 ? -1 : 1;
}

/* Where @ns_fd stands to the namespace @own; as cap_capable() climbs. */
static enum permit_namespace climb(int ns_fd, const struct stat *own, uid_t euid)
{
	cleanup(close) int ns = dup(ns_fd);
	struct stat here;

	for (unsigned depth = 0; ns >= 0 && depth < USER_NS_DEPTH; depth++) {
		int parent = ioctl(ns, NS_GET_PARENT);
		uid_t owner = (uid_t)-1;

		/* The kernel shows no parent beyond our own namespace. */
		if (parent < 0)
			return PERMIT_NS_OUTSIDE;
		ioctl(ns, NS_GET_OWNER_UID, &owner);
		close(ns);
		ns = parent;
		if (fstat(ns, &here))
			break;
		if (here.st_ino == own->st_ino && here.st_dev == own->st_dev)
			return owner == euid ? PERMIT_NS_OWNED : PERMIT_NS_BELOW;
	}
	return PERMIT_NS_UNKNOWN;
}

static enum permit_namespace find_userns(const struct process *process, int proc_fd,
					 struct permit_facts *facts)
{
	cleanup(close) int fd = -1;
	struct stat own, its;

	if (fstatat(proc_fd, "self/ns/user", &own, 0)) {
		/* A kernel without user namespaces has one, the first. */
		facts->userns_initial = errno == ENOENT;
		return PERMIT_NS_UNKNOWN;
	}
	facts->userns_initial = own.st_ino == USER_NS_INIT_INODE;
	fd = openat(process->dirfd, "ns/user", O_RDONLY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &its))
		return PERMIT_NS_UNKNOWN;
	if (own.st_ino == its.st_ino && own.st_dev == its.st_dev)
		return PERMIT_NS_SAME;
	return climb(fd, &own, facts->self.euid);
}

/* The parent of @pid, 0 if it cannot be told. */
static pid_t parent_of(pid_t pid)
{
	cleanup(process) struct process *process = NULL;
	struct process_status status;
	struct error *error = process_open(pid, &process);

	if (!error)
		error = process_read_status(process, 0, &status);
	if (error) {
		error_destroy(error);
		return 0;
	}
	return status.ppid;
}

static bool is_descendant(pid_t parent)
{
	pid_t self = getpid();

	for (unsigned i = 0; parent > 1 && i < ANCESTORS_MAX; i++) {
		if (parent == self)
			return true;
		parent = parent_of(parent);
	}
	return false;
}

/* Both ask for a process that cannot be: the kernel says ESRCH, another answer is a filter's. */
static bool ptrace_answers(void)
{
	return syscall(SYS_ptrace, PTRACE_PEEKDATA, -1, NULL, NULL) < 0 && errno == ESRCH;
}

static bool readv_answers(void)
{
	char byte;
	struct iovec local = { &byte, 1 }, remote = { &byte, 1 };

	return process_vm_readv(-1, &local, 1, &remote, 1, 0) < 0 && errno == ESRCH;
}

/* In a child, as a filter may kill for the question. */
static bool is_filtered(bool (*answers)(void))
{
	int status;
	pid_t child = fork();

	if (child == 0)
		_exit(answers() ? 0 : 1);
	if (child < 0)
		return false;
	while (waitpid(child, &status, 0) < 0)
		if (errno != EINTR)
			return false;
	return status != 0;
}

static struct error *collect_self(struct permit_facts *facts)
{
	cleanup(process) struct process *self = NULL;
	struct error *error = process_open(getpid(), &self);

	return error ? error : process_read_status(self, 0, &facts->self);
}

struct error *permit_collect(const struct process *process, struct permit_facts *ret)
{
	cleanup(close) int proc_fd = open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct permit_facts facts = { .pid = process->pid, .is_self = process->pid == getpid() };
	struct error *error;

	if (proc_fd < 0)
		return error_errno(ERROR_FAILED, errno, "cannot open /proc");
	error = collect_self(&facts);
	if (error)
		return error;
	error = process_read_status(process, 0, &facts.target);
	facts.alive = !error;
	if (error && !error_is(error, ERROR_NO_TARGET))
		return error;
	error_destroy(error);
	facts.yama = permit_read_yama(proc_fd);
	if (facts.self.seccomp == SECCOMP_FILTER) {
		facts.ptrace_filtered = is_filtered(ptrace_answers);
		facts.readv_filtered = is_filtered(readv_answers);
	}
	read_line(proc_fd, "self/attr/current", facts.self_label, sizeof(facts.self_label));
	facts.dumpable = -1;
	facts.userns = find_userns(process, proc_fd, &facts);
	if (facts.alive) {
		facts.dumpable = find_dumpable(process, &facts.target);
		facts.descendant = is_descendant(facts.target.ppid);
		read_line(process->dirfd, "attr/current", facts.label, sizeof(facts.label));
		if (facts.target.tracer_pid)
			read_comm(proc_fd, facts.target.tracer_pid, facts.tracer_name);
		if (facts.target.ppid)
			read_comm(proc_fd, facts.target.ppid, facts.parent_name);
	}
	*ret = facts;
	return NULL;
}
