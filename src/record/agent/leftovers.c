/* Agents that a killed memprobe left in a target, found by how their image begins. */
#include "agent_recorder.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <x86intrin.h>

#include "memprobe/num.h"
#include "memprobe/permit.h"
#include "memprobe/predecessor.h"

/* Of any version. */
#define MAGIC_PREFIX 14
/* Where neighbours may have become one mapping with it; larger ones are looked at only at their
 * start. */
#define SEARCHED_MAX (1u << 20)

struct error *agent_open_memory(struct target *target, int *ret)
{
	int fd = openat(target->process->dirfd, "mem", O_RDWR | O_CLOEXEC);

	if (fd < 0)
		return permit_explain(target->process, PERMIT_ATTACH, errno);
	*ret = fd;
	return NULL;
}

/* ---- whose it is ---- */

static uint64_t own_namespace(void)
{
	struct stat status;

	return stat("/proc/self/ns/pid", &status) ? 0 : status.st_ino;
}

void agent_sign(struct agent_config *config, const struct target *target)
{
	struct process *self = NULL;

	config->tracer = (uint64_t)getpid();
	config->tracer_namespace = own_namespace();
	config->target = (uint64_t)target->pid;
	config->target_start = target->process->start_time;
	error_destroy(process_open(getpid(), &self));
	if (self)
		config->tracer_start = self->start_time;
	process_close(self);
}

/* One that was killed has a child that may still finish a section: that is no recording, and it is
 * waited for. */
static bool tracer_lives(const struct agent_config *config)
{
	struct process *process = NULL;
	bool lives;

	error_destroy(process_open((pid_t)config->tracer, &process));
	lives = process && process->start_time == config->tracer_start &&
		!process_has_ended(process);
	for (unsigned us = 0;
	     lives && us < PREDECESSOR_WAIT_US && predecessor_is_ending(process->pid);
	     us += PREDECESSOR_LOOK_US) {
		usleep(PREDECESSOR_LOOK_US);
		lives = !process_has_ended(process);
	}
	process_close(process);
	return lives;
}

/* A forked child has an agent like its parent's, whose CTL is zeros. */
static bool is_inherited(const struct target *target, const struct agent_config *config)
{
	uint64_t namespace = own_namespace();

	return config->target_start != target->process->start_time ||
	       (namespace && config->tracer_namespace == namespace &&
		config->target != (uint64_t)target->pid);
}

static bool is_active(int memory, uint64_t image)
{
	uint32_t active = AGENT_INACTIVE;

	return pread(memory, &active, sizeof(active),
		     (off_t)(image + AGENT_IMAGE_SPACE + offsetof(struct agent_ctl, active))) ==
		       sizeof(active) &&
	       active != AGENT_INACTIVE;
}

static bool read_word(int memory, uint64_t image, size_t offset, uint64_t *ret)
{
	return pread(memory, ret, sizeof(*ret), (off_t)(image + AGENT_IMAGE_SPACE + offset)) ==
	       sizeof(*ret);
}

static bool has_lapsed(struct target *target, int memory, uint64_t image)
{
	struct lease_clock clock;
	uint64_t deadline, address;

	if (!read_word(memory, image, offsetof(struct agent_ctl, deadline), &deadline) ||
	    !read_word(memory, image, offsetof(struct agent_ctl, clock), &address))
		return true;
	lease_clock_find(target, &clock);
	return (address ? lease_clock_now(&clock) : __rdtsc()) >= deadline;
}

/* A tracer of another PID namespace cannot be looked at: its lease speaks for it. */
static bool is_recording(struct target *target, int memory, uint64_t image,
			 const struct agent_config *config)
{
	uint64_t namespace = own_namespace();

	if (namespace && config->tracer_namespace == namespace)
		return tracer_lives(config);
	return is_active(memory, image) && !has_lapsed(target, memory, image);
}

/* ---- finding ---- */

static struct error *look_at(struct target *target, uint64_t address,
			     struct trace_leftover_vec *ret)
{
	struct trace_leftover found = { .address = address };
	cleanup(free) struct agent_config *config = malloc(sizeof(*config));
	cleanup(close) int memory = -1;
	struct agent_header header;
	struct error *error;

