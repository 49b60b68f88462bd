/* PostgreSQL's memory contexts, built to the layouts of its versions; and garbage in their place.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "fake.h"
#include "memprobe/runtime.h"

#define BASE	 0x10000u
#define WORDS	 2048u
#define VARIABLE BASE
#define METHODS	 0xaaaa000u

extern const struct runtime_ops runtime_postgres;
static const struct runtime postgres = { &runtime_postgres, VARIABLE };

/* Where things stand in the fake, offsets from BASE. */
enum {
	AT_TEXTS = 0x100,
	AT_TOP = 0x400,
	AT_TOP_BLOCK = 0x500, /* the keeper */
	AT_CHILD = 0x800,
	AT_CHILD_BLOCK = 0x900,
	AT_HASH = 0xc00,
	AT_HASH_BLOCK = 0xd00,
	AT_GENERATION = 0x1000,
	AT_GENERATION_BLOCK = 0x1100,
	AT_CHUNK = 0x2000,
};

/* A version: offsets of the words in the header, 0: not there. */
struct version {
	const char *name;
	unsigned allocated, methods, parent, child, prev, next, text, ident, size;
	unsigned generation_list, generation_freeptr; /* 0: no such contexts, or not to be told */
	bool new_chunks;
	bool generation_with_header; /* counted in mem_allocated */
};

static const struct version versions[] = {
	{ "9.6", 0, 8, 16, 24, 32, 40, 48, 0, 64, 0, 0, false, false },
	{ "12", 0, 8, 16, 24, 32, 40, 48, 56, 72, 0, 0, false, false },
	{ "14", 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 32, false, false },
	{ "15", 8, 16, 24, 32, 40, 48, 56, 64, 80, 136, 32, false, true },
	{ "16", 8, 16, 24, 32, 40, 48, 56, 64, 80, 120, 40, true, true },
	{ "17, bump", 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 16, true, true },
};

struct world {
	uint64_t words[WORDS];
	struct target *target;
};

static void put(struct world *world, uint64_t offset, uint64_t value)
{
	assert_true(offset / 8 < WORDS);
	world->words[offset / 8] = value;
}

static uint64_t text_at(struct world *world, unsigned slot, const char *text)
{
	uint64_t offset = AT_TEXTS + slot * 32;

	memcpy((char *)world->words + offset, text, strlen(text) + 1);
	return BASE + offset;
}

static void put_context(struct world *world, const struct version *version, uint64_t at,
			uint64_t parent, uint64_t name, uint64_t allocated)
{
	put(world, at, 0x1234);
	if (version->allocated)
		put(world, at + version->allocated, allocated);
	put(world, at + version->methods, METHODS);
	put(world, at + version->parent, parent);
	put(world, at + version->text, name);
}

/* One block with @used and @left bytes. */
static void put_block(struct world *world, const struct version *version, uint64_t at,
		      uint64_t block, uint64_t used, uint64_t left)
{
	put(world, at + version->size, BASE + block);
	put(world, block, BASE + at);
	put(world, block + 24, BASE + block + used);
	put(world, block + 32, BASE + block + used + left);
}

static void put_generation(struct world *world, const struct version *version)
{
	uint64_t at = AT_GENERATION, list = at + version->generation_list;
	uint64_t block = AT_GENERATION_BLOCK;
	uint64_t header = version->generation_list + 16;

	put_context(world, version, at, BASE + AT_CHILD, text_at(world, 4, "Tuples"),
		    0x400 + (version->generation_with_header ? header : 0));
	put(world, at + version->methods, METHODS + 0x100);
	put(world, list, BASE + block);
	put(world, list + 8, BASE + block);
	put(world, block, BASE + list);
	put(world, block + 8, BASE + list);
	put(world, block + version->generation_freeptr, BASE + block + 0x300);
	put(world, block + version->generation_freeptr + 8, BASE + block + 0x400);
	put(world, AT_CHILD + version->child, BASE + at);
}

