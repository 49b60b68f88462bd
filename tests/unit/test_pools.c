/* Pools: files that describe them, and the agent's account of contexts that are emptied. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "agent_world.h"
#include "memprobe/pool_file.h"

/* ---- files ---- */

static struct pool_file *parse(const char *text)
{
	struct pool_file *file = NULL;
	struct error *error = pool_file_parse("x.pool", text, strlen(text), &file);

	if (error)
		fail_msg("%s", error->message);
	return file;
}

static void test_file(void **state)
{
	struct pool_file *file =
		parse("# all of it\n"
		      "\n"
		      "alloc palloc size=arg0 context=*Current # and more\n"
		      "\talloc  get  pointer=*arg2 size=arg3*arg1 context=arg5\n"
		      "realloc more pointer=old size=n context=arg0[-8] if=A unless=B\n"
		      "free drop pointer=arg1 optional returns=0\n"
		      "reset-only r context=pool[0x10]\n"
		      "tree child=8 next=-16 node=96 parent=0 blocks unless=C\n"
		      "alloc text context=arg0 size=return[-32]\n"
		      "alloc print context=Ask(return) size=string(return)\n"
		      "free-chain all pointer=arg1 next=arg2\n"
		      "move to context=arg0 parent=arg1");
	const struct pool_function *function = file->functions.data;
	const struct pool_tree *tree = file->trees.data;

	assert_int_equal(file->functions.size, 9);
	assert_string_equal(function[0].name, "palloc");
	assert_int_equal(function[0].kind, POOL_ALLOC);
	assert_int_equal(function[0].size.form, POOL_VALUE_ARG);
	assert_int_equal(function[0].context.form, POOL_VALUE_GLOBAL);
	assert_string_equal(function[0].context.name, "Current");
	assert_int_equal(function[0].line, 3);
	assert_int_equal(function[0].column, 7);
	assert_int_equal(function[1].pointer.form, POOL_VALUE_THROUGH);
	assert_int_equal(function[1].pointer.arg, 2);
	assert_int_equal(function[1].size.arg, 3);
	assert_int_equal(function[1].count.arg, 1);
	assert_int_equal(function[1].context.arg, 5);
	assert_int_equal(function[2].kind, POOL_REALLOC);
	assert_string_equal(function[2].pointer.name, "old");
	assert_true(function[2].context.has_offset);
	assert_int_equal(function[2].context.offset, -8);
	assert_string_equal(function[2].condition.present, "A");
	assert_string_equal(function[2].condition.absent, "B");
	assert_true(function[3].is_optional && function[3].may_refuse);
	assert_int_equal(function[4].kind, POOL_RESET_ONLY);
	assert_string_equal(function[4].context.name, "pool");
	assert_int_equal(function[4].context.offset, 16);
	assert_int_equal(function[5].size.form, POOL_VALUE_RETURN);
	assert_int_equal(function[5].size.offset, -32);
	assert_int_equal(function[6].size.form, POOL_VALUE_ASK);
	assert_int_equal(function[6].context.form, POOL_VALUE_ASK);
	assert_string_equal(function[6].context.name, "Ask");
	assert_int_equal(function[7].kind, POOL_FREE_CHAIN);
	assert_int_equal(function[7].next.arg, 2);
	assert_int_equal(function[8].kind, POOL_MOVE);
	assert_int_equal(function[8].parent.arg, 1);
	assert_int_equal(file->trees.size, 1);
	assert_int_equal(tree->child, 8);
	assert_int_equal(tree->next, -16);
	assert_int_equal(tree->node, 96);
	assert_true(tree->is_blocks && tree->has_parent);
	assert_string_equal(tree->condition.absent, "C");
	pool_file_destroy(file);
}

