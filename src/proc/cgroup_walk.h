/*
 * cgroup_walk.h - the control groups of a process, of either version. Private to proc/.
 *
 * Source: Linux Documentation/admin-guide/cgroup-v{1,2}, /proc/PID/cgroup in cgroups(7).
 */
#ifndef CGROUP_WALK_H
#define CGROUP_WALK_H

#include <stdint.h>

#include "memprobe/process.h"

/* Of a version of control groups. */
struct cgroup_version {
	const char *mounts[3];	      /* where it is usually mounted; NULL ends them */
	const char *controller;	      /* in /proc/PID/cgroup; "": version 2 */
	const char *limit[2], *usage; /* the lower limit counts; NULL: there is none */
	const char *idle;	      /* in memory.stat: what counts as free; NULL: nothing */
};

/* Above memory.high the kernel slows a process down. */
extern const struct cgroup_version cgroup_memory_versions[2];
extern const struct cgroup_version cgroup_task_versions[2];

/* UINT64_MAX: none. `max`, or in version 1 a number that no machine has, is none. */
uint64_t cgroup_limit(const struct cgroup_version *version, const char *folder);

/* Whether @line of /proc/PID/cgroup is of @version, and the path in it: `4:memory:/path`,
 * `0::/path`. NULL: it is not. */
const char *cgroup_line_path(const struct cgroup_version *version, const char *line);

/* Calls @see for the group of @process and each one above it, up to the mount, wherever one of
 * @versions may be mounted; a folder need not exist. @path: as /proc/PID/cgroup has it. */
void cgroup_walk(const struct process *process, const struct cgroup_version versions[2],
		 void (*see)(void *data, const struct cgroup_version *version, const char *path,
			     const char *folder),
		 void *data);

#endif