static void build(struct world *world, const struct version *version)
{
	memset(world->words, 0, sizeof(world->words));
	put(world, 0, BASE + AT_TOP);
	put_context(world, version, AT_TOP, 0, text_at(world, 0, "TopMemoryContext"),
		    0x100 + 0x200 + 0x40);
	put_block(world, version, AT_TOP, AT_TOP_BLOCK, 0x200, 0x40);
	put(world, AT_TOP + version->child, BASE + AT_CHILD);

	put_context(world, version, AT_CHILD, BASE + AT_TOP, text_at(world, 1, "CacheMemory"),
		    0x100 + 0x280 + 0x80);
	put_block(world, version, AT_CHILD, AT_CHILD_BLOCK, 0x280, 0x80);
	put(world, AT_CHILD + version->next, BASE + AT_HASH);
	/* Two free chunks of 32 bytes. */
	put(world, AT_CHILD + version->size + 8 * 3, BASE + AT_CHUNK);
	put(world, AT_CHUNK, version->new_chunks ? 0x43 : 32);
	put(world, AT_CHUNK + 8, BASE + AT_CHUNK + 0x100);
	put(world, AT_CHUNK + 0x100, version->new_chunks ? 0x53 : 32);

	put_context(world, version, AT_HASH, BASE + AT_TOP, text_at(world, 2, "dynahash"),
		    0x100 + 0x100);
	put_block(world, version, AT_HASH, AT_HASH_BLOCK, 0x100, 0);
	put(world, AT_HASH + version->prev, BASE + AT_CHILD);
	if (version->ident)
		put(world, AT_HASH + version->ident, text_at(world, 3, "Portal hash"));
	if (version->generation_list)
		put_generation(world, version);
}

static void open_world(struct world *world)
{
	assert_null(fake_target_create(&arch_x86_64, &world->target));
	assert_null(
		fake_target_add_segment(world->target, &(struct fake_segment){
							       .start = BASE,
							       .size = sizeof(world->words),
							       .bytes = world->words,
							       .bytes_size = sizeof(world->words),
							       .perms = PERM_READ | PERM_WRITE,
						       }));
}

static struct world *setup(const struct version *version)
{
	struct world *world = calloc(1, sizeof(*world));

	assert_non_null(world);
	build(world, version);
	open_world(world);
	return world;
}

static void close_world(struct world *world)
{
	target_destroy(world->target);
	free(world);
}

static void test_versions(void **state)
{
	for (unsigned i = 0; i < sizeof(versions) / sizeof(versions[0]); i++) {
		const struct version *version = &versions[i];
		struct world *world = setup(version);
		struct runtime_objects contexts = { 0 };
		const struct runtime_object *context;
		unsigned header = version->new_chunks ? 8 : 16;
		uint64_t sum = 0;

		print_message("version %s\n", version->name);
		assert_null(runtime_read(&postgres, world->target, 2, &contexts));
		if (contexts.state.is_inconsistent)
			fail_msg("%s", contexts.state.issue);
		context = contexts.objects.data;
		assert_int_equal(contexts.objects.size, version->generation_list ? 4 : 3);
		assert_string_equal(context[0].type, "TopMemoryContext");
		assert_int_equal(context[0].level, 0);
		assert_int_equal(context[0].owner, RUNTIME_NO_OWNER);
		assert_int_equal(context[0].size, 0x340);
		assert_int_equal(context[0].free, 0x40);
		assert_string_equal(context[1].type, "CacheMemory");
		assert_int_equal(context[1].size, 0x400);
		assert_int_equal(context[1].free, 0x80 + 2 * (32 + header));
		assert_int_equal(context[1].free_chunks, 2);
		assert_int_equal(context[1].blocks, 1);
		if (version->generation_list) {
			assert_string_equal(context[2].type, "Tuples");
			assert_string_equal(context[2].kind, "Generation");
			assert_int_equal(context[2].level, 2);
			assert_int_equal(context[2].owner, 1);
			assert_int_equal(context[2].size, 0x400 + version->generation_list + 16);
			assert_int_equal(context[2].free, 0x100);
			context++;
		}
		assert_string_equal(context[2].type, version->ident ? "Portal hash" : "dynahash");
		assert_null(context[2].label);
		assert_int_equal(context[2].size, 0x200);
		vec_for_each (each, &contexts.objects)
			sum += each->size;
		assert_int_equal(sum, contexts.size);
		runtime_objects_deinit(&contexts);
		close_world(world);
	}
}

