/*
 * pools.c - contexts that are emptied as a whole (struct agent_pools).
 */
#include "agent/agent.h"

#define PAGE 4096ul

/* Of one emptying: a tree of contexts that is none ends here. */
#define DEPTH_MAX    48
#define CONTEXTS_MAX (1u << 20)

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

bool pool_own(uint64_t context, struct agent_owner *ret)
{
	if (context && !find_context(context, true))
		return false;
	if (!agent_is_on())
		return false;
	*ret = (struct agent_owner){ context, next_number() };
	return true;
}

static void empty(uint64_t address, uint64_t *number)
{
	struct agent_context *context = find_context(address, false);

	/* No block was entered in it: nothing to be freed. */
	if (!context || !agent_is_on())
		return;
	if (!*number)
		*number = next_number();
	__atomic_store_n(&context->reset, *number, __ATOMIC_RELEASE);
}

struct tree_walk {
	const struct agent_call *call;
	uint64_t number;
	unsigned budget;
	uint64_t page; /* known to be readable */
	void (*gone)(struct agent_thread *thread, uint64_t address);
};

/* The context that the link at @offset of @context leads to; 0: none. */
static uint64_t follow(struct tree_walk *walk, uint64_t context, int32_t offset)
{
	uint64_t link;

	if (!read_near(context, offset, &link) || !link)
		return 0;
	link += (uint64_t)(int64_t)agent_config.pools.tree_node;
	if (link % 8)
		return 0;
	if ((link & -PAGE) != walk->page && !memory_is_readable(link))
		return 0;
	walk->page = link & -PAGE;
	return link;
}

/* All below @context, while they are still there: the original will take them apart. */
static void empty_children(struct tree_walk *walk, uint64_t context)
{
	uint64_t brothers[DEPTH_MAX];
	unsigned depth = 0;

	brothers[0] = follow(walk, context, agent_config.pools.tree_child);
	for (;;) {
		uint64_t at = brothers[depth], child;

		if (!at) {
			if (!depth)
				return;
			depth--;
			continue;
		}
		if (!walk->budget--)
			break;
		empty(at, &walk->number);
		if (agent_config.pools.flags & AGENT_POOLS_BLOCKS)
			walk->gone(walk->call->thread, at);
		child = follow(walk, at, agent_config.pools.tree_child);
		brothers[depth] = follow(walk, at, agent_config.pools.tree_next);
		if (!child)
			continue;
		if (depth + 1 == DEPTH_MAX)
			break;
		brothers[++depth] = child;
	}
	thread_count(walk->call->thread, AGENT_COUNT_LOST_RESET, 1);
}

void pool_reset(const struct agent_call *call,
		void (*gone)(struct agent_thread *thread, uint64_t address))
{
	struct tree_walk walk = { .call = call, .budget = CONTEXTS_MAX, .gone = gone };
	unsigned flags = call->slot->flags;
	uint64_t context = pool_context(call);

	if (!pools_are_there() || !context)
		return;
	if (flags & AGENT_SLOT_SELF)
		empty(context, &walk.number);
	if (flags & AGENT_SLOT_CHILDREN && agent_config.pools.flags & AGENT_POOLS_TREE)
		empty_children(&walk, context);
	if (flags & AGENT_SLOT_DELETE && agent_config.pools.flags & AGENT_POOLS_BLOCKS)
		gone(call->thread, context);
}
