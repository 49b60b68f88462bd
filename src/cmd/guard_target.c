#include "guard_target.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "memprobe/guard.h"

/* How long another memprobe that was killed may take to end. */
#define PREDECESSOR_WAIT_US  1000000
#define PREDECESSOR_LOOK_US  2000
#define PREDECESSOR_LOOK_MAX 512

static bool is_memprobe(pid_t pid)
{
	char path[32];
	struct stat own, its;

	snprintf(path, sizeof(path), "/proc/%d/exe", (int)pid);
	return !stat("/proc/self/exe", &own) && !stat(path, &its) && own.st_dev == its.st_dev &&
	       own.st_ino == its.st_ino;
}

/* A memprobe whose first process has been killed: of others, the parent is one, too. @tracer is a
 * thread of it. */
static bool is_orphan(pid_t tracer)
{
	struct process process = { .pid = tracer };
	struct process_status status;
	struct error *error;
	bool found;
	char path[32];

	snprintf(path, sizeof(path), "/proc/%d", (int)tracer);
	process.dirfd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (process.dirfd < 0)
		return false;
	error = process_read_status(&process, 0, &status);
	found = !error && is_memprobe(tracer) && !is_memprobe(status.ppid);
	/* It has ended. */
	error_destroy(error);
	close(process.dirfd);
	return found;
}

static bool is_traced_by_orphan(const struct process *process)
{
	struct pid_vec tids = { 0 };
	struct error *error = process_list_threads(process, &tids);
	pid_t living = 0;
	bool found = false;

	for (size_t i = 0; !error && !found && i < tids.size && i < PREDECESSOR_LOOK_MAX; i++) {
		struct process_status status;

		error = process_read_status(process, tids.data[i], &status);
		if (!error && status.tracer_pid && status.tracer_pid != living) {
			living = status.tracer_pid;
			found = is_orphan(living);
		}
		/* It has ended. */
		error_destroy(take_pointer(error));
	}
	error_destroy(error);
	pid_vec_deinit(&tids);
	return found;
}

/* Where Yama lets only ancestors trace, a child of ours may not trace another one. */
static bool is_child_of_ours(const struct process *process)
{
	struct process_status status;
	struct error *error = process_read_status(process, 0, &status);
	bool is_child = !error && status.ppid == getpid();

	error_destroy(error);
	return is_child;
}

void guard_target(const struct process *process)
{
	for (unsigned us = 0; us < PREDECESSOR_WAIT_US && is_traced_by_orphan(process);
	     us += PREDECESSOR_LOOK_US)
		usleep(PREDECESSOR_LOOK_US);
	if (!is_child_of_ours(process))
		guard_begin();
}