/* What is wrong is said, and what is right is there all the same. */
static void test_inconsistent(void **state)
{
	const struct version *version = &versions[3];
	const struct {
		uint64_t offset, value;
		unsigned contexts;
	} cases[] = {
		{ AT_CHILD + 24, BASE + AT_HASH, 0 },		   /* parent: no layout fits */
		{ AT_HASH + 40, 0, 3 },				   /* prev */
		{ AT_HASH + 48, BASE + AT_CHILD, 4 },		   /* next: a ring */
		{ AT_HASH + 48, 0x10, 4 },			   /* next: unmapped */
		{ AT_GENERATION + 32, BASE + AT_TOP, 4 },	   /* child: a ring */
		{ AT_CHILD + 8, 0x111, 4 },			   /* mem_allocated */
		{ AT_CHILD_BLOCK + 16, BASE + AT_CHILD_BLOCK, 4 }, /* blocks in a ring */
		{ AT_CHUNK + 0x108, BASE + AT_CHUNK, 4 },	   /* chunks in a ring */
		{ AT_HASH + 56, 0x10, 3 },			   /* no name */
	};

	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct world *world = setup(version);
		struct runtime_objects contexts = { 0 };
		struct error *error;

		assert_null(fake_target_write(world->target, BASE + cases[i].offset,
					      &cases[i].value, 8));
		error = runtime_read(&postgres, world->target, 2, &contexts);
		if (cases[i].contexts) {
			assert_null(error);
			assert_true(contexts.state.is_inconsistent && *contexts.state.issue);
			assert_int_equal(contexts.objects.size, cases[i].contexts);
		} else {
			assert_true(error_is(error, ERROR_UNSUPPORTED));
			error_destroy(error);
		}
		runtime_objects_deinit(&contexts);
		close_world(world);
	}
}

/* Every word in turn is overwritten: it ends, and nothing is read that is not there. */
static void test_garbage(void **state)
{
	const uint64_t garbage[] = { 0,
				     1,
				     UINT64_MAX,
				     BASE,
				     BASE + AT_TOP,
				     BASE + AT_HASH,
				     BASE + AT_CHUNK,
				     BASE + 4,
				     BASE + 0x3ff8u,
				     (uint64_t)1 << 63 };
	struct world *world = setup(&versions[3]);

	for (unsigned i = 0; i < 0x500 + AT_GENERATION_BLOCK / 8; i++) {
		uint64_t offset = i * 8 % sizeof(world->words);

		for (unsigned j = 0; j < sizeof(garbage) / sizeof(garbage[0]); j++) {
			struct runtime_objects contexts = { 0 };

			assert_null(
				fake_target_write(world->target, BASE + offset, &garbage[j], 8));
			error_destroy(runtime_read(&postgres, world->target, 1, &contexts));
			assert_true(contexts.objects.size <= 64);
			runtime_objects_deinit(&contexts);
		}
		assert_null(fake_target_write(world->target, BASE + offset,
					      &world->words[offset / 8], 8));
	}
	close_world(world);
}

static void test_not_there(void **state)
{
	struct world *world = setup(&versions[3]);
	struct runtime_objects contexts = { 0 };
	struct error *error;
	struct runtime runtime;

	error = runtime_detect(world->target, runtime_has_owners, &runtime);
	assert_true(error_is(error, ERROR_UNSUPPORTED));
	error_destroy(error);
	error = runtime_read(&(struct runtime){ &runtime_postgres, 0x10 }, world->target, 2,
			     &contexts);
	assert_true(error_is(error, ERROR_FAULT));
	error_destroy(error);
	assert_null(fake_target_write(world->target, VARIABLE, &(uint64_t){ 0 }, 8));
	error = runtime_read(&postgres, world->target, 2, &contexts);
	assert_true(error_is(error, ERROR_UNSUPPORTED));
	error_destroy(error);
	runtime_objects_deinit(&contexts);
	close_world(world);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_versions),
		cmocka_unit_test(test_inconsistent),
		cmocka_unit_test(test_garbage),
		cmocka_unit_test(test_not_there),
	};

	return cmocka_run_group_tests_name("postgres", tests, NULL, NULL);
}
