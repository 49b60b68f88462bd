/* Who has asked to be told of forks would wait for, and see, ours. */
#include "fork_events.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "memprobe/io.h"

/* Linux fs/userfaultfd.c, userfaultfd_show_fdinfo(): `API: API:FEATURES:IOCTLS`, hexadecimal. */
static bool tells_of_forks(const struct process *process, const char *number)
{
	cleanup(free) char *text = NULL;
	unsigned features = 0;
	const char *line;
	char path[64];
	struct error *error;

	snprintf(path, sizeof(path), "fdinfo/%.32s", number);
	error = read_file_at(process->dirfd, path, &text, NULL);
	error_destroy(error);
	line = error ? NULL : strstr(text, "\nAPI:");
	return line && sscanf(line + 5, "%*x:%x:", &features) == 1 &&
	       (features & UFFD_FEATURE_EVENT_FORK);
}

bool process_tells_of_forks(const struct process *process)
{
	static const char name[] = "anon_inode:[userfaultfd]";
	int fd = openat(process->dirfd, "fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *folder = fd >= 0 ? fdopendir(fd) : NULL;
	bool found = false;

	if (!folder) {
		if (fd >= 0)
			close(fd);
		return false;
	}
	for (struct dirent *entry; !found && (entry = readdir(folder));) {
		char link[sizeof(name)];
		ssize_t size = readlinkat(fd, entry->d_name, link, sizeof(link));

		found = size == sizeof(name) - 1 && !memcmp(link, name, size) &&
			tells_of_forks(process, entry->d_name);
	}
	closedir(folder);
	return found;
}
