/*
 * pools.c - contexts that are emptied as a whole (struct agent_pools).
 */
#include "agent/agent.h"

#define PAGE 4096ul

/* A tree of contexts that is none ends here. */
#define DEPTH_MAX    48
#define CONTEXTS_MAX (1u << 20)
#define BLOCKS_MAX   (1u << 24)
#define STRING_MAX   (1u << 24)

/* The word at @base + @offset, where @base is an address that the program itself uses. */
static bool read_near(uint64_t base, int64_t offset, uint64_t *ret)
{
	uint64_t address = base + (uint64_t)offset;

	if (address % 8 || ((address & -PAGE) != (base & -PAGE) && !memory_is_readable(address)))
		return false;
	*ret = *(const uint64_t *)address;
	return true;
}

uint64_t pool_context(const struct agent_call *call)
{
	const volatile struct agent_slot *slot = call->slot;
	uint64_t value = slot->arg_context < 6 ? call->args[slot->arg_context] : 0;

	switch (slot->context_form) {
	case AGENT_CONTEXT_ARG:
		return value;
	case AGENT_CONTEXT_GLOBAL:
		return *(const volatile uint64_t *)slot->context_word;
	case AGENT_CONTEXT_AT_ARG:
		if (!value || !read_near(value, (int64_t)slot->context_word, &value))
			return 0;
		return value;
	default:
		return 0;
	}
}

uint64_t pool_context_of(const struct agent_call *call, uint64_t block)
{
	uint64_t (*ask)(uint64_t block) = (uint64_t(*)(uint64_t))call->slot->context_word;

	return call->slot->context_form == AGENT_CONTEXT_ASK ? ask(block) : call->owner.context;
}

/* Up to its end, which the original should have written; 0: it has none. */
static uint64_t string_size(uint64_t block)
{
	for (uint64_t at = block; at - block < STRING_MAX; at++) {
		if (at % PAGE == 0 && at != block && !memory_is_readable(at))
			return 0;
		if (!*(const char *)at)
			return at - block + 1;
	}
	return 0;
}

uint64_t pool_size_of(const struct agent_call *call, uint64_t block)
{
	uint64_t size;

	if (call->slot->size_form == AGENT_SIZE_STRING)
		return string_size(block);
	return read_near(block, call->slot->size_word, &size) && size >> 48 == 0 ? size : 0;
}

void pool_free_chain(const struct agent_call *call,
		     void (*gone)(struct agent_thread *thread, uint64_t address))
{
	const volatile struct agent_slot *slot = call->slot;
	uint64_t block = slot->arg_pointer < 6 ? call->args[slot->arg_pointer] : 0;
	uint64_t offset = slot->arg_size < 6 ? call->args[slot->arg_size] : 0;
	uint64_t page = 0;

	for (unsigned i = 0; block && i < BLOCKS_MAX; i++) {
		if ((block & -PAGE) != page && !memory_is_readable(block & ~7ull))
			return;
		page = block & -PAGE;
		gone(call->thread, block);
		if (!read_near(block, (int64_t)offset, &block))
			return;
	}
}

static uint64_t next_number(void)
{
	struct agent_shm *shm = (struct agent_shm *)agent_config.shm;

	return __atomic_add_fetch(&shm->sequence, 1, __ATOMIC_RELAXED);
}

/* NULL: it is not there, or there is no room to @make it. */
static struct agent_context *find_context(uint64_t key, bool make)
{
	struct agent_context *contexts = (struct agent_context *)agent_config.pools.contexts;
	uint64_t hash = agent_hash(key);

	for (unsigned i = 0; i < AGENT_CONTEXT_PROBES; i++) {
		struct agent_context *context =
			&contexts[(hash + i) & agent_config.pools.contexts_mask];
		uint64_t found = __atomic_load_n(&context->key, __ATOMIC_RELAXED);

		if (found == key)
			return context;
		if (found)
			continue;
		if (!make)
			return NULL;
		if (!agent_is_on())
			return NULL;
		if (__atomic_compare_exchange_n(&context->key, &found, key, false, __ATOMIC_RELAXED,
						__ATOMIC_RELAXED) ||
		    found == key)
			return context;
	}
	return NULL;
}

/* ---- marks ---- */

/* Whether what is not marked holds nothing of interest, nor does anything below it. */
static bool marks_are_kept(void)
{
	return !(agent_config.pools.flags & AGENT_POOLS_TREE) ||
	       agent_config.pools.flags & AGENT_POOLS_PARENT;
}

/* At no time is the counter below the number of those that are marked. */
static bool set_mark(struct agent_context *context, uint64_t key)
{
	uint8_t *counter = &agent_ctl.contexts[agent_context_index(key)];

	if (__atomic_load_n(&context->marked, __ATOMIC_RELAXED))
		return false;
	counter_add(counter);
	if (!__atomic_exchange_n(&context->marked, 1, __ATOMIC_ACQ_REL))
		return true;
	counter_remove(counter);
	return false;
}

static void clear_mark(struct agent_context *context, uint64_t key)
{
	if (__atomic_exchange_n(&context->marked, 0, __ATOMIC_ACQ_REL))
		counter_remove(&agent_ctl.contexts[agent_context_index(key)]);
}

/* Its entry, if it is marked. */
static struct agent_context *find_marked(uint64_t key)
{
	struct agent_context *context;

