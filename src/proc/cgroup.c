#include "memprobe/cgroup.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "memprobe/num.h"
#include "cgroup_walk.h"
#include "proc_text.h"

/* ---- figures ---- */

static uint64_t read_number(const char *folder, const char *name)
{
	cleanup(free) char *text = text_in_folder(folder, name);

	return text && isdigit((unsigned char)text[0]) ? strtoull(text, NULL, 10) : CGROUP_UNKNOWN;
}

/* `file` of version 2 has shmem in it; so has `cache` of version 1. */
static void read_stat(const struct cgroup_version *version, const char *folder,
		      struct cgroup_memory *ret)
{
	bool is_second = !version->controller[0];
	cleanup(free) char *stat = text_in_folder(folder, "memory.stat");

	ret->idle_file = text_number(stat, version->idle, CGROUP_UNKNOWN);
	ret->shmem = text_number(stat, is_second ? "shmem " : "total_shmem ", CGROUP_UNKNOWN);
	ret->file = text_number(stat, is_second ? "file " : "total_cache ", CGROUP_UNKNOWN);
	if (ret->file != CGROUP_UNKNOWN && ret->shmem != CGROUP_UNKNOWN)
		ret->file -= min_u64(ret->file, ret->shmem);
}

static uint64_t oom_kills_in(const struct cgroup_version *version, const char *folder)
{
	cleanup(free) char *events = text_in_folder(
		folder, version->controller[0] ? "memory.oom_control" : "memory.events");

	return text_number(events, "oom_kill ", CGROUP_UNKNOWN);
}

uint64_t cgroup_oom_kills(const char *path)
{
	uint64_t kills = CGROUP_UNKNOWN;
	char folder[PATH_MAX];

	for (unsigned i = 0; i < 2; i++) {
		const struct cgroup_version *version = &cgroup_memory_versions[i];

		for (unsigned j = 0; kills == CGROUP_UNKNOWN && version->mounts[j]; j++)
			if (snprintf(folder, sizeof(folder), "%s%s", version->mounts[j], path) <
			    (int)sizeof(folder))
				kills = oom_kills_in(version, folder);
	}
	return kills;
}

static void read_own(const struct cgroup_version *version, const char *path, const char *folder,
		     struct cgroup_memory *ret)
{
	uint64_t usage = read_number(folder, version->usage);

	if (usage == CGROUP_UNKNOWN)
		return;
	ret->known = true;
	ret->usage = usage;
	snprintf(ret->path, sizeof(ret->path), "%s", path);
	read_stat(version, folder, ret);
	ret->oom_kills = oom_kills_in(version, folder);
}

/* The first group that is seen is the process's own. */
static void see(void *data, const struct cgroup_version *version, const char *path,
		const char *folder)
{
	struct cgroup_memory *ret = data;
	uint64_t limit, usage, idle;
	cleanup(free) char *stat = NULL;

	if (!ret->known)
		read_own(version, path, folder, ret);
	if (!ret->known)
		return;
	limit = cgroup_limit(version, folder);
	if (limit >= ret->limit)
		return;
	usage = read_number(folder, version->usage);
	if (usage == CGROUP_UNKNOWN)
		return;
	stat = text_in_folder(folder, "memory.stat");
	idle = text_number(stat, version->idle, 0);
	ret->limit = limit;
	ret->limit_usage = usage - min_u64(usage, idle);
}

void cgroup_read_memory(const struct process *process, struct cgroup_memory *ret)
{
	*ret = (struct cgroup_memory){
		.limit = CGROUP_UNKNOWN,
		.limit_usage = CGROUP_UNKNOWN,
		.oom_kills = CGROUP_UNKNOWN,
	};
	cgroup_walk(process, cgroup_memory_versions, see, ret);
}

/* Of both at once, version 1 has the memory. */
bool cgroup_memory_path(int dirfd, char *buffer, size_t size)
{
	cleanup(free) char *text = text_of_file(dirfd, "cgroup");
	const char *found = NULL;
	char *rest = text;

	for (char *line; (line = strsep(&rest, "\n"));) {
		const char *first = cgroup_line_path(&cgroup_memory_versions[1], line);
		const char *second = cgroup_line_path(&cgroup_memory_versions[0], line);

		if (first || (second && !found))
			found = first ? first : second;
		if (first)
			break;
	}
	if (found)
		snprintf(buffer, size, "%s", found);
	return found != NULL;
}

/* ---- whose it is ---- */

#define ID_DIGITS 64u
#define ID_SHOWN  12u

/* The id of a container at the end of a group's name: `docker-<64 digits>.scope`, `<64 digits>`. */
static const char *find_id(const char *name, size_t length)
{
	size_t digits = 0;

	for (size_t i = 0; i < length; i++) {
		digits = isxdigit((unsigned char)name[i]) ? digits + 1 : 0;
		if (digits == ID_DIGITS)
			return name + i + 1 - ID_DIGITS;
	}
	return NULL;
}

static bool ends_in(const char *name, size_t length, const char *end)
{
	size_t size = strlen(end);

	return length > size && !memcmp(name + length - size, end, size);
}

static const char *name_it(const char *name, size_t length, char *buffer)
{
	const char *id = find_id(name, length);

	if (id)
		snprintf(buffer, CGROUP_NAME_MAX, "%.*s", (int)ID_SHOWN, id);
	else
		snprintf(buffer, CGROUP_NAME_MAX, "%.*s", (int)min_u64(length, CGROUP_NAME_MAX - 1),
			 name);
	return buffer;
}

/* From the innermost group on: units of systemd's own for containers and users say little. */
const char *cgroup_container(const char *path, char buffer[CGROUP_NAME_MAX])
{
	const char *end = path + strlen(path);
	static const char lxc[] = "lxc.payload.";

	while (end > path) {
		const char *name = end;
		size_t length;

		while (name > path && name[-1] != '/')
			name--;
		length = (size_t)(end - name);
		if (find_id(name, length) || ends_in(name, length, ".service"))
			return name_it(name, length, buffer);
		if (!strncmp(name, lxc, sizeof(lxc) - 1))
			return name_it(name + sizeof(lxc) - 1, length - (sizeof(lxc) - 1), buffer);
		if (name - path >= 5 && !strncmp(name - 5, "/lxc/", 5))
			return name_it(name, length, buffer);
		end = name > path ? name - 1 : path;
	}
	return NULL;
}
