/* Takes an agent out of a target: this memprobe's, or one that a killed memprobe left. */
#include "agent_recorder.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "memprobe/clock.h"
#include "memprobe/log.h"
#include "memprobe/num.h"

#define AREAS (sizeof(((struct agent_config *)0)->areas) / sizeof(struct agent_area))

struct error *leave_read_config(int memory, uint64_t image, struct agent_config *ret)
{
	if (pread(memory, ret, sizeof(*ret), (off_t)(image + AGENT_CONFIG_OFFSET)) !=
	    (ssize_t)sizeof(*ret))
		return error_fault(image);
	return NULL;
}

/*
 * Everything that is mapped for it: the image and CTL, then the hooks, unless the script that was
 * to map them has not come to its end.
 */
static size_t list_areas(const struct leave *leave, struct agent_area areas[AREAS + 1])
{
	uint64_t undo = 0;
	size_t count = 0;

	areas[count++] =
		(struct agent_area){ leave->image, AGENT_IMAGE_SPACE + sizeof(struct agent_ctl) };
	for (size_t i = 0; i < AREAS; i++)
		if (leave->config.areas[i].size)
			areas[count++] = leave->config.areas[i];
	if (pread(leave->memory, &undo, sizeof(undo),
		  (off_t)(leave->image + AGENT_IMAGE_SPACE + INSTALL_UNDO_NEAR)) ==
		    (ssize_t)sizeof(undo) &&
	    undo && count > 1)
		areas[1].size = 0;
	return count;
}

static bool is_gone(const struct leave *leave)
{
	char magic[16];

	return pread(leave->memory, magic, sizeof(magic), (off_t)leave->image) !=
	       (ssize_t)sizeof(magic);
}

static void deactivate(const struct leave *leave)
{
	uint32_t inactive = AGENT_INACTIVE;

	if (pwrite(leave->memory, &inactive, sizeof(inactive),
		   (off_t)(leave->image + AGENT_IMAGE_SPACE +
			   offsetof(struct agent_ctl, active))) != (ssize_t)sizeof(inactive))
		log_debug("the agent at 0x%llx cannot be written: %s",
			  (unsigned long long)leave->image, strerror(errno));
}

/* Where nobody may be when the agent goes: in its code and in the hooks. A pointer to a table is no
 * reason. */
static struct error *guard(struct leave *leave, struct hold *hold, struct text_range ranges[2])
{
	struct agent_area areas[AREAS + 1];
	uint32_t return_point = 0;
	size_t count = list_areas(leave, areas);

	if (pread(leave->memory, &return_point, sizeof(return_point),
		  (off_t)(leave->image + offsetof(struct agent_header, return_point))) !=
	    (ssize_t)sizeof(return_point))
		return error_fault(leave->image);
	ranges[0] = (struct text_range){ leave->image, leave->image + AGENT_IMAGE_SPACE };
	if (count > 1)
		ranges[1] = (struct text_range){ areas[1].start, areas[1].start + areas[1].size };
	hold->may_cut = true;
	hold->ranges = ranges;
	hold->range_count = count > 1 ? 2 : 1;
	hold->ctl = leave->image + AGENT_IMAGE_SPACE;
	hold->return_point = leave->image + return_point;
	return NULL;
}

static struct error *nothing(void *data)
{
	return NULL;
}

static struct error *run_hold(struct leave *leave, struct hold *hold)
{
	struct error *error = hold_run(hold);

	leave->stopped_us = max_u64(leave->stopped_us, hold->stopped_us);
	leave->stops += hold->stops;
	hold->stops = 0;
	return error;
}

/*
 * The functions as they were; nobody can be in the middle of the one jump that goes. Then nobody
 * can come in any more, and those who are in come out. Mostly nobody is in at the first stop.
 */
static struct error *restore(struct leave *leave, struct hold *hold)
{
	struct hooks_change change = {
		.memory = leave->memory,
		.image = leave->image,
		.config = &leave->config,
	};
	struct text_range ranges[2];
	struct error *error = guard(leave, hold, ranges);
	struct hold restoring;
	bool empty;

	if (error)
		return error;
	hold->data = &change;
	hold->work = hooks_clear;
	hold->once = true;
	error = run_hold(leave, hold);
	hold->once = false;
	empty = hold->done;
	if (!empty && error_is(error, ERROR_BUSY)) {
		error_destroy(error);
		restoring = *hold;
		restoring.range_count = 0;
		restoring.ctl = 0;
		error = run_hold(leave, &restoring);
		hold->unwind = restoring.unwind;
		hold->owns_unwind = restoring.owns_unwind;
	}
	if (!error && change.foreign)
		return error_create(ERROR_BUSY, "another tool has written over %u of the hooks",
				    change.foreign);
	hold->work = nothing;
	return error || empty ? error : run_hold(leave, hold);
}

