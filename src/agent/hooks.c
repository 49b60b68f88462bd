/*
 * hooks.c - what is done before and after the original of a hooked call.
 *
 * The order makes it exact: a block is taken out before the original frees it, and entered after
 * the original has returned it, so that at every instant an address is entered for one owner only.
 */
#include "agent/agent.h"

/* An allocator that calls itself does so from not farther in than this. */
#define NESTED_REACH 0x10000

static uint64_t arg(const struct agent_call *call, uint8_t which)
{
	return which < 6 ? call->args[which] : 0;
}

/* The size asked for. False: there is none such, the original will fail. */
static bool wanted_size(struct agent_call *call)
{
	uint64_t size = arg(call, call->slot->arg_size);

	if (call->slot->arg_count < 6 &&
	    __builtin_mul_overflow(size, arg(call, call->slot->arg_count), &size))
		return false;
	call->size = size;
	return size >> 48 == 0;
}

static bool is_ours(uint64_t address)
{
	const struct agent_header *header = &agent_header;
	uint64_t image = (uint64_t)header;

	return address >= image + header->text_start && address < image + header->text_end;
}

/* Whether code there is the allocator's own. */
static bool is_allocators(uint64_t address)
{
	return address >= agent_config.allocator_start && address < agent_config.allocator_end;
}

/*
 * Whether the allocator calls itself. When sampling, what calls it may have passed unseen.
 */
static bool is_nested(const struct agent_call *call)
{
	uint64_t from = call->return_address;
	struct agent_thread *thread = call->thread;
	uint64_t inside;

	/* By a tail jump of an original that we called; a return probe at its end hides that it
	 * would return to us. */
	if (is_ours(from) || (thread && thread->inside_sp == (uint64_t)(call + 1)))
		return true;
	/* See is_in_alloc(). */
	if (pools_are_there())
		return false;
	if (!is_allocators(from))
		return false;
	if (agent_ctl.active == AGENT_SAMPLING || !thread)
		return true;
	inside = thread->inside_sp;
	return inside > (uint64_t)call && inside - (uint64_t)call < NESTED_REACH;
}

/* Forgets the call that the thread was in, if a longjmp has left it. */
static void look_inside(const struct agent_call *call)
{
	struct agent_thread *thread = call->thread;

	if (!thread->inside_sp || frame_is_alive(thread, thread->inside_sp, call))
		return;
	thread->inside_sp = 0;
	thread_count(thread, AGENT_COUNT_LOST, 1);
	thread_count(thread, AGENT_COUNT_ABANDONED, 1);
}

/* What was counted at another rate, or while nothing was recorded, does not count. */
static bool is_stale(struct agent_thread *thread)
{
	uint32_t epoch = *(volatile uint32_t *)&agent_ctl.epoch;

	if (!thread || thread->epoch == epoch)
		return false;
	thread->epoch = epoch;
	thread->countdown = sample_draw(thread);
	return true;
}

/* Whether the new block is to be entered. */
static bool is_wanted(struct agent_call *call, unsigned why)
{
	struct agent_thread *thread = call->thread;

	if (agent_ctl.active == AGENT_SAMPLING) {
		if (is_stale(thread))
			why = AGENT_WHY_LOOK;
		if (why != AGENT_WHY_SAMPLED) {
			if (thread)
				__asm__ volatile("subq %1, %0"
						 : "+m"(thread->countdown)
						 : "r"(call->size));
			if (thread && thread->countdown > 0)
				return false;
		}
		if (thread) {
			call->rate = (uint16_t)thread->rate;
			thread->countdown = sample_draw(thread);
		}
	}
	if (call->size < agent_ctl.min_size || call->size > agent_ctl.max_size) {
		thread_count(thread, AGENT_COUNT_FILTERED, 1);
		return false;
	}
	if (!thread) {
		thread_count(NULL, AGENT_COUNT_LOST, 1);
		thread_count(NULL, AGENT_COUNT_LOST_SLOT, 1);
	}
	return thread != NULL;
}

/*
 * Left alone, though it may have been counted. A sample point that lies in it is nobody's: were the
 * countdown to stay where it is, the next block would be taken for sampled, however small it is.
 */
static unsigned pass(struct agent_thread *thread)
{
	if (agent_ctl.active == AGENT_SAMPLING && thread && thread->countdown <= 0)
		thread->countdown = sample_draw(thread);
	return AGENT_DO_PASS;
}

static bool take_out(struct agent_thread *thread, uint64_t address, struct agent_block *ret,
		     struct agent_owner *owner_ret)
{
	bool sampling = agent_ctl.active == AGENT_SAMPLING;

	if (!address || (sampling && !filter_has(address)) || !live_remove(address, ret, owner_ret))
		return false;
	if (sampling)
		filter_remove(address);
	thread_count(thread, AGENT_COUNT_FREES, 1);
	return true;
}

