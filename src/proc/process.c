#include "memprobe/process.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "memprobe/io.h"
#include "proc_text.h"

/* Linux include/linux/sched.h */
#define PF_KTHREAD 0x00200000

static bool is_gone(int errnum)
{
	return errnum == ENOENT || errnum == ESRCH;
}

static struct error *no_process(pid_t pid)
{
	return error_create(ERROR_NO_TARGET, "no process %d", (int)pid);
}

/* ---- /proc/PID/stat ---- */

static bool read_stat_field(int dirfd, const char *path, unsigned number, uint64_t *ret)
{
	cleanup(free) char *text = NULL;
	struct error *error = read_file_at(dirfd, path, &text, NULL);
	const char *field;
	char *end;

	if (error) {
		error_destroy(error);
		return false;
	}
	field = stat_field(text, number);
	if (!field)
		return false;
	*ret = strtoull(field, &end, 10);
	return end != field;
}

bool process_is_alive(const struct process *process)
{
	uint64_t start_time;

	return read_stat_field(process->dirfd, "stat", 22, &start_time) &&
	       start_time == process->start_time;
}

/*
 * A process whose first thread has ended looks like a zombie, too; but it has others then, which
 * /proc/PID/stat counts (fs/proc/array.c, do_task_stat()) together with the first.
 */
bool process_has_ended(const struct process *process)
{
	cleanup(free) char *text = NULL;
	uint64_t threads;
	const char *state;
	struct error *error;

	if (!process_is_alive(process))
		return true;
	error = read_file_at(process->dirfd, "stat", &text, NULL);
	error_destroy(error);
	state = error ? NULL : stat_field(text, 3);
	return !state || ((*state == 'Z' || *state == 'X') &&
			  read_stat_field(process->dirfd, "stat", 20, &threads) && threads <= 1);
}

/* ---- opening ---- */

static struct error *open_failed(pid_t pid, int errnum)
{
	if (is_gone(errnum) && access("/proc/self", F_OK) < 0)
		return error_hint(error_create(ERROR_FAILED, "cannot look at processes: /proc is "
							     "not mounted"),
				  "mount -t proc proc /proc");
	if (is_gone(errnum))
		return no_process(pid);
	if (errnum == EACCES || errnum == EPERM)
		return error_hint(
			error_errno(ERROR_PERMISSION, errnum, "cannot look at process %d",
				    (int)pid),
			"/proc is mounted with hidepid: run as the process's user or as root");
	return error_errno(ERROR_FAILED, errnum, "cannot open /proc/%d", (int)pid);
}

struct error *process_open(pid_t pid, struct process **ret)
{
	cleanup(process) struct process *process = calloc(1, sizeof(*process));
	struct process_status status;
	struct error *error;
	char path[32];

	if (!process)
		return &error_no_memory;
	process->pid = pid;
	process->dirfd = -1;
	if (pid <= 0)
		return no_process(pid);
	snprintf(path, sizeof(path), "/proc/%d", (int)pid);
	process->dirfd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (process->dirfd < 0)
		return open_failed(pid, errno);
	error = process_read_status(process, 0, &status);
	if (error)
		return error;
	if (status.tgid != pid)
		return error_hint(no_process(pid), "%d is a thread of process %d", (int)pid,
				  (int)status.tgid);
	if (!read_stat_field(process->dirfd, "stat", 22, &process->start_time))
		return no_process(pid);
	*ret = take_pointer(process);
	return NULL;
}

void process_close(struct process *process)
{
	if (!process)
		return;
	if (process->dirfd >= 0)
		close(process->dirfd);
	free(process);
}

/* ---- finding ---- */

