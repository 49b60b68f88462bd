#include "memprobe/predecessor.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "memprobe/process.h"

static bool is_memprobe(pid_t pid)
{
	char path[32];
	struct stat own, its;

	snprintf(path, sizeof(path), "/proc/%d/exe", (int)pid);
	return !stat("/proc/self/exe", &own) && !stat(path, &its) && own.st_dev == its.st_dev &&
	       own.st_ino == its.st_ino;
}

/* The end of a process takes its memory, and with that its program, before it detaches what it
 * traces. */
static bool has_no_program(pid_t pid)
{
	char path[32];
	struct stat its;

	snprintf(path, sizeof(path), "/proc/%d/exe", (int)pid);
	return stat(path, &its) && errno == ENOENT;
}

bool predecessor_is_ending(pid_t tid)
{
	struct process process = { .pid = tid };
	struct process_status status;
	struct error *error;
	bool found;
	char path[32];

	snprintf(path, sizeof(path), "/proc/%d", (int)tid);
	process.dirfd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (process.dirfd < 0)
		return false;
	error = process_read_status(&process, 0, &status);
	found = !error && (has_no_program(tid) || (is_memprobe(tid) && !is_memprobe(status.ppid)));
	/* It has ended. */
	error_destroy(error);
	close(process.dirfd);
	return found;
}
