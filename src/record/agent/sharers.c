#include "sharers.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/kcmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "memprobe/cleanup.h"

/* More new ones than that are not gone through one by one. */
#define NEW_MAX 4096

pid_t sharers_last_pid(void)
{
	cleanup(close) int fd = open("/proc/loadavg", O_RDONLY | O_CLOEXEC);
	char text[128];
	ssize_t size = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
	const char *last;

	if (size <= 0)
		return 0;
	text[size] = '\0';
	last = strrchr(text, ' ');
	return last ? (pid_t)strtol(last, NULL, 10) : 0;
}

/* Kernel threads and the dead have none. */
static bool has_memory(pid_t pid)
{
	char path[32], byte;
	cleanup(close) int fd = -1;

	snprintf(path, sizeof(path), "/proc/%d/maps", (int)pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	return fd >= 0 && read(fd, &byte, 1) == 1;
}

static bool shares(struct target *target, pid_t tid, pid_t pid)
{
	char path[32];

	if (pid == target->pid || pid == tid || syscall(SYS_kcmp, pid, tid, KCMP_VM, 0, 0) != 0)
		return false;
	snprintf(path, sizeof(path), "task/%d", (int)pid);
	return faccessat(target->process->dirfd, path, F_OK, 0) != 0 && has_memory(pid);
}

static pid_t find_among_all(struct target *target, pid_t tid)
{
	DIR *folder = opendir("/proc");
	struct dirent *entry;
	pid_t found = 0;

	while (folder && !found && (entry = readdir(folder))) {
		pid_t pid = (pid_t)strtol(entry->d_name, NULL, 10);

		if (pid > 0 && shares(target, tid, pid))
			found = pid;
	}
	if (folder)
		closedir(folder);
	return found;
}

pid_t sharers_find(struct target *target, pid_t tid, pid_t last)
{
	pid_t now = sharers_last_pid();

	if (!last || now < last || now - last > NEW_MAX)
		return find_among_all(target, tid);
	for (pid_t pid = last + 1; pid <= now; pid++)
		if (shares(target, tid, pid))
			return pid;
	return 0;
}