static void enter(struct agent_thread *thread, uint64_t address, const struct agent_block *block,
		  const struct agent_owner *owner)
{
	if (agent_ctl.active == AGENT_SAMPLING)
		filter_add(address);
	if (live_insert(thread, address, block, owner)) {
		thread_count(thread, AGENT_COUNT_ALLOCS, 1);
		thread_count(thread, AGENT_COUNT_BYTES, block->size);
		return;
	}
	if (agent_ctl.active == AGENT_SAMPLING)
		filter_remove(address);
	thread_count(thread, AGENT_COUNT_LOST, 1);
	thread_count(thread, AGENT_COUNT_LOST_LIVE, 1);
}

static void forget(struct agent_thread *thread, uint64_t address)
{
	take_out(thread, address, NULL, NULL);
}

/* The original is to be called from our frame. */
static unsigned call_from_here(struct agent_call *call)
{
	call->target = call->slot->original;
	*(volatile uint64_t *)&call->cookie = (uint64_t)call ^ AGENT_COOKIE;
	if (call->slot->kind == AGENT_KIND_NEW) {
		call->target = call->slot->direct;
		if (call->slot->flags & AGENT_SLOT_SWAP) {
			uint64_t first = call->args[0];

			call->args[0] = call->args[1];
			call->args[1] = first;
		}
	}
	if (call->thread) {
		call->inside_before = call->thread->inside_sp;
		*(volatile uint64_t *)&call->thread->inside_sp = (uint64_t)call;
	}
	return AGENT_DO_CALL;
}

/* A pool's function that was called by one that is recorded; what it frees is another's block. */
static bool is_in_alloc(const struct agent_call *call)
{
	uint64_t inside = call->thread ? call->thread->inside_sp : 0;

	if (!pools_are_there() || !is_allocators(call->return_address) ||
	    inside <= (uint64_t)call || inside - (uint64_t)call >= NESTED_REACH)
		return false;
	thread_count(call->thread, AGENT_COUNT_NESTED, 1);
	return true;
}

static unsigned before_alloc(struct agent_call *call, unsigned why)
{
	if (is_in_alloc(call))
		return pass(call->thread);
	if (call->slot->size_form != AGENT_SIZE_ARGS) {
		/* See learn_size(). */
		call->size = 0;
		call->record = true;
		call->owner.context = pool_context(call);
		return call_from_here(call);
	}
	if (!wanted_size(call))
		return pass(call->thread);
	call->record = is_wanted(call, why);
	if (pools_are_there()) {
		/* Its functions are named so that none of them calls another. */
		if (!call->record)
			return AGENT_DO_PASS;
		call->owner.context = pool_context(call);
	}
	/* In any other case: the original may call, or end in a jump to, another hooked function.
	 */
	return call_from_here(call);
}

/* The context that the block stays in. Where that cannot be told, it could be freed unseen. */
static void find_new_owner(struct agent_call *call, uint64_t pointer)
{
	call->owner.context = pool_context(call);
	if (call->slot->context_form != AGENT_CONTEXT_NONE || !pointer)
		return;
	if (call->removed) {
		call->owner.context = call->old_owner.context;
	} else if (call->record && agent_config.pools.flags & AGENT_POOLS_RESETS) {
		call->record = false;
		thread_count(call->thread, AGENT_COUNT_LOST, 1);
	}
}

static unsigned before_realloc(struct agent_call *call, unsigned why)
{
	uint64_t pointer = arg(call, call->slot->arg_pointer);

	if (is_in_alloc(call) || !wanted_size(call))
		return pass(call->thread); /* the old block stays */
	/* Size 0 frees in most libraries: no new block unless one comes. */
	call->record = is_wanted(call, why);
	call->removed = take_out(call->thread, pointer, &call->old, &call->old_owner);
	if (pools_are_there())
		find_new_owner(call, pointer);
	return call_from_here(call);
}

static unsigned before_free(struct agent_call *call)
{
	uint64_t pointer = arg(call, call->slot->arg_pointer);

	if (!(call->slot->flags & AGENT_SLOT_TRY)) {
		forget(call->thread, pointer);
		return AGENT_DO_PASS;
	}
	call->removed = take_out(call->thread, pointer, &call->old, &call->old_owner);
	return call->removed ? call_from_here(call) : AGENT_DO_PASS;
}

