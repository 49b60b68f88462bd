#include "memprobe/memory_room.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "memprobe/num.h"
#include "cgroup_walk.h"
#include "proc_text.h"

static uint64_t machine_room(void)
{
	cleanup(free) char *text = text_of_file(AT_FDCWD, "/proc/meminfo");
	uint64_t kib = text_number(text, "MemAvailable:", 0);

	return kib ? kib * 1024 : UINT64_MAX;
}

static uint64_t group_room(const struct cgroup_version *version, const char *folder)
{
	uint64_t limit = cgroup_limit(version, folder), used, idle = 0;
	cleanup(free) char *usage_text = NULL, *stat = NULL;

	if (limit == UINT64_MAX)
		return UINT64_MAX;
	usage_text = text_in_folder(folder, version->usage);
	if (!usage_text)
		return UINT64_MAX;
	used = strtoull(usage_text, NULL, 10);
	if (version->idle) {
		stat = text_in_folder(folder, "memory.stat");
		idle = text_number(stat, version->idle, 0);
	}
	used -= min_u64(used, idle);
	return limit - min_u64(limit, used);
}

static void see_room(void *data, const struct cgroup_version *version, const char *path,
		     const char *folder)
{
	uint64_t *room = data;

	*room = min_u64(*room, group_room(version, folder));
}

static uint64_t groups_room(const struct process *process, const struct cgroup_version versions[2])
{
	uint64_t room = UINT64_MAX;

	cgroup_walk(process, versions, see_room, &room);
	return room;
}

uint64_t memory_room(const struct process *process)
{
	return min_u64(machine_room(), groups_room(process, cgroup_memory_versions));
}

/* ---- tasks ---- */

/* Tasks of the whole machine: of /proc/loadavg, `0.20 0.18 0.12 1/80 11206`. */
static uint64_t task_count(void)
{
	cleanup(free) char *text = text_of_file(AT_FDCWD, "/proc/loadavg");
	const char *slash = text ? strchr(text, '/') : NULL;

	return slash ? strtoull(slash + 1, NULL, 10) : 0;
}

static uint64_t machine_task_room(void)
{
	static const char *const limits[] = { "/proc/sys/kernel/threads-max",
					      "/proc/sys/kernel/pid_max" };
	uint64_t count = task_count(), room = UINT64_MAX;

	for (unsigned i = 0; i < 2; i++) {
		cleanup(free) char *text = text_of_file(AT_FDCWD, limits[i]);
		uint64_t limit = text ? strtoull(text, NULL, 10) : UINT64_MAX;

		room = min_u64(room, limit - min_u64(limit, count));
	}
	return room;
}

uint64_t task_room(const struct process *process)
{
	return min_u64(machine_task_room(), groups_room(process, cgroup_task_versions));
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
		text = text_of_file(AT_FDCWD, path);
		if (text && text_number(text, "Uid:", UINT64_MAX) == uid)
			count += text_number(text, "Threads:", 0);
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
	cleanup(free) char *mode = text_of_file(AT_FDCWD, "/proc/sys/vm/overcommit_memory"),
			   *text = NULL;
	uint64_t limit, used;

	if (!mode || mode[0] != '2')
		return UINT64_MAX;
	text = text_of_file(AT_FDCWD, "/proc/meminfo");
	limit = text_number(text, "CommitLimit:", 0) * 1024;
	used = text_number(text, "Committed_AS:", 0) * 1024;
	return limit - min_u64(limit, used);
}
