/* How much memory a recording may take, so that no memory cgroup of the target or of memprobe fills
 * up: the kernel would kill one of the two for it. */
#include "record/memory_guard.h"
#include "agent_recorder.h"

#include "memprobe/log.h"
#include "memprobe/num.h"

/* What the tables need to begin with. */
#define MEMORY_MIN (8u << 20)

struct error *memory_limit(const struct agent_recorder *agent, uint64_t *ret)
{
	uint64_t room = memory_guard_room(agent->target);
	char size[SIZE_TEXT_MAX];

	*ret = agent->options->memory_max ? min_u64(agent->options->memory_max, room / 3)
					  : min_u64(room / 4, MEMORY_GUARD_MAX);
	if (*ret >= MEMORY_MIN && room >= 2 * MEMORY_GUARD_ROOM)
		return NULL;
	return error_hint(
		error_create(ERROR_FAILED,
			     "cannot record %d: its memory cgroups, and memprobe's, leave "
			     "%s, of which its tables may take %s",
			     (int)agent->target->pid, format_size(room, size),
			     format_size(*ret, (char[SIZE_TEXT_MAX]){ 0 })),
		"at least %u MiB must be left, and --max-memory be %u MiB",
		2 * MEMORY_GUARD_ROOM >> 20, MEMORY_MIN >> 20);
}

bool memory_is_short(struct agent_recorder *agent)
{
	struct tables *tables = &agent->tables;
	uint64_t room = memory_guard_room(agent->target),
		 least = MEMORY_GUARD_ROOM + tables->allocated / 2;
	char size[SIZE_TEXT_MAX];

	if (room >= least) {
		/* Others want memory before the next look, too. */
		tables->allocated_max =
			min_u64(tables->limit, tables->allocated + (room - least) / 2);
		return false;
	}
	log_warn("the recording of %d ends: its memory cgroups, or memprobe's, leave only %s",
		 (int)agent->target->pid, format_size(room, size));
	return true;
}
