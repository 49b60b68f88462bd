/*
 * memory.c - what of the target's memory can be read.
 *
 * The agent asks no kernel: a seccomp filter may come into force at any time, and would kill for
 * the question. The tracer tells, by the maps of a moment ago. A thread's own stack does not go
 * away while the thread lives; anything else that is told may have gone since.
 */
#include "agent/agent.h"

/* The last range that begins at or below @address; false: there is none. */
static bool look_up(const struct agent_range *table, uint64_t count, uint64_t address,
		    struct agent_range *ret)
{
	uint64_t low = 0, high = count;

	while (low < high) {
		uint64_t middle = (low + high) / 2;

		if (table[middle].start <= (address | AGENT_RANGE_STACK))
			low = middle + 1;
		else
			high = middle;
	}
	if (!low)
		return false;
	*ret = table[low - 1];
	return true;
}

static bool find(uint64_t address, struct agent_range *ret)
{
	for (int attempt = 0; attempt < 2; attempt++) {
		uint64_t ranges = __atomic_load_n(&agent_ctl.ranges, __ATOMIC_ACQUIRE);
		uint64_t count = ranges & ((1u << AGENT_RANGES_BITS) - 1);
		uint64_t table = ranges >> AGENT_RANGES_BITS & 1;
		bool found;

		if (count > AGENT_RANGES)
			return false;
		found = look_up(agent_ctl.range_tables[table], count, address, ret);
		__atomic_thread_fence(__ATOMIC_ACQUIRE);
		if (__atomic_load_n(&agent_ctl.ranges, __ATOMIC_RELAXED) == ranges)
			return found && address < ret->end;
	}
	return false;
}

bool memory_find(uint64_t key, uint64_t address, struct memory_range *ret)
{
	struct agent_range range;

	if (!find(address, &range))
		return false;
	ret->is_own = range.start & AGENT_RANGE_STACK;
	ret->start = range.start & ~(uint64_t)AGENT_RANGE_STACK;
	ret->end = range.end;
	/* A libc puts what it knows of a thread at the upper end of its stack. */
	if (key > address && key < range.end) {
		ret->is_own = true;
		ret->end = key;
	}
	return true;
}

static uint64_t *seen_page(uint64_t address)
{
	return &agent_ctl.seen_pages[(address >> 12) % AGENT_SEEN_PAGES];
}

void memory_see(uint64_t address)
{
	__atomic_store_n(seen_page(address), address >> 12, __ATOMIC_RELAXED);
}

bool memory_is_readable(uint64_t address)
{
	struct agent_range range;
	uint64_t page = address >> 12;

	return page && (__atomic_load_n(seen_page(address), __ATOMIC_RELAXED) == page ||
			find(address, &range));
}
