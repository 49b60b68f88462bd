/*
 * cgroup.h - the memory control group of a process: what is used, what is allowed, and whose
 * container it is.
 *
 * Version 1 and 2, both at once, or none. Source: Linux Documentation/admin-guide/cgroup-v2.rst and
 * cgroup-v1/memory.rst.
 */
#ifndef MEMPROBE_CGROUP_H
#define MEMPROBE_CGROUP_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "memprobe/process.h"

#define CGROUP_UNKNOWN	UINT64_MAX
#define CGROUP_NAME_MAX 128

/* Bytes; CGROUP_UNKNOWN: not told, and of a limit that there is none. */
struct cgroup_memory {
	bool known; /* false: there is no such group, or it may not be read; nothing else is set */
	char path[PATH_MAX]; /* as in /proc/PID/cgroup */
	uint64_t usage;	     /* page cache included */
	uint64_t idle_file;  /* of it: page cache that is in nobody's way */
	uint64_t file;	     /* of it: page cache, shmem not included */
	uint64_t shmem;	     /* of it: shared memory and tmpfs files */
	/* The lowest of its own limit and those of the groups above it, and what that group uses,
	 * without its idle page cache. */
	uint64_t limit, limit_usage;
	uint64_t oom_kills; /* a count, since the group was made */
};

void cgroup_read_memory(const struct process *process, struct cgroup_memory *ret);

/* How many processes the kernel has killed in the group at @path, of a process that may have ended;
 * CGROUP_UNKNOWN: it does not say. */
uint64_t cgroup_oom_kills(const char *path);

/* Only its path, of the process whose folder of /proc is @dirfd; false: there is none. */
bool cgroup_memory_path(int dirfd, char *buffer, size_t size);

/*
 * The container or service that a group's @path names: the first 12 digits of a container's id
 * (docker, containerd, cri-o, podman), the name of an LXC container or of a systemd unit. Returns
 * @buffer, or NULL: it names none.
 */
const char *cgroup_container(const char *path, char buffer[CGROUP_NAME_MAX]);

#endif