static void test_wrong_files(void **state)
{
	static const struct {
		const char *text, *message;
	} cases[] = {
		{ "", "x.pool names no function" },
		{ "# nothing\n", "x.pool names no function" },
		{ "new f", "x.pool:1:1: alloc, realloc" },
		{ "alloc", "x.pool:1:6: the name of a function is missing" },
		{ "alloc f size=arg0 size=arg1", "x.pool:1:24: it is given twice: 'arg1'" },
		{ "alloc f size=arg0*", "x.pool:1:19: a value is missing" },
		{ "alloc f size=", "x.pool:1:14: a value is missing" },
		{ "\n alloc f size=arg6?", "x.pool:2:15: this is no name: 'arg6?'" },
		{ "alloc f size=return", "x.pool:1:7: a size is made of arguments" },
		{ "alloc f size=arg0 context=return", "x.pool:1:7: a context cannot be" },
		{ "alloc f size=arg0 pointer=arg1", "x.pool:1:7: pointer= of an alloc is" },
		{ "alloc f size=arg0 context=arg1[8", "x.pool:1:27: a ] is missing" },
		{ "alloc f size=arg0 context=arg1[4]", "x.pool:1:32: offsets are multiples of 8" },
		{ "alloc f size=arg0 context=arg1[x]", "x.pool:1:32: an offset is expected" },
		{ "alloc f size=arg0 context=arg1[70000]", "x.pool:1:32: an offset is expected" },
		{ "free f", "x.pool:1:6: pointer=ARGUMENT is missing" },
		{ "free f pointer=*arg0", "x.pool:1:6: pointer=ARGUMENT is missing" },
		{ "alloc f size=arg0*string(return)", "x.pool:1:7: a size is made of" },
		{ "alloc f size=sum(return)", "x.pool:1:7: a size is made of" },
		{ "realloc f size=return[8] pointer=arg0", "x.pool:1:9: a size is made of" },
		{ "free f pointer=arg0 returns=1", "x.pool:1:29: it is 0, not '1'" },
		{ "reset f context=arg0 returns=0", "x.pool:1:7: returns= is for free" },
		{ "reset f context=A(return)", "x.pool:1:7: only what allocates" },
		{ "free f pointer=arg0 next=arg1", "x.pool:1:6: next= is for free-chain" },
		{ "free-chain f pointer=arg0", "x.pool:1:12: next=ARGUMENT is missing" },
		{ "move f context=arg0", "x.pool:1:6: parent=ARGUMENT is missing" },
		{ "delete f context=arg0 parent=arg1", "x.pool:1:8: parent= is for move" },
		{ "reset f", "x.pool:1:7: context= is missing" },
		{ "reset f context=arg0 size=arg1", "x.pool:1:7: there is nothing to it" },
		{ "tree child=8", "x.pool:1:1: a tree needs" },
		{ "tree child=8 next=9", "x.pool:1:19: offsets are multiples of 8" },
		{ "tree sister=8", "x.pool:1:6: child=, next=" },
		{ "alloc f\x01 size=arg0", "x.pool:1:8: a character that is none of text" },
		{ "alloc 1f size=arg0", "x.pool:1:7: this is no name: '1f'" },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct pool_file *file = NULL;
		struct error *error =
			pool_file_parse("x.pool", cases[i].text, strlen(cases[i].text), &file);

		assert_true(error_is(error, ERROR_USAGE));
		assert_null(file);
		if (strncmp(error->message, cases[i].message, strlen(cases[i].message)))
			fail_msg("'%s' instead of '%s'", error->message, cases[i].message);
		error_destroy(error);
	}
}

/* Each byte in turn is cut off, or becomes another. */
static void test_garbage(void **state)
{
	const char *text = "alloc p size=arg0*n context=arg1[-8] if=A\ntree child=8 next=16\n";
	size_t size = strlen(text);
	char copy[128];

	for (size_t i = 0; i < size; i++) {
		for (unsigned c = 0; c < 257; c++) {
			struct pool_file *file = NULL;

			memcpy(copy, text, size);
			copy[i] = (char)c;
			error_destroy(pool_file_parse("x", copy, c == 256 ? i : size, &file));
			pool_file_destroy(file);
		}
	}
}

/* ---- the agent ---- */

/* A context of the simplest kind: blocks come one behind the other, and over again when it is
 * emptied. */
struct context {
	struct context *child, *next, *parent;
	size_t used;
	char room[4096];
};

static struct context *current;

static void *pool_alloc(struct context *context, size_t size)
{
	void *block = context->room + context->used;

	context->used += (size + 15) & ~15ul;
	return block;
}

