#include "memprobe/memory_room.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/capability.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "memprobe/io.h"
#include "memprobe/num.h"

#define LEVELS_MAX 64u

/* Of a version of control groups; Linux Documentation/admin-guide/cgroup-v{1,2}. */
struct version {
	const char *mounts[3];	      /* where it is usually mounted; NULL ends them */
	const char *controller;	      /* in /proc/PID/cgroup */
	const char *limit[2], *usage; /* the lower limit counts; NULL: there is none */
	const char *idle;	      /* of memory.stat: what counts as free; NULL: nothing */
};

/* Above memory.high the kernel slows a process down. */
static const struct version memory_versions[] = {
	{
		.mounts = { "/sys/fs/cgroup", "/sys/fs/cgroup/unified" },
		.controller = "",
		.limit = { "memory.max", "memory.high" },
		.usage = "memory.current",
		.idle = "\ninactive_file ",
	},
	{
		.mounts = { "/sys/fs/cgroup/memory" },
		.controller = "memory",
		.limit = { "memory.limit_in_bytes" },
		.usage = "memory.usage_in_bytes",
		.idle = "\ntotal_inactive_file ",
	},
};

static const struct version task_versions[] = {
	{
		.mounts = { "/sys/fs/cgroup", "/sys/fs/cgroup/unified" },
		.controller = "",
		.limit = { "pids.max" },
		.usage = "pids.current",
	},
	{
		.mounts = { "/sys/fs/cgroup/pids" },
		.controller = "pids",
		.limit = { "pids.max" },
		.usage = "pids.current",
	},
};

/* The text of a small file, or NULL. */
static char *text_of(int dirfd, const char *path)
{
	char *text = NULL;
	struct error *error = read_file_at(dirfd, path, &text, NULL);

	if (!error)
		return text;
	error_destroy(error);
	return NULL;
}

static char *text_in(const char *folder, const char *name)
{
	char path[PATH_MAX];

	if (snprintf(path, sizeof(path), "%s/%s", folder, name) >= (int)sizeof(path))
		return NULL;
	return text_of(AT_FDCWD, path);
}

static uint64_t number_behind(const char *text, const char *key)
{
	const char *at = text ? strstr(text, key) : NULL;

	return at ? strtoull(at + strlen(key), NULL, 10) : 0;
}

static uint64_t machine_room(void)
{
	cleanup(free) char *text = text_of(AT_FDCWD, "/proc/meminfo");
	uint64_t kib = number_behind(text, "\nMemAvailable:");

	return kib ? kib * 1024 : UINT64_MAX;
}

/* `max`, or in version 1 a number that no machine has: no limit. */
static uint64_t group_limit(const struct version *version, const char *folder)
{
	uint64_t least = UINT64_MAX;

	for (unsigned i = 0; i < 2 && version->limit[i]; i++) {
		cleanup(free) char *text = text_in(folder, version->limit[i]);
		uint64_t limit = text && text[0] >= '0' && text[0] <= '9' ? strtoull(text, NULL, 10)
									  : UINT64_MAX;

		if (limit < INT64_MAX / 2)
			least = min_u64(least, limit);
	}
	return least;
}

static uint64_t group_room(const struct version *version, const char *folder)
{
	uint64_t limit = group_limit(version, folder), used, idle = 0;
	cleanup(free) char *usage_text = NULL, *stat = NULL;

	if (limit == UINT64_MAX)
		return UINT64_MAX;
	usage_text = text_in(folder, version->usage);
	if (!usage_text)
		return UINT64_MAX;
	used = strtoull(usage_text, NULL, 10);
	if (version->idle) {
		stat = text_in(folder, "memory.stat");
		idle = number_behind(stat, version->idle);
	}
	used -= min_u64(used, idle);
	return limit - min_u64(limit, used);
}

/* From the group at @path up to the mount. */
static uint64_t hierarchy_room(const struct version *version, const char *mount, const char *path)
{
	uint64_t room = UINT64_MAX;
	char folder[PATH_MAX];

	if (snprintf(folder, sizeof(folder), "%s%s", mount, path) >= (int)sizeof(folder))
		return room;
	for (unsigned i = 0; i < LEVELS_MAX && strlen(folder) >= strlen(mount); i++) {
		char *slash = strrchr(folder, '/');

		room = min_u64(room, group_room(version, folder));
		if (!slash)
			break;
		*slash = '\0';
	}
	return room;
}

