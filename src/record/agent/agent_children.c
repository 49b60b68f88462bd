/*
 * Processes that were forked, without an exec, while the target was recorded: they have a copy of
 * the agent, idle from the start (MADV_WIPEONFORK), and its hooks. It is taken out of them as out
 * of the target, wherever they are: children of children, and those that init has adopted.
 */
#include "agent_recorder.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "memprobe/clock.h"
#include "memprobe/log.h"
#include "memprobe/num.h"

/* Children fork while they are gone through. */
#define ROUNDS	4
#define EACH_US UINT64_C(2000000)

/* Those of which it cannot be told or that kept it are not tried again. */
struct children {
	struct agent_recorder *agent;
	uint64_t deadline; /* clock_us() */
	struct pid_vec kept;
};

/* It is the copy of this recording's agent, at its place. */
static bool has_copy(const struct agent_recorder *agent, pid_t pid)
{
	struct agent_header header;
	cleanup(free) struct agent_config *config = malloc(sizeof(*config));
	cleanup(close) int memory = -1;
	struct error *error;
	bool found;
	char path[32];

	if (!config)
		return false;
	snprintf(path, sizeof(path), "/proc/%d/mem", (int)pid);
	memory = open(path, O_RDONLY | O_CLOEXEC);
	if (memory < 0 ||
	    pread(memory, &header, sizeof(header), (off_t)agent->image) != sizeof(header) ||
	    memcmp(header.magic, AGENT_MAGIC, sizeof(header.magic)) != 0)
		return false;
	error = leave_read_config(memory, agent->image, config);
	found = !error && config->target == agent->config.target &&
		config->target_start == agent->config.target_start;
	error_destroy(error);
	return found;
}

static bool is_kept(const struct children *children, pid_t pid)
{
	vec_for_each (kept, &children->kept)
		if (*kept == pid)
			return true;
	return false;
}

static struct error *keep(struct children *children, pid_t pid, const char *why)
{
	struct trace_report *report = children->agent->report;

	log_warn("process %d, forked while %d was recorded, keeps the agent, idle: %s; the next "
		 "`memprobe allocs %d` removes it",
		 (int)pid, (int)children->agent->target->pid, why, (int)pid);
	report->children_left++;
	return pid_vec_append(&children->kept, &pid);
}

static struct error *clean(struct children *children, pid_t pid)
{
	cleanup(target) struct target *child = NULL;
	uint64_t now = clock_us(), remaining = 0;
	struct error *error = NULL, *failed;

	if (now >= children->deadline)
		return keep(children, pid, "there are too many to be gone through in time");
	error = target_open_live(pid, &child);
	if (!error)
		error = trace_remove_leftovers(child, min_u64(EACH_US, children->deadline - now),
					       &remaining);
	if (!error && !remaining) {
		children->agent->report->children_cleaned++;
		return NULL;
	}
	if (error_is(error, ERROR_NO_MEMORY))
		return error;
	/* It has ended, or is another program by now. */
	if (!has_copy(children->agent, pid)) {
		error_destroy(error);
		return NULL;
	}
	failed = keep(children, pid, error ? error->message : "it is in use");
	error_destroy(error);
	return failed;
}

static struct error *go_through(struct children *children, bool *found_ret)
{
	DIR *folder = opendir("/proc");
	struct error *error = NULL;

	for (struct dirent *entry; !error && folder && (entry = readdir(folder));) {
		pid_t pid = (pid_t)strtol(entry->d_name, NULL, 10);

		if (pid <= 0 || pid == getpid() || is_kept(children, pid) ||
		    !has_copy(children->agent, pid))
			continue;
		/* The target itself, and who shares its memory, if the agent could not leave. */
		if (children->agent->report->remaining && pid == children->agent->target->pid)
			continue;
		*found_ret = true;
		error = clean(children, pid);
	}
	if (folder)
		closedir(folder);
	return error;
}

struct error *children_clean(struct agent_recorder *agent)
{
	struct children children = {
		.agent = agent,
		.deadline = clock_us() + agent->options->timeout_us,
	};
	struct error *error = NULL;
	bool found = true;

	for (unsigned i = 0; !error && found && i < ROUNDS; i++) {
		found = false;
		error = go_through(&children, &found);
	}
	pid_vec_deinit(&children.kept);
	return error;
}