	if (!config)
		return &error_no_memory;
	error = target_read(target, address, &header, sizeof(header));
	if (error || memcmp(header.magic, AGENT_MAGIC, MAGIC_PREFIX)) {
		error_destroy(error);
		return NULL;
	}
	memory = openat(target->process->dirfd, "mem", O_RDONLY | O_CLOEXEC);
	found.size = AGENT_IMAGE_SPACE;
	found.known = !memcmp(header.magic, AGENT_MAGIC, sizeof(header.magic)) &&
		      header.version == AGENT_VERSION && memory >= 0 &&
		      header.ctl_size == sizeof(struct agent_ctl);
	if (found.known) {
		error = leave_read_config(memory, address, config);
		if (error) {
			error_destroy(error);
			return NULL;
		}
		found.size += sizeof(struct agent_ctl);
		for (size_t i = 0; i < sizeof(config->areas) / sizeof(config->areas[0]); i++)
			found.size += config->areas[i].size;
		for (size_t i = 0; i < AGENT_SLOTS; i++)
			found.hooks += config->slots[i].patched == AGENT_PATCHED;
		found.inherited = is_inherited(target, config);
		found.recording = !found.inherited && is_recording(target, memory, address, config);
		found.active = is_active(memory, address);
		found.lapsed = has_lapsed(target, memory, address);
	}
	return trace_leftover_vec_append(ret, &found);
}

struct error *trace_find_leftovers(struct target *target, struct trace_leftover_vec *ret)
{
	struct mapping_vec maps = { 0 };
	struct error *error;

	if (!target->process || target->arch != &arch_x86_64)
		return NULL;
	error = target_read_maps(target, MAPS_PLAIN, &maps);
	for (size_t i = 0; !error && i < maps.size; i++) {
		const struct mapping *mapping = &maps.data[i];
		uint64_t end = mapping->end - mapping->start > SEARCHED_MAX
				       ? mapping->start + PAGE_SIZE
				       : mapping->end;

		if (*mapping->path || mapping->perms != (PERM_READ | PERM_EXEC))
			continue;
		for (uint64_t at = mapping->start; !error && at < end; at += PAGE_SIZE)
			error = look_at(target, at, ret);
	}
	mappings_deinit(&maps);
	return error;
}

/* ---- removing ---- */

static struct error *remove_one(struct call_session *session, int memory,
				const struct trace_leftover *leftover, uint64_t timeout_us,
				uint64_t *remaining)
{
	cleanup(free) struct leave *leave = calloc(1, sizeof(*leave));
	struct error *error;

	if (!leave)
		return &error_no_memory;
	if (leftover->recording)
		return error_hint(error_create(ERROR_BUSY, "another memprobe is recording %d",
					       (int)call_target(session)->pid),
				  "wait for it to end");
	if (!leftover->known)
		return error_create(ERROR_UNSUPPORTED,
				    "another version of memprobe has left its agent in %d: only "
				    "that can remove it",
				    (int)call_target(session)->pid);
	leave->target = call_target(session);
	leave->session = session;
	leave->memory = memory;
	leave->image = leftover->address;
	leave->timeout_us = timeout_us;
	error = leave_read_config(memory, leave->image, &leave->config);
	/* The call that was to take it out has come to its end by itself meanwhile. */
	if (error_is(error, ERROR_FAULT)) {
		error_destroy(error);
		return NULL;
	}
	if (!error)
		error = leave_run(leave);
	*remaining += leave->remaining;
	return error;
}

static struct error *remove_all(struct call_session *session, uint64_t timeout_us,
				uint64_t *remaining_ret, bool *removed_ret)
{
	struct trace_leftover_vec found = { 0 };
	cleanup(close) int memory = -1;
	uint64_t remaining = 0;
	struct error *error = trace_find_leftovers(call_target(session), &found);

	if (!error && found.size)
		error = agent_open_memory(call_target(session), &memory);
	for (size_t i = 0; !error && i < found.size; i++)
		error = remove_one(session, memory, &found.data[i], timeout_us, &remaining);
	if (!error) {
		*remaining_ret = remaining;
		*removed_ret = found.size > 0;
	}
	trace_leftover_vec_deinit(&found);
	return error;
}

struct error *trace_remove_leftovers(struct target *target, uint64_t timeout_us,
				     uint64_t *remaining_ret)
{
	cleanup(call) struct call_session *session = NULL;
	struct error *error = call_open(target, timeout_us, &session);
	bool removed;

	return error ? error : remove_all(session, timeout_us, remaining_ret, &removed);
}

struct error *leftovers_clear(struct call_session *session, uint64_t timeout_us, bool *removed_ret)
{
	uint64_t remaining = 0;
	struct error *error = remove_all(session, timeout_us, &remaining, removed_ret);

	if (!error && remaining)
		error = error_create(
			ERROR_BUSY, "the agent of a memprobe that was killed is still in use in %d",
			(int)call_target(session)->pid);
	return error;
}

struct error *recorder_keep_agents_out(struct target *target, uint64_t timeout_us,
				       bool *removed_ret, struct call_session **ret)
{
	struct error *error = call_open(target, timeout_us, ret);

	if (error_is(error, ERROR_PERMISSION) || error_is(error, ERROR_UNSUPPORTED)) {
		error_destroy(error);
		return NULL;
	}
	return error ? error : leftovers_clear(*ret, timeout_us, removed_ret);
}