static void *pool_alloc_current(size_t size)
{
	return pool_alloc(current, size);
}

static void *pool_grow(void *old, size_t size)
{
	return size > 2048 ? NULL : pool_alloc(current, size);
}

static void pool_free(void *block)
{
}

static void pool_reset(struct context *context)
{
	context->used = 0;
	for (struct context *child = context->child; child; child = child->next)
		pool_reset(child);
}

static void pool_move(struct context *context, struct context *parent)
{
	struct context **link = &context->parent->child;

	while (*link != context)
		link = &(*link)->next;
	*link = context->next;
	context->next = parent->child;
	context->parent = parent;
	parent->child = context;
}

/* A text behind its size. */
static char *pool_text(struct context *context, const char *text)
{
	size_t *block = pool_alloc(context, 64);

	block[0] = strlen(text) + 1;
	return strcpy((char *)&block[1], text);
}

static int pool_try_free(int refuses, void *block)
{
	return refuses;
}

static void pool_free_list(void *block, size_t next)
{
}

static uint64_t pool_owner_of(const void *block)
{
	return (uint64_t)current;
}

#define CONTEXTS 4096

struct pools {
	struct agent_world *world;
	struct agent_context *contexts;
	void *(*alloc)(struct context *, size_t);
	void *(*alloc_current)(size_t);
	void *(*grow)(void *, size_t);
	void (*free)(void *);
	void (*reset)(struct context *);
	void (*reset_only)(struct context *);
	void (*move)(struct context *, struct context *);
	char *(*text)(struct context *, const char *);
	char *(*string)(struct context *, const char *);
	int (*try_free)(int, void *);
	void (*free_list)(void *, size_t);
	void *(*grow_asked)(void *, size_t);
};

static void *hook(struct agent_world *world, void *original, enum agent_entry entry,
		  struct agent_slot slot)
{
	slot.original = (uint64_t)original;
	return world_hook(world, &slot, entry);
}

static struct pools pools_create(uint32_t mode, uint64_t rate)
{
	struct agent_world *world = world_create(1024);
	struct agent_slot slot = { .arg_pointer = AGENT_NO_ARG,
				   .arg_size = AGENT_NO_ARG,
				   .arg_count = AGENT_NO_ARG };
	struct agent_slot alloc = slot, alloc_current, grow, drop, reset;
	struct pools pools = { .world = world };

	pools.contexts = calloc(CONTEXTS, sizeof(*pools.contexts));
	world->config->pools.contexts = (uint64_t)pools.contexts;
	world->config->pools.contexts_mask = CONTEXTS - 1;
	world->config->pools.tree_next = offsetof(struct context, next);
	world->config->pools.flags = AGENT_POOLS_TREE | AGENT_POOLS_RESETS;
	for (unsigned i = 0; i < world->ctl->live_levels; i++)
		world->config->pools.owners[i] =
			(uint64_t)calloc((world->config->live[i].mask + 1) * AGENT_BUCKET_BLOCKS,
					 sizeof(struct agent_owner));
	alloc.kind = AGENT_KIND_ALLOC;
	alloc.arg_size = 1;
	alloc.context_form = AGENT_CONTEXT_ARG;
	pools.alloc = hook(world, pool_alloc, AGENT_ENTRY_SIZE_SECOND, alloc);
	alloc_current = alloc;
	alloc_current.arg_size = 0;
	alloc_current.context_form = AGENT_CONTEXT_GLOBAL;
	alloc_current.context_word = (uint64_t)&current;
	pools.alloc_current =
		hook(world, pool_alloc_current, AGENT_ENTRY_SIZE_FIRST, alloc_current);
	grow = slot;
	grow.kind = AGENT_KIND_REALLOC;
	grow.arg_pointer = 0;
	grow.arg_size = 1;
	pools.grow = hook(world, pool_grow, AGENT_ENTRY_REALLOC, grow);
	drop = slot;
	drop.kind = AGENT_KIND_FREE;
	drop.arg_pointer = 0;
	pools.free = hook(world, pool_free, AGENT_ENTRY_FREE, drop);
	reset = slot;
	reset.kind = AGENT_KIND_RESET;
	reset.context_form = AGENT_CONTEXT_ARG;
	reset.flags = AGENT_SLOT_SELF | AGENT_SLOT_CHILDREN;
	pools.reset = hook(world, pool_reset, AGENT_ENTRY_ANY, reset);
	reset.flags = AGENT_SLOT_SELF;
	pools.reset_only = hook(world, pool_free, AGENT_ENTRY_ANY, reset);
	world_start(world, mode, rate, 3600);
	return pools;
}