unsigned agent_before(struct agent_call *call, unsigned why)
{
	struct agent_thread *thread;

	if (!agent_is_on())
		return AGENT_DO_PASS;
	if (call->slot->kind == AGENT_KIND_FREE && agent_ctl.active == AGENT_EXACT) {
		uint64_t address = arg(call, call->slot->arg_pointer);

		/* What the original looks at first, and what we do: both are mostly in no cache,
		 * and so come at once. */
		__builtin_prefetch((const void *)(address - 8));
		live_expect_key(address);
	}
	call->thread = thread = thread_find();
	call->record = call->removed = false;
	call->rate = 0;
	if (thread) {
		look_inside(call);
		if (agent_ctl.active == AGENT_EXACT)
			__asm__ volatile("decl %0" : "+m"(thread->calls));
	}
	if ((!thread || thread->calls < 0 || why == AGENT_WHY_SAMPLED) && !thread_lease(thread))
		return AGENT_DO_PASS;
	if (is_nested(call)) {
		thread_count(thread, AGENT_COUNT_NESTED, 1);
		return pass(thread);
	}
	switch (call->slot->kind) {
	case AGENT_KIND_FREE:
		return before_free(call);
	case AGENT_KIND_FREE_CHAIN:
		pool_free_chain(call, forget);
		return AGENT_DO_PASS;
	case AGENT_KIND_RESET:
		pool_reset(call, forget);
		return AGENT_DO_PASS;
	case AGENT_KIND_MOVE:
		pool_move(call);
		return AGENT_DO_PASS;
	case AGENT_KIND_ALLOC:
	case AGENT_KIND_ALLOC_AT:
	case AGENT_KIND_NEW:
		return before_alloc(call, why);
	case AGENT_KIND_REALLOC:
		return before_realloc(call, why);
	case AGENT_KIND_RESIZE:
		return call_from_here(call);
	default:
		return AGENT_DO_PASS;
	}
}

static void record(struct agent_call *call, uint64_t address)
{
	struct agent_block block = {
		.size = call->size,
		.rate = call->rate,
		.time = agent_ctl.now,
	};

	/* It comes while the stack is walked. */
	live_expect(address);
	block.stack = stack_record(call);
	if (block.stack == STACK_NONE)
		return;
	if (pools_are_there()) {
		memory_see(address);
		/* What its context's emptying has freed is there still. */
		forget(call->thread, address);
		if (!pool_own(pool_context_of(call, address), &call->owner)) {
			thread_count(call->thread, AGENT_COUNT_LOST, 1);
			thread_count(call->thread, AGENT_COUNT_LOST_LIVE, 1);
			return;
		}
	}
	enter(call->thread, address, &block, &call->owner);
}

static uint64_t new_block(const struct agent_call *call)
{
	if (call->slot->kind != AGENT_KIND_ALLOC_AT)
		return call->rax;
	if (call->rax)
		return 0;
	return *(const uint64_t *)arg(call, call->slot->arg_pointer);
}

/* The calls that recorded nothing, or whose original returned nothing. */
static void after_failure(struct agent_call *call)
{
	if (!call->size)
		return;
	thread_count(call->thread, AGENT_COUNT_FAILED, 1);
	if (call->removed)
		enter(call->thread, arg(call, call->slot->arg_pointer), &call->old,
		      &call->old_owner);
}

/* Only now it is known how large the block is, and so whether it is to be entered. */
static void learn_size(struct agent_call *call, uint64_t block)
{
	call->size = pool_size_of(call, block);
	call->record = is_wanted(call, AGENT_WHY_LOOK);
}

static void after_alloc(struct agent_call *call)
{
	uint64_t block = new_block(call);

	if (block && call->slot->size_form != AGENT_SIZE_ARGS)
		learn_size(call, block);
	if (!block)
		after_failure(call);
	else if (call->record)
		record(call, block);
}

/* The block is the program's still, if the original says so. */
static void after_free(struct agent_call *call)
{
	if ((uint32_t)call->rax)
		enter(call->thread, arg(call, call->slot->arg_pointer), &call->old,
		      &call->old_owner);
}

unsigned agent_after(struct agent_call *call)
{
	unsigned todo = AGENT_DO_RETURN;

	if (call->slot->kind == AGENT_KIND_NEW && !call->rax) {
		if (call->slot->flags & AGENT_SLOT_SWAP) {
			uint64_t first = call->args[0];

			call->args[0] = call->args[1];
			call->args[1] = first;
		}
		todo = AGENT_DO_TAIL;
	}
	if (agent_is_on()) {
		if (call->slot->kind == AGENT_KIND_RESIZE) {
			uint64_t pointer = arg(call, call->slot->arg_pointer);

			if (agent_ctl.active == AGENT_EXACT || filter_has(pointer))
				live_resize(pointer, call->rax);
		} else if (call->slot->kind == AGENT_KIND_FREE) {
			after_free(call);
		} else {
			after_alloc(call);
		}
	}
	if (call->thread)
		*(volatile uint64_t *)&call->thread->inside_sp = call->inside_before;
	/* No sooner: a handler would take us for abandoned. */
	*(volatile uint64_t *)&call->cookie = 0;
	return todo;
}
