/* How much memory a recording may take, so that no memory cgroup of the target or of memprobe fills
 * up: the kernel would kill one of the two for it. */
#include "memory_guard.h"
#include "session.h"

#include "memprobe/log.h"
#include "memprobe/num.h"

/* What the tables need to begin with. */
#define MEMORY_MIN (8u << 20)

#define UPROBE_PLENTY (UINT64_C(1) << 30)

struct error *memory_limit(const struct trace_session *session, uint64_t *ret)
{
	uint64_t room = memory_guard_room(session->target);
	char size[SIZE_TEXT_MAX];

	*ret = session->options.memory_max ? min_u64(session->options.memory_max, room / 3)
					   : min_u64(room / 4, MEMORY_GUARD_MAX);
	if (*ret >= MEMORY_MIN && room >= 2 * MEMORY_GUARD_ROOM)
		return NULL;
	return error_hint(
		error_create(ERROR_FAILED,
			     "cannot record %d: its memory cgroups, and memprobe's, leave "
			     "%s, of which its tables may take %s",
			     (int)session->target->pid, format_size(room, size),
			     format_size(*ret, (char[SIZE_TEXT_MAX]){ 0 })),
		"at least %u MiB must be left, and --max-memory be %u MiB",
		2 * MEMORY_GUARD_ROOM >> 20, MEMORY_MIN >> 20);
}

bool memory_is_short(struct trace_session *session)
{
	struct tables *tables = &session->tables;
	uint64_t room = memory_guard_room(session->target),
		 least = MEMORY_GUARD_ROOM + tables->allocated / 2;
	char size[SIZE_TEXT_MAX];

	/* What uprobes tell of is kept in maps, which double. */
	if (!session->room_begin) {
		session->room_begin = room;
		memory_guard_begin(&session->guard, session->target, session->options.memory_max);
	}
	if (session->uprobe && memory_guard_is_over(&session->guard))
		return true;
	if (session->uprobe && session->room_begin < UPROBE_PLENTY)
		least = max_u64(least, session->room_begin / 4 * 3);
	if (room >= least) {
		/* Others want memory before the next look, too. */
		tables->allocated_max =
			min_u64(tables->limit, tables->allocated + (room - least) / 2);
		return false;
	}
	log_warn("the recording of %d ends: its memory cgroups, or memprobe's, leave only %s",
		 (int)session->target->pid, format_size(room, size));
	return true;
}
