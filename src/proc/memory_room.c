#include "memprobe/memory_room.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "memprobe/io.h"
#include "memprobe/num.h"

#define LEVELS_MAX 64u

/* Of a version of control groups; Linux Documentation/admin-guide/cgroup-v{1,2}. */
struct version {
	const char *mounts[3];		  /* where it is usually mounted; NULL ends them */
	const char *controller;		  /* in /proc/PID/cgroup */
	const char *limit, *usage, *idle; /* idle: of memory.stat */
};

static const struct version versions[] = {
	{
		.mounts = { "/sys/fs/cgroup", "/sys/fs/cgroup/unified" },
		.controller = "",
		.limit = "memory.max",
		.usage = "memory.current",
		.idle = "\ninactive_file ",
	},
	{
		.mounts = { "/sys/fs/cgroup/memory" },
		.controller = "memory",
		.limit = "memory.limit_in_bytes",
		.usage = "memory.usage_in_bytes",
		.idle = "\ntotal_inactive_file ",
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

static uint64_t group_room(const struct version *version, const char *folder)
{
	cleanup(free) char *limit_text = text_in(folder, version->limit), *usage_text = NULL,
			   *stat = NULL;
	uint64_t limit, used, idle;

	/* `max`, or in version 1 a number that no machine has: no limit. */
	if (!limit_text || limit_text[0] < '0' || limit_text[0] > '9')
		return UINT64_MAX;
	limit = strtoull(limit_text, NULL, 10);
	usage_text = text_in(folder, version->usage);
	if (!usage_text || limit >= INT64_MAX / 2)
		return UINT64_MAX;
	used = strtoull(usage_text, NULL, 10);
	stat = text_in(folder, "memory.stat");
	idle = number_behind(stat, version->idle);
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
static uint64_t line_room(const char *line)
{
	const char *list = strchr(line, ':'), *path = list ? strchr(list + 1, ':') : NULL;
	uint64_t room = UINT64_MAX;

	if (!path)
		return room;
	list++;
	for (size_t i = 0; i < sizeof(versions) / sizeof(versions[0]); i++) {
		const struct version *version = &versions[i];
		bool is_it = version->controller[0] ? lists(list, path - list, version->controller)
						    : path == list;

		for (size_t j = 0; is_it && version->mounts[j]; j++)
			room = min_u64(room, hierarchy_room(version, version->mounts[j], path + 1));
	}
	return room;
}

uint64_t memory_room(const struct process *process)
{
	cleanup(free) char *text = text_of(process->dirfd, "cgroup");
	uint64_t room = machine_room();
	char *rest = text;

	for (char *line; (line = strsep(&rest, "\n"));)
		room = min_u64(room, line_room(line));
	return room;
}