/* Contexts know their parents, and more can be done to them. */
static struct pools pools_create_more(uint32_t mode, uint64_t rate)
{
	struct pools pools = pools_create(mode, rate);
	struct agent_world *world = pools.world;
	struct agent_slot slot = { .arg_pointer = AGENT_NO_ARG,
				   .arg_size = AGENT_NO_ARG,
				   .arg_count = AGENT_NO_ARG,
				   .context_form = AGENT_CONTEXT_ARG };
	struct agent_slot reset = slot, move = slot, text = slot, drop = slot, grow = slot;

	world->config->pools.tree_parent = offsetof(struct context, parent);
	world->config->pools.flags |= AGENT_POOLS_PARENT;
	reset.kind = AGENT_KIND_RESET;
	reset.flags = AGENT_SLOT_SELF | AGENT_SLOT_CHILDREN;
	pools.reset = hook(world, pool_reset, AGENT_ENTRY_CONTEXT, reset);
	reset.flags = AGENT_SLOT_SELF;
	pools.reset_only = hook(world, pool_free, AGENT_ENTRY_CONTEXT, reset);
	move.kind = AGENT_KIND_MOVE;
	move.arg_pointer = 1;
	pools.move = hook(world, pool_move, AGENT_ENTRY_CONTEXT, move);
	text.kind = AGENT_KIND_ALLOC;
	text.size_form = AGENT_SIZE_WORD;
	text.size_word = -8;
	pools.text = hook(world, pool_text, AGENT_ENTRY_ANY, text);
	text.size_form = AGENT_SIZE_STRING;
	pools.string = hook(world, pool_text, AGENT_ENTRY_ANY, text);
	drop.kind = AGENT_KIND_FREE;
	drop.arg_pointer = 1;
	drop.flags = AGENT_SLOT_TRY;
	pools.try_free = hook(world, pool_try_free, AGENT_ENTRY_FREE_SECOND, drop);
	drop.kind = AGENT_KIND_FREE_CHAIN;
	drop.arg_pointer = 0;
	drop.flags = 0;
	drop.arg_size = 1;
	pools.free_list = hook(world, pool_free_list, AGENT_ENTRY_ANY, drop);
	grow.kind = AGENT_KIND_REALLOC;
	grow.arg_pointer = 0;
	grow.arg_size = 1;
	grow.context_form = AGENT_CONTEXT_ASK;
	grow.context_word = (uint64_t)pool_owner_of;
	pools.grow_asked = hook(world, pool_grow, AGENT_ENTRY_REALLOC, grow);
	return pools;
}

static void pools_destroy(struct pools *pools)
{
	for (unsigned i = 0; i < pools->world->ctl->live_levels; i++)
		free((void *)pools->world->config->pools.owners[i]);
	free(pools->contexts);
	world_destroy(pools->world);
}

/* Bytes that are live of a context, as the reader of the tables finds them. */
static uint64_t live_of(const struct pools *pools, const struct context *context)
{
	const struct agent_world *world = pools->world;
	uint64_t reset = 0, bytes = 0;

	for (unsigned i = 0; i < CONTEXTS; i++)
		if (pools->contexts[i].key == (uint64_t)context)
			reset = pools->contexts[i].reset;
	for (unsigned l = 0; l < world->ctl->live_levels; l++) {
		const struct agent_level *level = &world->config->live[l];
		const struct agent_bucket *buckets = (const void *)level->address;
		const struct agent_owner *owners = (const void *)world->config->pools.owners[l];

		for (uint64_t i = 0; i < (level->mask + 1) * AGENT_BUCKET_BLOCKS; i++) {
			const struct agent_bucket *bucket = &buckets[i / AGENT_BUCKET_BLOCKS];

			if (bucket->keys[i % AGENT_BUCKET_BLOCKS] &&
			    owners[i].context == (uint64_t)context && owners[i].sequence > reset)
				bytes += bucket->blocks[i % AGENT_BUCKET_BLOCKS].size;
		}
	}
	return bytes;
}