/* Gives back what a predecessor's tables have in memory, if we may open them: unmapping them then
 * holds a thread for less long. */
static void punch_tables(struct leave *leave)
{
	struct mapping_vec maps = { 0 };
	struct error *error = target_read_maps(leave->target, MAPS_PLAIN, &maps);

	vec_for_each (mapping, &maps) {
		cleanup(close) int fd = -1;
		struct stat status;
		char path[64];

		if (error || strncmp(mapping->path, "/memfd:memprobe", 15) != 0 ||
		    mapping->start < leave->image ||
		    mapping->start >= leave->config.areas[1].start + leave->config.areas[1].size)
			continue;
		snprintf(path, sizeof(path), "map_files/%llx-%llx",
			 (unsigned long long)mapping->start, (unsigned long long)mapping->end);
		fd = openat(leave->target->process->dirfd, path, O_RDWR | O_CLOEXEC);
		if (fd >= 0 && !fstat(fd, &status) && status.st_size > 0 &&
		    fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, status.st_size))
			log_debug("the predecessor's tables stay: %s", strerror(errno));
	}
	error_destroy(error);
	mappings_deinit(&maps);
}

static struct error *unmap(struct leave *leave)
{
	struct target *target = leave->target;
	struct agent_area areas[AREAS + 1];
	size_t count = list_areas(leave, areas);
	struct call_script script;
	struct call_result result;
	struct error *error;

	call_begin(&script, target->arch);
	/* The image, by which a later memprobe would find the rest, last. */
	for (size_t i = count; i-- > 0;)
		if (areas[i].size)
			call_add_syscall(&script, target->arch->syscalls.munmap, 2,
					 (struct call_arg[]){ CALL_ARG(areas[i].start),
							      CALL_ARG(areas[i].size) },
					 CALL_ANY, 0);
	call_add_marker(&script);
	error = call_run(leave->session, &script, NULL, &result);
	log_debug("unmapping the agent held a thread for %llu us",
		  (unsigned long long)call_stopped_us(leave->session));
	leave->stopped_us = max_u64(leave->stopped_us, call_stopped_us(leave->session));
	return error;
}

/* Hostile or damaged: what it lists is not ours to take away. */
static bool is_sane(const struct leave *leave)
{
	for (size_t i = 0; i < AREAS; i++) {
		const struct agent_area *area = &leave->config.areas[i];

		if (area->start % PAGE_SIZE || area->size % PAGE_SIZE ||
		    area->start + area->size < area->start)
			return false;
	}
	for (size_t i = 0; i < AGENT_SLOTS; i++)
		if (leave->config.slots[i].saved_size > sizeof(leave->config.slots[i].saved))
			return false;
	return true;
}

static void tell_remaining(struct leave *leave, const struct error *error)
{
	struct agent_area areas[AREAS + 1];
	size_t count = list_areas(leave, areas);

	/* Of the tables only the reservation is left. */
	for (size_t i = 0; i < count && i < 2; i++)
		leave->remaining += areas[i].size;
	snprintf(leave->reason, sizeof(leave->reason), "%s", error->message);
}

/* Whether a hook has ever led into it: else nobody can be there, and nobody is to be stopped. */
static bool was_in_use(const struct leave *leave)
{
	for (size_t i = 0; i < AGENT_SLOTS; i++)
		if (leave->config.slots[i].patched)
			return true;
	return false;
}

static struct error *take_out(struct leave *leave)
{
	struct hold hold = {
		.target = leave->target,
		.unwind = leave->unwind,
		.deadline = clock_us() + leave->timeout_us,
	};
	struct error *error = was_in_use(leave) ? restore(leave, &hold) : NULL;

	log_debug("taking the hooks out held the threads for %llu us, in %u stops",
		  (unsigned long long)leave->stopped_us, leave->stops);
	if (!error && leave->tables)
		tables_take(leave->tables);
	else if (!error)
		punch_tables(leave);
	if (!error)
		error = unmap(leave);
	hold_deinit(&hold);
	return error;
}

struct error *leave_run(struct leave *leave)
{
	cleanup(call) struct call_session *own = NULL;
	struct error *error = NULL;

	if (is_gone(leave))
		return NULL;
	if (!is_sane(leave))
		return error_create(ERROR_FAILED, "the agent at 0x%llx is damaged",
				    (unsigned long long)leave->image);
	deactivate(leave);
	if (!leave->session) {
		error = call_open(leave->target, leave->timeout_us, &own);
		leave->session = own;
	}
	if (!error)
		error = take_out(leave);
	if (!error || is_gone(leave)) {
		error_destroy(error);
		return NULL;
	}
	if (error->code == ERROR_BUSY) {
		tell_remaining(leave, error);
		error_destroy(error);
		return NULL;
	}
	return error;
}
