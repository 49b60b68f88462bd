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
		      "free drop pointer=arg1 optional\n"
		      "reset-only r context=pool[0x10]\n"
		      "tree child=8 next=-16 node=96 blocks unless=C");
	const struct pool_function *function = file->functions.data;
	const struct pool_tree *tree = file->trees.data;

	assert_int_equal(file->functions.size, 5);
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
	assert_true(function[3].is_optional);
	assert_int_equal(function[4].kind, POOL_RESET_ONLY);
	assert_string_equal(function[4].context.name, "pool");
	assert_int_equal(function[4].context.offset, 16);
	assert_int_equal(file->trees.size, 1);
	assert_int_equal(tree->child, 8);
	assert_int_equal(tree->next, -16);
	assert_int_equal(tree->node, 96);
	assert_true(tree->is_blocks);
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
		{ "alloc f size=return", "x.pool:1:7: size=ARGUMENT is missing" },
		{ "alloc f size=arg0 context=return", "x.pool:1:7: a context cannot be" },
		{ "alloc f size=arg0 pointer=arg1", "x.pool:1:7: pointer= of an alloc is" },
		{ "alloc f size=arg0 context=arg1[8", "x.pool:1:27: a ] is missing" },
		{ "alloc f size=arg0 context=arg1[4]", "x.pool:1:32: offsets are multiples of 8" },
		{ "alloc f size=arg0 context=arg1[x]", "x.pool:1:32: an offset is expected" },
		{ "alloc f size=arg0 context=arg1[70000]", "x.pool:1:32: an offset is expected" },
		{ "free f", "x.pool:1:6: pointer=ARGUMENT is missing" },
		{ "free f pointer=*arg0", "x.pool:1:6: pointer=ARGUMENT is missing" },
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
	struct context *child, *next;
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
	pools.alloc = hook(world, pool_alloc, AGENT_ENTRY_ANY, alloc);
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
	world_start(world, mode, rate, 60);
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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_file),	  cmocka_unit_test(test_wrong_files),
		cmocka_unit_test(test_garbage),	  cmocka_unit_test(test_contexts),
		cmocka_unit_test(test_bad_trees), cmocka_unit_test(test_random),
	};

	return cmocka_run_group_tests_name("pools", tests, NULL, NULL);
}
