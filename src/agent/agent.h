/*
 * agent.h - what the parts of the agent know of each other.
 *
 * All of this runs inside the target, at any place of it: no libc, no writable data but CTL and
 * SHM, no lock, little stack (handlers run on small alternate stacks), no vector registers. Any of
 * it may be interrupted by a signal whose handler allocates, forks, or never returns.
 */
#ifndef AGENT_AGENT_H
#define AGENT_AGENT_H

#include "agent/abi.h"

/* What the entry found before it gave up its fast path. */
#define AGENT_WHY_LOOK	  0 /* everything is still to be looked at */
#define AGENT_WHY_SAMPLED 1 /* the size was taken off the countdown, which has run out */

/* What agent_before() and agent_after() want the entry to do. */
#define AGENT_DO_PASS	0 /* jump to the original, with no frame */
#define AGENT_DO_CALL	1 /* call `target`, then agent_after() */
#define AGENT_DO_RETURN 0
#define AGENT_DO_TAIL	1 /* jump to the original after all */

/* Offsets in struct agent_call. */
#define AGENT_CALL_TARGET 0
#define AGENT_CALL_SECOND 8
#define AGENT_CALL_RBX	  104

#ifdef __ASSEMBLER__
/* clang-format off */
/* From the thread pointer in rax to r10: where in agent_ctl.threads agent_thread_index() is. */
.macro THREAD_OFFSET
	imul	$AGENT_THREAD_FACTOR, %rax, %r10
	shr	$25, %r10
	and	$(((1 << AGENT_THREAD_BITS) - 1) << 7), %r10d
.endm
/* clang-format on */
#else
#include <stdbool.h>

#pragma GCC visibility push(hidden)

extern const struct agent_header agent_header;
extern const volatile struct agent_config agent_config;
extern struct agent_ctl agent_ctl;
extern const char agent_return_point[];

#define AGENT_COOKIE 0x6d656d70726f6265ull

/* The frame of a hooked call, made by the entry. */
struct agent_call {
	uint64_t target;
	uint64_t second; /* rdx as the original returned it */
	struct agent_thread *thread;
	uint64_t size;
	bool record;   /* the new block is to be entered */
	bool removed;  /* realloc: the old one was taken out, and is `old` */
	uint16_t rate; /* sampling: index of the rate that it was sampled at */
	struct agent_block old;
	uint64_t inside_before;
	uint64_t cookie;	  /* tells a frame from what is written over it once it is left */
	struct agent_owner owner; /* pools: of the new block */
	struct agent_owner old_owner; /* ... and of the old one */

	/* Pushed by the entry. */
	uint64_t rbx;
	const volatile struct agent_slot *slot;
	uint64_t rax;
	uint64_t args[6];
	uint64_t caller_rbp;
	uint64_t return_address;
};

AGENT_ASSERT(offsetof(struct agent_call, target) == AGENT_CALL_TARGET);
AGENT_ASSERT(offsetof(struct agent_call, second) == AGENT_CALL_SECOND);
AGENT_ASSERT(offsetof(struct agent_call, rbx) == AGENT_CALL_RBX);
AGENT_ASSERT(AGENT_CALL_RBX % 16 == 8);

unsigned agent_before(struct agent_call *call, unsigned why);
unsigned agent_after(struct agent_call *call);

/* ---- threads.c ---- */

/* The calling thread's slot, made if it has none; NULL: there is no room. */
struct agent_thread *thread_find(void);

/* False: the lease has run out, and the agent is inactive now. */
bool thread_lease(struct agent_thread *thread);

/* Adds to a counter of @thread; NULL: of all who have no slot. */
void thread_count(struct agent_thread *thread, enum agent_counter counter, uint64_t value);

/* Whether the frame that was at @frame is still to be returned to, for who is at @call. */
bool frame_is_alive(struct agent_thread *thread, uint64_t frame, const struct agent_call *call);

/* A scratch level for @call, to be given back; -1: none is free. */
int scratch_take(struct agent_thread *thread, const struct agent_call *call);
void scratch_give_back(struct agent_thread *thread, int level);

/* ---- memory.c: what can be read, without asking the kernel ---- */

struct memory_range {
	uint64_t start, end; /* [start, end) */
	/* Of the thread's own stack: what lies between its frames and `end` stays for as long as
	 * the thread lives. */
	bool is_own;
};

/* The known range with @address, for the thread with the thread pointer @key. */
bool memory_find(uint64_t key, uint64_t address, struct memory_range *ret);

/* Learns where glibc notes a thread's stack, if the thread with this pointer shows it. */
void memory_learn_stack(uint64_t key);

/* Pools: the program has got a block at @address. */
void memory_see(uint64_t address);

/* Whether the aligned word at @address is known to be readable. */
bool memory_is_readable(uint64_t address);

/* ---- sample.c ---- */

/* Bytes up to the next sample point, at least 1. Sets the thread's rate. */
int64_t sample_draw(struct agent_thread *thread);

/* A saturating counter: what has been full once, or belongs to a child's wiped copy, stays. */
void counter_add(uint8_t *counter);
void counter_remove(uint8_t *counter);

/* Of the sieve, too. */
void filter_add(uint64_t address);
void filter_remove(uint64_t address);

static inline bool filter_has(uint64_t address)
{
	return agent_ctl.filter[agent_filter_index(address)] != 0;
}

/* ---- stacks.c ---- */

#define STACK_NONE 0xffffffffu

/* The id of the stack of @call's caller; STACK_NONE: no room, counted. */
uint32_t stack_record(struct agent_call *call);

/* ---- live.c ---- */

/* Enters a block. False: no room. Without pools @owner is not looked at. */
bool live_insert(struct agent_thread *thread, uint64_t address, const struct agent_block *block,
		 const struct agent_owner *owner);

/* Brings the bucket of a block into the cache. */
void live_expect(uint64_t address);

/* Only what is needed to take it out. */
void live_expect_key(uint64_t address);

/* Takes it out. False: it was not there. @ret and @owner_ret may be NULL; without pools the latter
 * is left as it is. */
bool live_remove(uint64_t address, struct agent_block *ret, struct agent_owner *owner_ret);

/* Changes the size of a block that is there. */
void live_resize(uint64_t address, uint64_t size);

/* ---- pools.c ---- */

static inline bool pools_are_there(void)
{
	return agent_config.pools.contexts != 0;
}

/* The context that the call is about, as its slot tells; 0: none. */
uint64_t pool_context(const struct agent_call *call);

/* The same, now that the call has given out @block. */
uint64_t pool_context_of(const struct agent_call *call, uint64_t block);

/* The size of a block whose slot says that it is not among the arguments; 0: not to be found. */
uint64_t pool_size_of(const struct agent_call *call, uint64_t block);

/* Gives a block of @context, which is to be entered now, its number. False: no room. */
bool pool_own(uint64_t context, struct agent_owner *ret);

/* AGENT_KIND_MOVE. */
void pool_move(const struct agent_call *call);

/* AGENT_KIND_FREE_CHAIN. */
void pool_free_chain(const struct agent_call *call,
		     void (*gone)(struct agent_thread *thread, uint64_t address));

/* AGENT_KIND_RESET. @gone is told of blocks that are contexts. */
void pool_reset(const struct agent_call *call,
		void (*gone)(struct agent_thread *thread, uint64_t address));

/* Whether to write to SHM: it is the parent's as soon as this is a forked child. */
static inline bool agent_is_on(void)
{
	return __atomic_load_n(&agent_ctl.active, __ATOMIC_RELAXED) != AGENT_INACTIVE;
}

#pragma GCC visibility pop
#endif
#endif