static const char *last_component(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

static bool comm_is(int dirfd, const char *name)
{
	cleanup(free) char *text = NULL;
	cleanup(error) struct error *error = NULL;
	size_t size;

	error = read_file_at(dirfd, "comm", &text, &size);
	if (error || !size)
		return false;
	text[size - 1] = '\0'; /* its newline */
	return !strcmp(text, name);
}

static bool argv0_is(int dirfd, const char *name)
{
	cleanup(free) char *text = NULL;
	cleanup(error) struct error *error = NULL;

	error = read_file_at(dirfd, "cmdline", &text, NULL);
	return !error && !strcmp(last_component(text), name);
}

static bool exe_is(int dirfd, const char *name)
{
	static const char deleted[] = " (deleted)";
	char path[PATH_MAX + sizeof(deleted)];
	ssize_t size = readlinkat(dirfd, "exe", path, sizeof(path) - 1);
	char *suffix;

	if (size <= 0)
		return false;
	path[size] = '\0';
	if (!strcmp(last_component(path), name))
		return true;
	suffix = path + size - (sizeof(deleted) - 1);
	if (suffix <= path || strcmp(suffix, deleted))
		return false;
	*suffix = '\0';
	return !strcmp(last_component(path), name);
}

/* The number that a directory entry is, or 0. */
static pid_t entry_number(const char *name)
{
	char *end;
	long value = strtol(name, &end, 10);

	if (name[0] < '1' || name[0] > '9' || *end || value > INT_MAX)
		return 0;
	return (pid_t)value;
}

/* memprobe's own PID in the namespace that /proc shows. */
static pid_t own_pid(void)
{
	char text[32];
	ssize_t size = readlink("/proc/self", text, sizeof(text) - 1);

	if (size <= 0)
		return getpid();
	text[size] = '\0';
	return entry_number(text);
}

struct error *process_find_by_name(const char *name, struct pid_vec *ret)
{
	const pid_t self = own_pid();
	struct error *error = NULL;
	struct dirent *entry;
	DIR *proc;

	/* Kernel threads have an empty argv[0]. */
	if (!name[0])
		return NULL;
	proc = opendir("/proc");
	if (!proc)
		return error_errno(ERROR_FAILED, errno, "cannot open /proc");
	while (!error && (entry = readdir(proc))) {
		cleanup(close) int fd = -1;
		pid_t pid = entry_number(entry->d_name);

		if (!pid || pid == self)
			continue;
		fd = openat(dirfd(proc), entry->d_name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (fd >= 0 && (comm_is(fd, name) || argv0_is(fd, name) || exe_is(fd, name)))
			error = pid_vec_append(ret, &pid);
	}
	closedir(proc);
	return error;
}

struct error *process_list_threads(const struct process *process, struct pid_vec *tids)
{
	struct error *error = NULL;
	struct dirent *entry;
	DIR *task;
	int fd;

	fd = openat(process->dirfd, "task", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	task = fd < 0 ? NULL : fdopendir(fd);
	if (!task) {
		int errnum = errno;

		if (fd >= 0)
			close(fd);
		if (is_gone(errnum))
			return no_process(process->pid);
		return error_errno(ERROR_FAILED, errnum, "cannot list the threads of %d",
				   (int)process->pid);
	}
	while (!error && (entry = readdir(task))) {
		pid_t tid = entry_number(entry->d_name);

		if (tid)
			error = pid_vec_append(tids, &tid);
	}
	closedir(task);
	return error;
}

/* ---- status ---- */

/* A file of the process, or of a thread (@tid not 0). ERROR_NO_TARGET if that is gone. */
static struct error *read_task_file(const struct process *process, pid_t tid, const char *name,
				    char **text_ret)
{
	struct error *error;
	char path[64];

	if (tid)
		snprintf(path, sizeof(path), "task/%d/%s", (int)tid, name);
	else
		snprintf(path, sizeof(path), "%s", name);
	error = read_file_at(process->dirfd, path, text_ret, NULL);
	if (!error)
		return NULL;
	if (is_gone(error->errnum)) {
		error_destroy(error);
		if (!tid || tid == process->pid)
			return no_process(process->pid);
		return error_create(ERROR_NO_TARGET, "no thread %d in process %d", (int)tid,
				    (int)process->pid);
	}
	if (error->errnum == EACCES || error->errnum == EPERM)
		error->code = ERROR_PERMISSION;
	return error_prefix(error, "process %d", (int)process->pid);
}

/* The kernel writes a newline as \n and a backslash twice. */
static void copy_name(struct process_status *status, const char *value)
{
	size_t size = 0;

	for (; *value && size + 1 < sizeof(status->name); value++) {
		char byte = *value;

		if (byte == '\\' && (value[1] == 'n' || value[1] == '\\'))
			byte = *++value == 'n' ? '\n' : '\\';
		status->name[size++] = byte;
	}
	status->name[size] = '\0';
}

/* Up to four decimal numbers. */
static unsigned take_numbers(const char *value, unsigned long numbers[4])
{
	unsigned count = 0;
	char *end;

	for (; count < 4; count++, value = end) {
		numbers[count] = strtoul(value, &end, 10);
		if (end == value)
			break;
	}
	return count;
}

static pid_t last_number(const char *value)
{
	const char *tab = strrchr(value, '\t');

	return (pid_t)strtol(tab ? tab + 1 : value, NULL, 10);
}

static void set_ids(struct process_status *status, const char *value, bool users)
{
	unsigned long ids[4];

	if (take_numbers(value, ids) != 4)
		return;
	if (users) {
		status->uid = ids[0];
		status->euid = ids[1];
		status->suid = ids[2];
		status->fsuid = ids[3];
	} else {
		status->gid = ids[0];
		status->egid = ids[1];
		status->sgid = ids[2];
		status->fsgid = ids[3];
	}
}

/* What parse_status() found out besides the fields. */
struct status_seen {
	bool vm;
	bool kthread;
};

static void set_number(struct process_status *status, const char *key, const char *value,
		       struct status_seen *seen)
{
	const uint64_t number = strtoull(value, NULL, 10);
	const uint64_t bits = strtoull(value, NULL, 16);

	if (!strcmp(key, "Tgid"))
		status->tgid = (pid_t)number;
	else if (!strcmp(key, "PPid"))
		status->ppid = (pid_t)number;
	else if (!strcmp(key, "TracerPid"))
		status->tracer_pid = (pid_t)number;
	else if (!strcmp(key, "Threads"))
		status->threads = (unsigned)number;
	else if (!strcmp(key, "voluntary_ctxt_switches") ||
		 !strcmp(key, "nonvoluntary_ctxt_switches"))
		status->switches += number;
	else if (!strcmp(key, "Seccomp"))
		status->seccomp = (int)number;
	else if (!strcmp(key, "Seccomp_filters"))
		status->seccomp_filters = (int)number;
	else if (!strcmp(key, "NoNewPrivs"))
		status->no_new_privs = number != 0;
	else if (!strcmp(key, "VmSize"))
		seen->vm = true, status->vm_size = number * 1024;
	else if (!strcmp(key, "VmRSS"))
		status->vm_rss = status->rss_anon = number * 1024;
	else if (!strcmp(key, "RssAnon"))
		status->rss_anon = number * 1024;
	else if (!strcmp(key, "VmSwap"))
		status->vm_swap = number * 1024;
	else if (!strcmp(key, "VmData"))
		status->vm_data = number * 1024;
	else if (!strcmp(key, "HugetlbPages"))
		status->hugetlb = number * 1024;
	else if (!strcmp(key, "Kthread"))
		seen->kthread = true, status->kernel_thread = number != 0;
	else if (!strcmp(key, "CapEff"))
		status->cap_effective = bits;
	else if (!strcmp(key, "CapPrm"))
		status->cap_permitted = bits;
	else if (!strcmp(key, "SigBlk"))
		status->sig_blocked = bits;
	else if (!strcmp(key, "SigIgn"))
		status->sig_ignored = bits;
	else if (!strcmp(key, "SigCgt"))
		status->sig_caught = bits;
	else if (!strcmp(key, "SigPnd") || !strcmp(key, "ShdPnd"))
		status->sig_pending |= bits;
}

static void set_field(struct process_status *status, const char *key, const char *value,
		      struct status_seen *seen)
{
	if (!strcmp(key, "Name"))
		copy_name(status, value);
	else if (!strcmp(key, "State"))
		status->state = value[0];
	else if (!strcmp(key, "Uid") || !strcmp(key, "Gid"))
		set_ids(status, value, key[0] == 'U');
	else if (!strcmp(key, "NSpid"))
		status->ns_tid = last_number(value);
	else if (!strcmp(key, "x86_Thread_features"))
		status->shadow_stack = strstr(value, "shstk") != NULL;
	else
		set_number(status, key, value, seen);
}

/* Changes @text: cuts it into strings. */
static void parse_status(char *text, struct process_status *status, struct status_seen *seen)
{
	char *line = text;

	while (line && *line) {
		char *newline = strchr(line, '\n');
		char *colon;

		if (newline)
			*newline = '\0';
		colon = strchr(line, ':');
		if (colon) {
			*colon++ = '\0';
			colon += strspn(colon, " \t");
			set_field(status, line, colon, seen);
		}
		line = newline ? newline + 1 : NULL;
	}
}

struct error *process_read_status(const struct process *process, pid_t tid,
				  struct process_status *ret)
{
	struct process_status status = { .seccomp = -1, .seccomp_filters = -1 };
	struct status_seen seen = { 0 };
	cleanup(free) char *text = NULL;
	struct error *error;
	uint64_t flags;

	error = read_task_file(process, tid, "status", &text);
	if (error)
		return error;
	parse_status(text, &status, &seen);
	/* Before Linux 6.8: no Vm lines, but a process has none either while it exits. */
	if (!seen.kthread && !seen.vm && read_stat_field(process->dirfd, "stat", 9, &flags))
		status.kernel_thread = flags & PF_KTHREAD;
	*ret = status;
	return NULL;
}

/* ---- what a thread does ---- */

struct error *process_read_syscall(const struct process *process, pid_t tid,
				   struct process_syscall *ret)
{
	struct process_syscall result = { .nr = -1 };
	cleanup(free) char *text = NULL;
	struct error *error;
	uint64_t words[8];
	unsigned count = 0;
	char *at, *end;

	error = read_task_file(process, tid ? tid : process->pid, "syscall", &text);
	if (error)
		return error;
	if (!strncmp(text, "running", 7)) {
		result.running = true;
		*ret = result;
		return NULL;
	}
	result.nr = strtol(text, &end, 10);
	if (end == text)
		goto garbled;
	for (at = end; count < 8; count++, at = end) {
		words[count] = strtoull(at, &end, 16);
		if (end == at)
			break;
	}
	/* Outside a system call only sp and pc are shown, inside of one six arguments before them.
	 */
	if (count != 2 && count != 8)
		goto garbled;
	if (count == 8)
		memcpy(result.args, words, sizeof(result.args));
	result.sp = words[count - 2];
	result.pc = words[count - 1];
	*ret = result;
	return NULL;
garbled:
	return error_create(ERROR_FAILED, "cannot understand the syscall file of thread %d",
			    (int)tid);
}

int process_last_cpu(const struct process *process, pid_t tid)
{
	char path[32];
	uint64_t cpu;

	snprintf(path, sizeof(path), "task/%d/stat", (int)tid);
	return read_stat_field(process->dirfd, path, 39, &cpu) && cpu < INT_MAX ? (int)cpu : -1;
}

bool process_cpu_time(const struct process *process, pid_t tid, uint64_t *user_ret,
		      uint64_t *system_ret)
{
	char path[32];

	snprintf(path, sizeof(path), "task/%d/stat", (int)tid);
	return read_stat_field(process->dirfd, path, 14, user_ret) &&
	       read_stat_field(process->dirfd, path, 15, system_ret);
}

uint64_t process_limit(const struct process *process, const char *name)
{
	cleanup(free) char *text = NULL;
	struct error *error = read_file_at(process->dirfd, "limits", &text, NULL);
	char *line = error ? NULL : strstr(text, name), *end;
	uint64_t limit;

	error_destroy(error);
	if (!line)
		return UINT64_MAX;
	limit = strtoull(line + strlen(name), &end, 10);
	return end == line + strlen(name) ? UINT64_MAX : limit;
}