	if (!agent_ctl.contexts[agent_context_index(key)])
		return NULL;
	context = find_context(key, false);
	return context && __atomic_load_n(&context->marked, __ATOMIC_RELAXED) ? context : NULL;
}

/* A link to another context; 0: none. @page is known to be readable, and becomes the one there. */
static uint64_t follow(uint64_t context, int32_t offset, uint64_t *page)
{
	uint64_t link;

	if (!read_near(context, offset, &link) || !link)
		return 0;
	link += (uint64_t)(int64_t)agent_config.pools.tree_node;
	if (link % 8)
		return 0;
	if ((link & -PAGE) != *page && !memory_is_readable(link))
		return 0;
	*page = link & -PAGE;
	return link;
}

/* Marks it and those above it. False: there is no room, or no end. */
static bool mark(uint64_t key)
{
	uint64_t page = 0;

	for (unsigned depth = 0; key; depth++) {
		struct agent_context *context = find_context(key, true);

		if (!context || depth == DEPTH_MAX || !agent_is_on())
			return false;
		if (!set_mark(context, key))
			return true;
		if (!(agent_config.pools.flags & AGENT_POOLS_PARENT))
			return true;
		key = follow(key, agent_config.pools.tree_parent, &page);
	}
	return true;
}

bool pool_own(uint64_t context, struct agent_owner *ret)
{
	if (context && !mark(context))
		return false;
	if (!agent_is_on())
		return false;
	*ret = (struct agent_owner){ context, next_number() };
	return true;
}

void pool_move(const struct agent_call *call)
{
	const volatile struct agent_slot *slot = call->slot;
	uint64_t context = pool_context(call);
	uint64_t parent = slot->arg_pointer < 6 ? call->args[slot->arg_pointer] : 0;

	if (pools_are_there() && context && find_marked(context) && !mark(parent))
		thread_count(call->thread, AGENT_COUNT_LOST_RESET, 1);
}

/* ---- emptying ---- */

struct tree_walk {
	const struct agent_call *call;
	uint64_t number;
	unsigned budget;
	uint64_t page; /* known to be readable */
	void (*gone)(struct agent_thread *thread, uint64_t address);
};

static bool are_blocks(void)
{
	return agent_config.pools.flags & AGENT_POOLS_BLOCKS;
}

/*
 * Of a tree of blocks each is gone by itself: it may have moved to where it is from a context that
 * was emptied since.
 */
static void empty(struct tree_walk *walk, struct agent_context *context)
{
	if (are_blocks() || !agent_is_on())
		return;
	if (!walk->number)
		walk->number = next_number();
	__atomic_store_n(&context->reset, walk->number, __ATOMIC_RELEASE);
}

/* False: nothing is in it, nor below it, that was entered. */
static bool empty_child(struct tree_walk *walk, uint64_t address)
{
	struct agent_context *context;

	if (are_blocks()) {
		walk->gone(walk->call->thread, address);
		return true;
	}
	context = marks_are_kept() ? find_marked(address) : find_context(address, false);
	if (!context)
		return !marks_are_kept();
	empty(walk, context);
	clear_mark(context, address);
	return true;
}

/* All below @context, while they are still there: the original will take them apart. */
static bool empty_children(struct tree_walk *walk, uint64_t context)
{
	const volatile struct agent_pools *pools = &agent_config.pools;
	uint64_t brothers[DEPTH_MAX];
	unsigned depth = 0;

	brothers[0] = follow(context, pools->tree_child, &walk->page);
	for (;;) {
		uint64_t at = brothers[depth], child = 0;

		if (!at) {
			if (!depth)
				return true;
			depth--;
			continue;
		}
		if (!walk->budget--)
			break;
		if (empty_child(walk, at))
			child = follow(at, pools->tree_child, &walk->page);
		brothers[depth] = follow(at, pools->tree_next, &walk->page);
		if (!child)
			continue;
		if (depth + 1 == DEPTH_MAX)
			break;
		brothers[++depth] = child;
	}
	thread_count(walk->call->thread, AGENT_COUNT_LOST_RESET, 1);
	return false;
}

/* Where all that is left are those below it, it has to stay marked for them. */
static bool has_children(struct tree_walk *walk, uint64_t context)
{
	return agent_config.pools.flags & AGENT_POOLS_TREE &&
	       follow(context, agent_config.pools.tree_child, &walk->page);
}

void pool_reset(const struct agent_call *call,
		void (*gone)(struct agent_thread *thread, uint64_t address))
{
	struct tree_walk walk = { .call = call, .budget = CONTEXTS_MAX, .gone = gone };
	unsigned flags = call->slot->flags;
	uint64_t address = pool_context(call);
	struct agent_context *context;
	bool done = true;

	if (!pools_are_there() || !address)
		return;
	/* No block was entered in it, nor below: nothing to be freed. */
	context = find_marked(address);
	if (!context && marks_are_kept())
		return;
	if (!context)
		context = find_context(address, false);
	if (context && flags & AGENT_SLOT_SELF)
		empty(&walk, context);
	if (flags & AGENT_SLOT_CHILDREN && agent_config.pools.flags & AGENT_POOLS_TREE)
		done = empty_children(&walk, address);
	if (context && flags & AGENT_SLOT_SELF && done &&
	    (flags & AGENT_SLOT_CHILDREN || !has_children(&walk, address)))
		clear_mark(context, address);
	if (flags & AGENT_SLOT_DELETE && are_blocks())
		gone(call->thread, address);
}
