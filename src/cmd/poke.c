#include "poke.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

static pid_t number_of(const char *name)
{
	pid_t number = 0;

	for (; *name >= '0' && *name <= '9'; name++)
		number = number * 10 + (*name - '0');
	return number;
}

void poke_threads(int signal)
{
	_Alignas(uint64_t) char buffer[2048];
	int fd = open("/proc/self/task", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	long size;

	while (fd >= 0 && (size = syscall(SYS_getdents64, fd, buffer, sizeof(buffer))) > 0) {
		for (long at = 0; at < size;) {
			const struct dirent64 *entry = (const void *)(buffer + at);
			pid_t tid = number_of(entry->d_name);

			if (tid && tid != gettid())
				tgkill(getpid(), tid, signal);
			at += entry->d_reclen;
		}
	}
	if (fd >= 0)
		close(fd);
}