/* Whether the comma separated @list has @name. */
static bool lists(const char *list, size_t size, const char *name)
{
	const size_t length = strlen(name);

	while (size) {
		const char *comma = memchr(list, ',', size);
		size_t part = comma ? (size_t)(comma - list) : size;

		if (part == length && !memcmp(list, name, length))
			return true;
		list += min_u64(size, part + 1);
		size -= min_u64(size, part + 1);
	}
	return !length;
}

/* @line: `4:memory:/path`, or `0::/path`. */
static uint64_t line_room(const char *line, const struct version versions[2])
{
	const char *list = strchr(line, ':'), *path = list ? strchr(list + 1, ':') : NULL;
	uint64_t room = UINT64_MAX;

	if (!path)
		return room;
	list++;
	for (size_t i = 0; i < 2; i++) {
		const struct version *version = &versions[i];
		bool is_it = version->controller[0] ? lists(list, path - list, version->controller)
						    : path == list;

		for (size_t j = 0; is_it && version->mounts[j]; j++)
			room = min_u64(room, hierarchy_room(version, version->mounts[j], path + 1));
	}
	return room;
}

static uint64_t groups_room(const struct process *process, const struct version versions[2])
{
	cleanup(free) char *text = text_of(process->dirfd, "cgroup");
	uint64_t room = UINT64_MAX;
	char *rest = text;

	for (char *line; (line = strsep(&rest, "\n"));)
		room = min_u64(room, line_room(line, versions));
	return room;
}

uint64_t memory_room(const struct process *process)
{
	return min_u64(machine_room(), groups_room(process, memory_versions));
}

/* ---- tasks ---- */

/* Tasks of the whole machine: of /proc/loadavg, `0.20 0.18 0.12 1/80 11206`. */
static uint64_t task_count(void)
{
	cleanup(free) char *text = text_of(AT_FDCWD, "/proc/loadavg");
	const char *slash = text ? strchr(text, '/') : NULL;

	return slash ? strtoull(slash + 1, NULL, 10) : 0;
}

static uint64_t machine_task_room(void)
{
	static const char *const limits[] = { "/proc/sys/kernel/threads-max",
					      "/proc/sys/kernel/pid_max" };
	uint64_t count = task_count(), room = UINT64_MAX;

	for (unsigned i = 0; i < 2; i++) {
		cleanup(free) char *text = text_of(AT_FDCWD, limits[i]);
		uint64_t limit = text ? strtoull(text, NULL, 10) : UINT64_MAX;

		room = min_u64(room, limit - min_u64(limit, count));
	}
	return room;
}

uint64_t task_room(const struct process *process)
{
	return min_u64(machine_task_room(), groups_room(process, task_versions));
}

/* Threads of all processes with that real user id. */
static uint64_t count_tasks_of(uid_t uid)
{
	DIR *folder = opendir("/proc");
	uint64_t count = 0;

	for (struct dirent *entry; folder && (entry = readdir(folder));) {
		char path[280];
		cleanup(free) char *text = NULL;

		if (entry->d_name[0] < '1' || entry->d_name[0] > '9')
			continue;
		snprintf(path, sizeof(path), "/proc/%s/status", entry->d_name);
		text = text_of(AT_FDCWD, path);
		if (text && number_behind(text, "\nUid:") == uid)
			count += number_behind(text, "\nThreads:");
	}
	if (folder)
		closedir(folder);
	return count;
}

/* Linux kernel/fork.c, copy_process(): the first user and who may exceed limits are exempt. */
uint64_t user_task_room(const struct process *process, const struct process_status *status)
{
	const uint64_t exempt = 1ull << CAP_SYS_RESOURCE | 1ull << CAP_SYS_ADMIN;
	uint64_t limit = process_limit(process, "Max processes"), count;

	if (limit == UINT64_MAX || !status->uid || (status->cap_effective & exempt))
		return UINT64_MAX;
	/* All of the machine's are at least as many as this user's. */
	count = task_count();
	if (!count || limit < count + count / 4)
		count = count_tasks_of(status->uid);
	return limit - min_u64(limit, count);
}

/* ---- commitment ---- */

uint64_t commit_room(void)
{
	cleanup(free) char *mode = text_of(AT_FDCWD, "/proc/sys/vm/overcommit_memory"),
			   *text = NULL;
	uint64_t limit, used;

	if (!mode || mode[0] != '2')
		return UINT64_MAX;
	text = text_of(AT_FDCWD, "/proc/meminfo");
	limit = number_behind(text, "\nCommitLimit:") * 1024;
	used = number_behind(text, "\nCommitted_AS:") * 1024;
	return limit - min_u64(limit, used);
}
