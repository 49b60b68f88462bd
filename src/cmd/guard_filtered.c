#include "guard_filtered.h"

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

static bool is_traced_by_memprobe(const struct process *process)
{
	struct pid_vec tids = { 0 };
	struct error *error = process_list_threads(process, &tids);
	bool found = false;

	for (size_t i = 0; !error && !found && i < tids.size && i < PREDECESSOR_LOOK_MAX; i++) {
		struct process_status status;

		error = process_read_status(process, tids.data[i], &status);
		found = !error && status.tracer_pid && is_memprobe(status.tracer_pid);
		/* It has ended. */
		error_destroy(take_pointer(error));
	}
	error_destroy(error);
	pid_vec_deinit(&tids);
	return found;
}

void guard_filtered(const struct process *process)
{
	if (!process_has_filter(process))
		return;
	for (unsigned us = 0; us < PREDECESSOR_WAIT_US && is_traced_by_memprobe(process);
	     us += PREDECESSOR_LOOK_US)
		usleep(PREDECESSOR_LOOK_US);
	guard_begin();
}