static void test_contexts(void **state)
{
	struct pools pools = pools_create(AGENT_EXACT, 1);
	struct context *top = calloc(1, sizeof(*top)), *child = calloc(1, sizeof(*child));
	struct context *brother = calloc(1, sizeof(*brother)), *below = calloc(1, sizeof(*below));
	void *block;

	top->child = child;
	child->next = brother;
	child->child = below;
	current = below;
	pools.alloc(top, 100);
	pools.alloc(child, 30);
	pools.alloc(brother, 20);
	block = pools.alloc_current(7);
	assert_int_equal(live_of(&pools, top), 100);
	assert_int_equal(live_of(&pools, child), 30);
	assert_int_equal(live_of(&pools, brother), 20);
	assert_int_equal(live_of(&pools, below), 7);

	/* A new size stays where it was, also if that fails. */
	block = pools.grow(block, 50);
	assert_int_equal(live_of(&pools, below), 50);
	assert_null(pools.grow(block, 4000));
	assert_int_equal(live_of(&pools, below), 50);
	/* Of a block that nobody knows the context is unknown. */
	pools.grow(&current, 60);
	assert_int_equal(live_of(&pools, below), 50);
	assert_int_equal(world_count(pools.world, AGENT_COUNT_LOST), 1);

	/* What comes afterwards, at the same addresses, is live. */
	pools.reset(child);
	assert_int_equal(live_of(&pools, child), 0);
	assert_int_equal(live_of(&pools, below), 0);
	assert_int_equal(live_of(&pools, brother), 20);
	assert_int_equal(live_of(&pools, top), 100);
	pools.alloc(child, 31);
	block = pools.alloc_current(8);
	assert_int_equal(live_of(&pools, child), 31);
	assert_int_equal(live_of(&pools, below), 8);
	pools.free(block);
	assert_int_equal(live_of(&pools, below), 0);

	pools.reset_only(child);
	assert_int_equal(live_of(&pools, child), 0);
	pools.reset(top);
	assert_int_equal(live_of(&pools, brother), 0);
	assert_int_equal(live_of(&pools, top), 0);
	assert_int_equal(world_count(pools.world, AGENT_COUNT_LOST_RESET), 0);
	assert_int_equal(world_count(pools.world, AGENT_COUNT_REPLACED), 0);
	pools_destroy(&pools);
	free(below);
	free(brother);
	free(child);
	free(top);
}

/* A tree that is none: rings, links into nowhere. Nobody is hurt, and what was missed is counted.
 */
static void test_bad_trees(void **state)
{
	struct pools pools = pools_create(AGENT_EXACT, 1);
	struct context *top = calloc(1, sizeof(*top)), *child = calloc(1, sizeof(*child));

	pools.alloc(child, 30);
	top->child = child;
	child->next = (void *)0x10;
	pools.reset_only(top);
	assert_int_equal(live_of(&pools, child), 30);
	child->child = (void *)0x123;
	/* The original would follow these links, too. */
	pools.world->config->slots[4].original = (uint64_t)pool_free;
	pools.reset(top);
	assert_int_equal(live_of(&pools, child), 0);
	assert_int_equal(world_count(pools.world, AGENT_COUNT_LOST_RESET), 0);
	child->child = child;
	pools.reset(top);
	assert_int_equal(world_count(pools.world, AGENT_COUNT_LOST_RESET), 1);
	pools_destroy(&pools);
	free(child);
	free(top);
}

