#include "memory_guard.h"

#include <unistd.h>

#include "memprobe/clock.h"
#include "memprobe/log.h"
#include "memprobe/memory_room.h"
#include "memprobe/num.h"

/* A look takes a fraction of a millisecond. */
#define LOOK_US 50000

uint64_t memory_guard_room(const struct target *target)
{
	cleanup(process) struct process *self = NULL;
	uint64_t room = memory_room(target->process);

	error_destroy(process_open(getpid(), &self));
	return self ? min_u64(room, memory_room(self)) : room;
}

static uint64_t own_memory(void)
{
	cleanup(process) struct process *self = NULL;
	struct process_status status = { 0 };

	error_destroy(process_open(getpid(), &self));
	if (self)
		error_destroy(process_read_status(self, 0, &status));
	return status.rss_anon;
}

void memory_guard_begin(struct memory_guard *guard, const struct target *target, uint64_t most)
{
	*guard = (struct memory_guard){ .target = target,
					.limit = most,
					.own = own_memory(),
					.room = memory_guard_room(target),
					.least = MEMORY_GUARD_ROOM };
	if (!most)
		guard->limit = min_u64(guard->room / 4, MEMORY_GUARD_MAX);
}

bool memory_guard_is_over(struct memory_guard *guard)
{
	uint64_t now = clock_us(), own, room;
	char size[SIZE_TEXT_MAX];

	if (now - guard->looked_us < LOOK_US)
		return false;
	guard->looked_us = now;
	own = own_memory();
	if (own > guard->own && own - guard->own > guard->limit) {
		log_warn("the recording of %d ends: it has reached its limit of memory (%s, "
			 "--max-memory)",
			 (int)guard->target->pid, format_size(guard->limit, size));
		return true;
	}
	room = memory_guard_room(guard->target);
	if (room >= guard->least)
		return false;
	log_warn("the recording of %d ends: its memory cgroups, or memprobe's, leave only %s",
		 (int)guard->target->pid, format_size(room, size));
	return true;
}

void memory_guard_poll(struct memory_guard *guard, bool *alive_ret)
{
	if (!*alive_ret || !memory_guard_is_over(guard))
		return;
	guard->has_ended = true;
	*alive_ret = false;
}
