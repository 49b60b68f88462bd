/*
 * stacks.c - walks the caller's stack and gives it a number.
 */
#include "agent/agent.h"
#include "agent/unwind_walk.h"

#define PAGE 4096ull

/* A frame on a stack that is not known yet is not larger than that. */
#define FRAME_REACH (1u << 20)

AGENT_ASSERT(AGENT_UNWIND_CACHE == UNWIND_CACHE_SIZE);

/*
 * On a stack that the tracer has not seen yet. Where call frame information leads is memory that
 * the program will read itself when it returns. Only a stack's first function is one to which
 * nobody returns: its return address would stand right behind the stack, at the start of a page.
 */
static bool read_unseen(struct unwind_memory *memory, uint64_t address, uint64_t *ret)
{
	uint64_t end = (address & -PAGE) + PAGE;

	if (memory->guessed || address < memory->low || address - memory->high > FRAME_REACH ||
	    address % PAGE < 8 || address + 8 > end)
		return false;
	memory->high = end;
	__builtin_memcpy(ret, (const void *)address, 8);
	return true;
}

/* The word at @address, which lies outside of what is known. A guess may lead anywhere: it is
 * followed on the thread's own stack only, no part of which can go away. */
static bool read_unknown(struct unwind_memory *memory, uint64_t address, uint64_t *ret)
{
	const struct agent_thread *thread = memory->data;
	struct memory_range range;

	if (address > ~0ull - 2 * PAGE)
		return false;
	if (!memory_find(thread->key, address, &range))
		return read_unseen(memory, address, ret);
	if (address + 8 > range.end || (memory->guessed && !range.is_own))
		return false;
	/* Behind the first function of a stack there may be another one's guard. */
	if (!range.is_own && agent_ctl.guards && (address % PAGE < 8 || address % PAGE > PAGE - 8))
		return false;
	/* A handler's stack may be elsewhere than the one that it interrupted. */
	if (memory->low < range.start || memory->low >= range.end)
		memory->low = address;
	memory->high = range.is_own ? range.end : (address & -PAGE) + PAGE;
	if (memory->high < address + 8)
		memory->high = address + 8;
	__builtin_memcpy(ret, (const void *)address, 8);
	return true;
}

/* What is known of a stack is forgotten with every tick: stacks of coroutines come and go. */
static struct unwind_memory known_memory(const struct agent_thread *thread,
					 const struct agent_call *call)
{
	uint64_t sp = (uint64_t)call;
	struct unwind_memory memory = {
		.low = sp,
		.read = read_unknown,
		.data = (void *)thread,
	};

	if (thread->stack_time == agent_ctl.now && sp >= thread->stack_low &&
	    sp < thread->stack_high) {
		memory.low = thread->stack_low;
		memory.high = thread->stack_high;
	} else {
		memory.high = ((sp + sizeof(*call) - 1) & -PAGE) + PAGE;
	}
	return memory;
}

/* Where there is no table: frame pointers. */
static enum unwind_result walk_frame_pointers(const struct unwind_start *start,
					      struct unwind_memory *memory,
					      struct unwind_frames *frames)
{
	struct unwind_frame frame = { .pc = start->pc, .sp = start->sp, .bp = start->bp };

	for (frames->count = 0; frames->count < frames->max;) {
		enum unwind_result result;

		frames->pcs[frames->count++] = frame.pc;
		result = unwind_step_bp(&frame, memory);
		if (result != UNWIND_FULL)
			return result;
		if (!frame.pc)
			return UNWIND_COMPLETE;
	}
	return UNWIND_FULL;
}

static bool walk(struct agent_call *call, struct unwind_frames *frames)
{
	struct agent_thread *thread = call->thread;
	struct unwind_memory memory = known_memory(thread, call);
	struct unwind_start start = {
		.pc = call->return_address,
		.sp = (uint64_t)(call + 1),
		.bp = call->caller_rbp,
		.bx = call->rbx,
		.is_call = true,
		.has_bx = true,
	};
	const struct unwind_header *table = (const void *)agent_config.unwind;
	enum unwind_result result;

	if (table)
		result = unwind_walk(table, agent_ctl.unwind_cache, &start, &memory, frames);
	else
		result = walk_frame_pointers(&start, &memory, frames);
	if (memory.guessed) {
		memory.low = memory.sure_low;
		memory.high = memory.sure_high;
	}
	if (memory.high != thread->stack_high || memory.low != thread->stack_low) {
		/* In this order: a handler sees an empty range or a right one. */
		*(volatile uint64_t *)&thread->stack_high = 0;
		*(volatile uint64_t *)&thread->stack_low = memory.low;
		*(volatile uint32_t *)&thread->stack_time = agent_ctl.now;
		*(volatile uint64_t *)&thread->stack_high = memory.high;
	} else {
		thread->stack_time = agent_ctl.now;
	}
	return result == UNWIND_COMPLETE;
}

/* A sum, no chain: none of the multiplications waits for another one, nor for the walk's end. */
static uint64_t hash_frames(const struct unwind_frames *frames)
{
	uint64_t sum = frames->count, place = 0x94d049bb133111eb;

	for (unsigned i = 0; i < frames->count; i++, place += 0x9e3779b97f4a7c15) {
		uint64_t part = (frames->pcs[i] ^ place) * 0xbf58476d1ce4e5b9;

		sum += part ^ part >> 32;
	}
	sum *= 0x94d049bb133111eb;
	return (sum ^ sum >> 32) | 1ull << 63; /* never 0 */
}

