/*
 * memory_guard.h - ends a recording whose events are kept in this process before that takes too
 * much memory, or too little is left in a memory cgroup of the target or of this process: the
 * kernel would kill one of the two for it.
 */
#ifndef RECORD_MEMORY_GUARD_H
#define RECORD_MEMORY_GUARD_H

#include "memprobe/target.h"

/* What a recording may take unless it is said. */
#define MEMORY_GUARD_MAX (UINT64_C(1) << 30)

/* With less than this left a recording ends: what it has is yet to be read and written. */
#define MEMORY_GUARD_ROOM (12u << 20)

struct memory_guard {
	const struct target *target;
	uint64_t limit, own,
		room;	/* bytes; own: of this process at the beginning; room: left then */
	uint64_t least; /* that is to be left */
	uint64_t looked_us;
	bool has_ended; /* a recording, by memory_guard_poll() */
};

/* memory_room() of @target and of this process. */
uint64_t memory_guard_room(const struct target *target);

/* @most: bytes; 0: a quarter of the room, at most MEMORY_GUARD_MAX. */
void memory_guard_begin(struct memory_guard *guard, const struct target *target, uint64_t most);

/* To be asked at every poll. True: the recording has to end; said. */
bool memory_guard_is_over(struct memory_guard *guard);

/* The same, for who polls what @alive_ret tells of: false then, and guard->has_ended. */
void memory_guard_poll(struct memory_guard *guard, bool *alive_ret);

#endif