/* Random work on some contexts, against the account that the test keeps itself. */
static void test_random(void **state)
{
	enum { COUNT = 16, ROUNDS = 20000 };
	struct pools pools = pools_create(AGENT_EXACT, 1);
	struct context *contexts = calloc(COUNT, sizeof(*contexts));
	uint64_t truth[COUNT] = { 0 };

	srand(1);
	for (unsigned i = 0; i < ROUNDS; i++) {
		unsigned n = (unsigned)rand() % COUNT;
		size_t size = 1 + (size_t)rand() % 60;

		if (contexts[n].used > 4000 || rand() % 20 == 0) {
			pools.reset(&contexts[n]);
			truth[n] = 0;
			continue;
		}
		pools.alloc(&contexts[n], size);
		truth[n] += size;
	}
	for (unsigned n = 0; n < COUNT; n++)
		assert_int_equal(live_of(&pools, &contexts[n]), truth[n]);
	assert_int_equal(world_count(pools.world, AGENT_COUNT_LOST), 0);
	pools_destroy(&pools);
	free(contexts);
}

/* ---- what is marked, and what else there is ---- */

#define TREE 24

static bool is_below(const struct context *context, const struct context *top)
{
	while (context && context != top)
		context = context->parent;
	return context;
}

static void change_tree(const struct pools *pools, struct context *contexts, uint64_t *truth)
{
	struct context *context = &contexts[rand() % TREE], *other = &contexts[rand() % TREE];
	unsigned what = (unsigned)rand() % 40;
	size_t size = 64 + (size_t)rand() % 60;

	if (context->used > 3900 || what < 2) {
		pools->reset(context);
		for (unsigned i = 0; i < TREE; i++)
			truth[i] = is_below(&contexts[i], context) ? 0 : truth[i];
	} else if (what < 4) {
		pools->reset_only(context);
		context->used = 0;
		truth[context - contexts] = 0;
	} else if (what < 6) {
		if (context->parent && !is_below(other, context))
			pools->move(context, other);
	} else if (what < 20) {
		pools->alloc(context, size);
		truth[context - contexts] += size;
	}
}

/* Random work on a tree that changes its shape, against an account of it. */
static void random_tree(uint32_t mode)
{
	struct pools pools = pools_create_more(mode, 1);
	struct context *contexts = calloc(TREE, sizeof(*contexts));
	uint64_t truth[TREE] = { 0 };

	srand(2);
	for (unsigned i = 1; i < TREE; i++) {
		contexts[i].parent = &contexts[i / 3];
		contexts[i].next = contexts[i / 3].child;
		contexts[i / 3].child = &contexts[i];
	}
	for (unsigned i = 0; i < 30000; i++)
		change_tree(&pools, contexts, truth);
	for (unsigned i = 0; i < TREE; i++)
		assert_int_equal(live_of(&pools, &contexts[i]), truth[i]);
	pools.reset(contexts);
	for (unsigned i = 0; i < TREE; i++)
		assert_int_equal(live_of(&pools, &contexts[i]), 0);
	for (unsigned i = 0; i < AGENT_CONTEXTS_SIZE; i++)
		assert_int_equal(pools.world->ctl->contexts[i], 0);
	assert_int_equal(world_count(pools.world, AGENT_COUNT_LOST), 0);
	assert_int_equal(world_count(pools.world, AGENT_COUNT_LOST_RESET), 0);
	pools_destroy(&pools);
	free(contexts);
}

static void test_random_tree(void **state)
{
	random_tree(AGENT_EXACT);
	/* Of blocks of 64 bytes and more, every one is taken. */
	random_tree(AGENT_SAMPLING);
}

/* To where nothing is of interest yet. */
static void test_move(void **state)
{
	/* First: the agent is told once of what memory there is. */
	struct context *contexts = calloc(4, sizeof(*contexts));
	struct pools pools = pools_create_more(AGENT_SAMPLING, 1);

	for (unsigned i = 1; i < 4; i++) {
		contexts[i].parent = &contexts[i - 1];
		contexts[i - 1].child = &contexts[i];
	}
	contexts[2].parent = NULL;
	contexts[1].child = NULL;
	contexts[3].child = NULL;
	/* 0 < 1 and 2 < 3 become 0 < 1 < 3, 2. */
	pools.alloc(&contexts[3], 100);
	pools.move(&contexts[3], &contexts[1]);
	pools.reset(&contexts[2]);
	assert_int_equal(live_of(&pools, &contexts[3]), 100);
	pools.reset(&contexts[0]);
	assert_int_equal(live_of(&pools, &contexts[3]), 0);
	pools_destroy(&pools);
	free(contexts);
}

