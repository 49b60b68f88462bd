/*
 * memory.c - what of the target's memory can be read.
 *
 * The agent asks no kernel: a seccomp filter may come into force at any time, and would kill for
 * the question. The tracer tells, by the maps of a moment ago. A thread's own stack does not go
 * away while the thread lives; anything else that is told may have gone since, or have guards in it
 * that are no mappings of their own (MADV_GUARD_INSTALL; glibc 2.42 makes such below each stack).
 */
#include "agent/agent.h"

#define PAGE 4096ull

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

/* What glibc notes of a thread: stackblock, stackblock_size, guardsize. */
struct noted_stack {
	uint64_t block, size, guard;
};

/* Whether that has @key at its upper end, as a stack of glibc has. */
static bool is_stack_of(const struct noted_stack *stack, uint64_t key)
{
	uint64_t above = stack->block + stack->size - key;

	return stack->block && stack->block < key && stack->size > key - stack->block &&
	       above <= 2 * PAGE && stack->guard < key - stack->block && !(stack->guard % PAGE);
}

static bool stack_at(uint64_t key, uint64_t offset, struct noted_stack *ret)
{
	const volatile uint64_t *words = (const volatile uint64_t *)(key + offset);

	*ret = (struct noted_stack){ words[0], words[1], words[2] };
	return is_stack_of(ret, key);
}

void memory_learn_stack(uint64_t key)
{
	struct noted_stack stack;

	if (agent_ctl.stack_offset || key % 8)
		return;
	/* Nobody but glibc says how large what it notes is: what is on the page can be read. */
	for (uint64_t offset = 8; key % PAGE + offset + sizeof(stack) <= PAGE; offset += 8) {
		/* Other words may look so, too: a small number, and a pointer right above the
		 * stack. One that begins with a page is a stack: who has another will do. */
		if (!stack_at(key, offset, &stack) || stack.block % PAGE)
			continue;
		__atomic_store_n(&agent_ctl.stack_offset, (uint32_t)offset, __ATOMIC_RELAXED);
		return;
	}
}

/* The own stack of the thread of @key, which lies in @range. */
static bool own_stack(uint64_t key, const struct agent_range *range, struct noted_stack *ret)
{
	uint64_t offset = agent_ctl.stack_offset, last = key + offset + sizeof(*ret) - 1;

	/* No glibc, or its first thread: as far as the memory goes on. */
	if (!offset) {
		*ret = (struct noted_stack){ .block = range->start & -PAGE };
		return true;
	}
	return (last < range->end || last / PAGE == key / PAGE) && stack_at(key, offset, ret);
}

bool memory_find(uint64_t key, uint64_t address, struct memory_range *ret)
{
	struct noted_stack own;
	struct agent_range range;

	if (!find(address, &range))
		return false;
	ret->is_own = range.start & AGENT_RANGE_STACK;
	ret->start = range.start & -PAGE;
	ret->end = range.end;
	/* A libc puts what it knows of a thread at the upper end of its stack. */
	if (key <= address || key >= range.end || !own_stack(key, &range, &own))
		return true;
	if (address < own.block) {
		ret->end = own.block;
		return true;
	}
	if (address - own.block < own.guard)
		return false;
	ret->is_own = true;
	if (ret->start < own.block + own.guard)
		ret->start = own.block + own.guard;
	ret->end = key;
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