/* Copies the frames to where they stay; 0: no room. */
static uint64_t keep_frames(const struct unwind_frames *frames, bool complete)
{
	struct agent_shm *shm = (struct agent_shm *)agent_config.shm;
	uint64_t limit = __atomic_load_n(&agent_ctl.frames_limit, __ATOMIC_ACQUIRE);
	uint64_t used = __atomic_load_n(&shm->frames_used, __ATOMIC_RELAXED);
	uint64_t *words;

	do {
		if (!agent_is_on() || used + frames->count > limit)
			return 0;
	} while (!__atomic_compare_exchange_n(&shm->frames_used, &used, used + frames->count, true,
					      __ATOMIC_RELAXED, __ATOMIC_RELAXED));
	words = (uint64_t *)agent_config.frames + used;
	for (unsigned i = 0; i < frames->count; i++)
		*(volatile uint64_t *)&words[i] = frames->pcs[i];
	return used << 16 | (complete ? 0 : AGENT_STACK_TRUNCATED) | frames->count;
}

/*
 * The entry of @hash: found or claimed. NULL: no room. Entries never go away, so the first free one
 * ends the search.
 */
static struct agent_stack *intern(uint64_t hash, uint32_t *id)
{
	unsigned count = __atomic_load_n(&agent_ctl.stack_levels, __ATOMIC_ACQUIRE);
	uint64_t first = 0;

	for (unsigned level = 0; level < count && level < AGENT_LEVELS; level++) {
		struct agent_stack *table =
			(struct agent_stack *)agent_config.stacks[level].address;
		uint64_t mask = agent_config.stacks[level].mask;

		for (uint64_t i = 0; i < AGENT_STACK_PROBES && i <= mask; i++) {
			struct agent_stack *stack = &table[(hash + i) & mask];
			uint64_t found = __atomic_load_n(&stack->hash, __ATOMIC_RELAXED);

			if (!found && agent_is_on())
				__atomic_compare_exchange_n(&stack->hash, &found, hash, false,
							    __ATOMIC_RELAXED, __ATOMIC_RELAXED);
			if (!found || found == hash) {
				*id = (uint32_t)(first + ((hash + i) & mask));
				return stack;
			}
		}
		first += mask + 1;
	}
	return NULL;
}

/*
 * Who claims an entry writes `where`; who finds it without (the claimer is at it, was left by a
 * longjmp, or had no room) does it in its place. Frames that come too late are wasted.
 */
static bool set_where(struct agent_stack *stack, uint64_t where)
{
	uint64_t none = 0;

	if (where)
		__atomic_compare_exchange_n(&stack->where, &none, where, false, __ATOMIC_RELEASE,
					    __ATOMIC_RELAXED);
	return where != 0;
}

static void add_totals(struct agent_stack *stack, uint64_t size)
{
	if (!agent_is_on())
		return;
	__atomic_fetch_add(&stack->allocs, 1, __ATOMIC_RELAXED);
	__atomic_fetch_add(&stack->bytes, size, __ATOMIC_RELAXED);
}

/* With sampling the reader weighs each size, and each rate, by itself. False: no room. */
static bool count_pair(uint64_t hash, uint32_t id, const struct agent_call *call)
{
	uint64_t which = call->size | (uint64_t)call->rate << AGENT_RATE_BITS;
	uint64_t key = ((hash << 9 | hash >> 55) ^ which) * 0xbf58476d1ce4e5b9;
	struct agent_stack *pair;
	uint32_t unused;

	pair = intern((key ^ key >> 32) | 1, &unused);
	if (!pair)
		return false;
	set_where(pair, AGENT_STACK_PAIR | (uint64_t)call->rate << AGENT_STACK_RATE | id);
	add_totals(pair, call->size);
	return true;
}

static uint32_t record(struct agent_call *call, uint64_t *pcs)
{
	unsigned max = agent_ctl.max_frames;
	struct unwind_frames frames = {
		.pcs = pcs,
		.guesses = &agent_ctl.guesses[call->thread - agent_ctl.threads],
	};
	struct agent_stack *stack;
	uint32_t id;
	uint64_t hash;
	bool complete;

	frames.max = max && max < AGENT_FRAMES_MAX ? max : AGENT_FRAMES_MAX;
	complete = walk(call, &frames);
	if (!complete)
		thread_count(call->thread, AGENT_COUNT_TRUNCATED, 1);
	hash = hash_frames(&frames);
	stack = intern(hash, &id);
	if (!stack || (!__atomic_load_n(&stack->where, __ATOMIC_RELAXED) &&
		       !set_where(stack, keep_frames(&frames, complete))))
		return STACK_NONE;
	if (!(agent_ctl.flags & AGENT_FLAG_TOTALS))
		return id;
	if (agent_ctl.active == AGENT_EXACT)
		add_totals(stack, call->size);
	else if (!count_pair(hash, id, call))
		return STACK_NONE;
	return id;
}

uint32_t stack_record(struct agent_call *call)
{
	int level = scratch_take(call->thread, call);
	uint32_t id;

	if (level < 0)
		return STACK_NONE;
	id = record(call, agent_ctl.scratch[call->thread - agent_ctl.threads].frames[level]);
	scratch_give_back(call->thread, level);
	if (id == STACK_NONE) {
		thread_count(call->thread, AGENT_COUNT_LOST, 1);
		thread_count(call->thread, AGENT_COUNT_LOST_STACK, 1);
	}
	return id;
}
