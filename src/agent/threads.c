/*
 * threads.c - what is kept of each thread: its slot, its counters, what it was interrupted in.
 */
#include "agent/agent.h"

/* Frames this far out are not looked for on the same stack. */
#define STACK_REACH (1u << 20)

#define CLOCK_MONOTONIC_COARSE 6

struct kernel_time {
	int64_t seconds, nanoseconds;
};

#define MINE(key) ((key) | 1) /* a slot being set up: no thread pointer is odd */

static uint64_t thread_pointer(void)
{
	uint64_t pointer;

	__asm__("mov %%fs:0, %0" : "=r"(pointer));
	return pointer;
}

static uint64_t time_stamp(void)
{
	uint32_t low, high;

	__asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
	return (uint64_t)high << 32 | low;
}

/* In the unit of agent_ctl.deadline. No instruction and no call that a target may be killed for. */
static uint64_t time_now(void)
{
	int (*get)(int clock, struct kernel_time *ret) =
		(int (*)(int, struct kernel_time *))agent_ctl.clock;
	struct kernel_time now;

	if (!get)
		return time_stamp();
	get(CLOCK_MONOTONIC_COARSE, &now);
	return (uint64_t)now.seconds * 1000000000 + (uint64_t)now.nanoseconds;
}

/* As the libc has noted it. */
static uint32_t thread_id(uint64_t key)
{
	uint32_t offset = agent_ctl.tid_offset;

	return offset ? *(const volatile uint32_t *)(key + offset) : AGENT_TID_UNKNOWN;
}

static void set_up(struct agent_thread *thread, uint64_t key)
{
	thread->calls = 0;
	thread->tid = 0;
	thread->doubt = 0;
	thread->last_use = agent_ctl.now;
	thread->inside_sp = 0;
	for (int i = 0; i < AGENT_NESTED; i++)
		thread->recording[i] = 0;
	thread->random = (agent_ctl.seed ^ key) * 0x9e3779b97f4a7c15 | 1;
	thread->stack_low = thread->stack_high = 0;
	thread->stack_time = 0;
	memory_learn_stack(key);
	thread->tid = thread_id(key);
	thread->epoch = agent_ctl.epoch;
	thread->countdown = agent_ctl.active == AGENT_SAMPLING ? sample_draw(thread) : 0;
	__atomic_store_n(&thread->key, key, __ATOMIC_RELEASE);
}

/* A handler that comes in between does not find the slot and takes another one: no harm. */
static struct agent_thread *thread_make(uint64_t key)
{
	struct agent_thread *thread = &agent_ctl.threads[agent_thread_index(key)];

	for (int i = 0; i < AGENT_THREAD_PROBES; i++, thread++) {
		uint64_t found = __atomic_load_n(&thread->key, __ATOMIC_RELAXED);

		if (found != AGENT_KEY_EMPTY && found != AGENT_KEY_RECYCLED)
			continue;
		if (__atomic_compare_exchange_n(&thread->key, &found, MINE(key), false,
						__ATOMIC_ACQ_REL, __ATOMIC_RELAXED)) {
			set_up(thread, key);
			return thread;
		}
	}
	return NULL;
}

struct agent_thread *thread_find(void)
{
	uint64_t key = thread_pointer();
	struct agent_thread *thread = &agent_ctl.threads[agent_thread_index(key)];

	for (int i = 0; i < AGENT_THREAD_PROBES; i++, thread++) {
		uint64_t found = __atomic_load_n(&thread->key, __ATOMIC_RELAXED);

		if (found == key) {
			if (__builtin_expect(thread->doubt, 0)) {
				thread->tid = thread_id(key);
				thread->last_use = agent_ctl.now;
				thread->doubt = 0;
			}
			return thread;
		}
		if (found == AGENT_KEY_EMPTY)
			break;
	}
	return agent_is_on() ? thread_make(key) : NULL;
}

bool thread_lease(struct agent_thread *thread)
{
	if (time_now() > *(volatile uint64_t *)&agent_ctl.deadline) {
		__atomic_store_n(&agent_ctl.active, AGENT_INACTIVE, __ATOMIC_RELAXED);
		return false;
	}
	if (thread && thread->calls <= 0) {
		int32_t grant = agent_ctl.active == AGENT_SAMPLING ? 256 : 16;

		thread->last_use = agent_ctl.now;
		thread_count(thread, AGENT_COUNT_CALLS, (uint64_t)grant);
		__asm__ volatile("addl %1, %0" : "+m"(thread->calls) : "r"(grant));
	}
	return true;
}

void thread_count(struct agent_thread *thread, enum agent_counter counter, uint64_t value)
{
	struct agent_counters *counters = (struct agent_counters *)agent_config.counters;

	if (!agent_is_on())
		return;
	if (!thread) {
		__atomic_fetch_add(&counters[0].count[counter], value, __ATOMIC_RELAXED);
		return;
	}
	/* One instruction: a handler can come before or after it. */
	__asm__ volatile("addq %1, %0"
			 : "+m"(counters[thread - agent_ctl.threads + 1].count[counter])
			 : "r"(value));
}

/* Whether what lies at @frame, where one of our frames was, can still be read. */
static bool frame_is_readable(const struct agent_thread *thread, uint64_t frame, uint64_t sp)
{
	uint64_t last = frame + sizeof(struct agent_call) - 1;
	struct memory_range range;

	if (last >> 12 == sp >> 12)
		return true;
	if (thread->stack_time == agent_ctl.now && sp >= thread->stack_low &&
	    sp < thread->stack_high && frame >= sp && last < thread->stack_high)
		return true;
	return memory_find(thread->key, frame, &range) && range.is_own && last < range.end;
}

static bool is_own(const struct agent_thread *thread, uint64_t address)
{
	struct memory_range range;

	return memory_find(thread->key, address, &range) && range.is_own;
}

bool frame_is_alive(struct agent_thread *thread, uint64_t frame, const struct agent_call *call)
{
	uint64_t sp = (uint64_t)call;
	const struct agent_call *other = (const struct agent_call *)frame;
	bool sp_is_own, frame_is_own;

	if (frame == sp)
		return false; /* we are where it was */
	/* A frame that was left may be on a stack that is gone. Who is back on the thread's own
	 * stack has left all others. */
	if (!frame_is_readable(thread, frame, sp))
		return !is_own(thread, sp);
	if (*(const volatile uint64_t *)&other->cookie != (frame ^ AGENT_COOKIE))
		return false;
	if (frame > sp && frame - sp < STACK_REACH)
		return true;
	/* A handler's frames may lie anywhere; what it interrupted is still there. */
	sp_is_own = is_own(thread, sp);
	frame_is_own = is_own(thread, frame);
	if (sp_is_own != frame_is_own)
		return frame_is_own;
	return frame > sp;
}

int scratch_take(struct agent_thread *thread, const struct agent_call *call)
{
	for (int i = 0; i < AGENT_NESTED; i++) {
		uint64_t frame = *(volatile uint64_t *)&thread->recording[i];

		if (frame && frame_is_alive(thread, frame, call))
			continue;
		*(volatile uint64_t *)&thread->recording[i] = (uint64_t)call;
		return i;
	}
	thread_count(thread, AGENT_COUNT_LOST, 1);
	thread_count(thread, AGENT_COUNT_LOST_BUSY, 1);
	return -1;
}

void scratch_give_back(struct agent_thread *thread, int level)
{
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
	*(volatile uint64_t *)&thread->recording[level] = 0;
}
