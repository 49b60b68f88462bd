#include "cgroup_walk.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "memprobe/num.h"
#include "proc_text.h"

#define LEVELS_MAX 64u

const struct cgroup_version cgroup_memory_versions[2] = {
	{
		.mounts = { "/sys/fs/cgroup", "/sys/fs/cgroup/unified" },
		.controller = "",
		.limit = { "memory.max", "memory.high" },
		.usage = "memory.current",
		.idle = "inactive_file ",
	},
	{
		.mounts = { "/sys/fs/cgroup/memory" },
		.controller = "memory",
		.limit = { "memory.limit_in_bytes" },
		.usage = "memory.usage_in_bytes",
		.idle = "total_inactive_file ",
	},
};

const struct cgroup_version cgroup_task_versions[2] = {
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

uint64_t cgroup_limit(const struct cgroup_version *version, const char *folder)
{
	uint64_t least = UINT64_MAX;

	for (unsigned i = 0; i < 2 && version->limit[i]; i++) {
		cleanup(free) char *text = text_in_folder(folder, version->limit[i]);
		uint64_t limit = text && text[0] >= '0' && text[0] <= '9' ? strtoull(text, NULL, 10)
									  : UINT64_MAX;

		if (limit < INT64_MAX / 2)
			least = min_u64(least, limit);
	}
	return least;
}

/* What a walk hands on. */
struct walk {
	void (*see)(void *data, const struct cgroup_version *version, const char *path,
		    const char *folder);
	void *data;
};

/* From the group at @path up to the mount. */
static void walk_up(const struct walk *walk, const struct cgroup_version *version,
		    const char *mount, const char *path)
{
	char folder[PATH_MAX];

	if (snprintf(folder, sizeof(folder), "%s%s", mount, path) >= (int)sizeof(folder))
		return;
	for (unsigned i = 0; i < LEVELS_MAX && strlen(folder) >= strlen(mount); i++) {
		char *slash = strrchr(folder, '/');

		walk->see(walk->data, version, path, folder);
		if (!slash)
			break;
		*slash = '\0';
	}
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

const char *cgroup_line_path(const struct cgroup_version *version, const char *line)
{
	const char *list = strchr(line, ':'), *path = list ? strchr(list + 1, ':') : NULL;

	if (!path)
		return NULL;
	list++;
	if (version->controller[0] ? !lists(list, path - list, version->controller) : path != list)
		return NULL;
	return path + 1;
}

static void walk_line(const struct walk *walk, const char *line,
		      const struct cgroup_version versions[2])
{
	for (size_t i = 0; i < 2; i++) {
		const char *path = cgroup_line_path(&versions[i], line);

		for (size_t j = 0; path && versions[i].mounts[j]; j++)
			walk_up(walk, &versions[i], versions[i].mounts[j], path);
	}
}

void cgroup_walk(const struct process *process, const struct cgroup_version versions[2],
		 void (*see)(void *data, const struct cgroup_version *version, const char *path,
			     const char *folder),
		 void *data)
{
	const struct walk walk = { see, data };
	cleanup(free) char *text = text_of_file(process->dirfd, "cgroup");
	char *rest = text;

	for (char *line; (line = strsep(&rest, "\n"));)
		walk_line(&walk, line, versions);
}