/* Of blocks of a hundred bytes, sampled by single ones, every one is taken. */
static void more(uint32_t mode)
{
	struct pools pools = pools_create_more(mode, 1);
	struct context *top = calloc(1, sizeof(*top));
	void **list[3];
	void *block;

	/* Sizes that only the block tells. */
	pools.text(top, "a text of fifty bytes, with the zero that is its end");
	assert_int_equal(live_of(&pools, top), 53);
	pools.string(top, "and another one, shorter by eleven bytes.");
	assert_int_equal(live_of(&pools, top), 53 + 42);
	pools.reset(top);
	assert_int_equal(live_of(&pools, top), 0);

	/* A free that may be refused. */
	block = pools.alloc(top, 100);
	assert_int_equal(pools.try_free(-5, block), -5);
	assert_int_equal(live_of(&pools, top), 100);
	assert_int_equal(pools.try_free(0, block), 0);
	assert_int_equal(live_of(&pools, top), 0);

	pools.free_list(NULL, 8);
	for (unsigned i = 0; i < 3; i++)
		list[i] = pools.alloc(top, 100);
	for (unsigned i = 0; i < 3; i++)
		list[i][1] = i < 2 ? list[i + 1] : NULL;
	assert_int_equal(live_of(&pools, top), 300);
	pools.free_list(list[1], 8);
	assert_int_equal(live_of(&pools, top), 100);
	list[0][1] = (void *)0x123;
	pools.free_list(list[0], 8);
	assert_int_equal(live_of(&pools, top), 0);

	/* Of a block that was not recorded, the new one's context is asked for. */
	current = top;
	pools.grow_asked(&current, 70);
	assert_int_equal(live_of(&pools, top), 70);
	assert_int_equal(world_count(pools.world, AGENT_COUNT_LOST), 0);
	pools_destroy(&pools);
	free(top);
}

static void test_more(void **state)
{
	more(AGENT_EXACT);
	more(AGENT_SAMPLING);
}

static struct pools *nested;

/* Is hooked itself, and what it calls, too. */
__attribute__((noinline)) static void *pool_outer(struct context *context, size_t size)
{
	void *block = nested->alloc(context, size);

	__asm__ volatile("" : : "r"(block) : "memory");
	return block;
}

static void test_nested(void **state)
{
	struct pools pools = pools_create_more(AGENT_EXACT, 1);
	struct context *top = calloc(1, sizeof(*top));
	struct agent_slot slot = { .kind = AGENT_KIND_ALLOC,
				   .arg_pointer = AGENT_NO_ARG,
				   .arg_size = 1,
				   .arg_count = AGENT_NO_ARG,
				   .context_form = AGENT_CONTEXT_ARG };
	void *(*outer)(struct context *, size_t) =
		hook(pools.world, pool_outer, AGENT_ENTRY_SIZE_SECOND, slot);

	nested = &pools;
	/* The pool's own call of itself counts once, ... */
	pools.world->config->allocator_start = (uint64_t)pool_outer;
	pools.world->config->allocator_end = (uint64_t)pool_outer + 64;
	outer(top, 100);
	assert_int_equal(world_count(pools.world, AGENT_COUNT_ALLOCS), 1);
	assert_int_equal(world_count(pools.world, AGENT_COUNT_NESTED), 1);
	assert_int_equal(live_of(&pools, top), 100);
	/* ... but not one from elsewhere meanwhile, as a handler's. */
	pools.world->config->allocator_end = (uint64_t)pool_outer;
	outer(top, 200);
	assert_int_equal(world_count(pools.world, AGENT_COUNT_ALLOCS), 3);
	assert_int_equal(live_of(&pools, top), 300);
	pools_destroy(&pools);
	free(top);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_file),	    cmocka_unit_test(test_wrong_files),
		cmocka_unit_test(test_garbage),	    cmocka_unit_test(test_contexts),
		cmocka_unit_test(test_bad_trees),   cmocka_unit_test(test_random),
		cmocka_unit_test(test_random_tree), cmocka_unit_test(test_move),
		cmocka_unit_test(test_nested),	    cmocka_unit_test(test_more),
	};

	return cmocka_run_group_tests_name("pools", tests, NULL, NULL);
}
