/* A heap of given blocks: what is found in it, and what nothing points to. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "memprobe/arch.h"
#include "fake.h"
#include "memprobe/heap_blocks.h"
#include "memprobe/leaks.h"

#define START 0x700000000000
#define WORDS 1024

struct world {
	struct target *target;
	struct mapping_vec maps;
	uint64_t words[WORDS]; /* at START, writable */
};

static void check(struct error *error)
{
	if (error)
		fail_msg("%s", error->message);
}

static void world_open(struct world *world)
{
	const struct fake_segment segment = {
		.start = START,
		.size = sizeof(world->words),
		.bytes = world->words,
		.bytes_size = sizeof(world->words),
		.perms = PERM_READ | PERM_WRITE,
	};

	check(fake_target_create(&arch_x86_64, &world->target));
	check(fake_target_add_segment(world->target, &segment));
	check(target_read_maps(world->target, MAPS_PLAIN, &world->maps));
}

static void world_close(struct world *world)
{
	mappings_deinit(&world->maps);
	target_destroy(world->target);
}

static struct heap *heap_of(struct world *world, const struct heap_block *blocks, size_t count)
{
	struct heap_block_vec vec = { 0 };
	struct heap *heap;

	for (size_t i = 0; i < count; i++)
		check(heap_block_vec_append(&vec, &blocks[i]));
	check(heap_of_blocks(world->target, &world->maps, &vec, &heap));
	heap_block_vec_deinit(&vec);
	return heap;
}

static bool is_leaked(const struct heap *heap, const struct leak_result *result, uint64_t address)
{
	for (size_t i = 0; i < result->leaks.size; i++) {
		struct leak leak;

		leak_get(heap, result, i, &leak);
		if (leak.address == address)
			return true;
	}
	return false;
}

/* Words between the blocks are roots, those of a block only if it is kept itself. */
static void test_leaks(void **state)
{
	struct world world = { 0 };
	const struct heap_block blocks[] = {
		{ START + 0x300, 24 }, /* kept by the one at 0x100 */
		{ START + 0x100, 32 }, /* kept by a word behind it */
		{ START + 0x180, 16 }, /* lost, and points to: */
		{ START + 0x191, 7 },  /* lost, and too small for a pointer */
		{ START + 0x200, 8 },  /* lost: what points there is its end */
		{ START + 0x400, 0 },  /* none */
		{ START + 0x108, 8 },  /* in another */
	};
	struct leak_result result = { 0 };
	struct heap *heap;

	world.words[0x120 / 8] = START + 0x110;
	world.words[0x118 / 8] = START + 0x317;
	world.words[0x188 / 8] = START + 0x192;
	world.words[0x208 / 8] = START + 0x208;
	world.words[0x400 / 8] = START + 0x400;
	world_open(&world);
	heap = heap_of(&world, blocks, sizeof(blocks) / sizeof(blocks[0]));
	assert_int_equal(heap->regions.size, 5);
	check(leaks_find(heap, NULL, &result));
	assert_int_equal(result.leaked_count, 3);
	assert_int_equal(result.leaked_bytes, 16 + 7 + 8);
	assert_true(is_leaked(heap, &result, START + 0x180));
	assert_true(is_leaked(heap, &result, START + 0x191));
	assert_true(is_leaked(heap, &result, START + 0x200));
	assert_int_equal(result.live_count, 2);
	leak_result_deinit(&result);
	heap_destroy(heap);
	world_close(&world);
}

static void test_find(void **state)
{
	struct world world = { 0 };
	const struct heap_block blocks[] = { { START + 0x100, 32 }, { UINT64_MAX - 8, 16 } };
	struct heap_chunk chunk;
	struct heap *heap;

	world_open(&world);
	heap = heap_of(&world, blocks, 2);
	assert_true(heap_find(heap, START + 0x11f, &chunk));
	assert_int_equal(chunk.address, START + 0x100);
	assert_int_equal(chunk.size, 32);
	assert_int_equal(chunk.state, HEAP_IN_USE);
	assert_false(heap_find(heap, START + 0x120, &chunk));
	assert_false(heap_find(heap, START + 0xff, &chunk));
	heap_destroy(heap);
	world_close(&world);
}

static void test_none(void **state)
{
	struct world world = { 0 };
	struct leak_result result = { 0 };
	struct heap *heap;

	world_open(&world);
	heap = heap_of(&world, NULL, 0);
	check(leaks_find(heap, NULL, &result));
	assert_int_equal(result.leaked_count, 0);
	leak_result_deinit(&result);
	heap_destroy(heap);
	world_close(&world);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_leaks),
		cmocka_unit_test(test_find),
		cmocka_unit_test(test_none),
	};

	return cmocka_run_group_tests_name("heap_blocks", tests, NULL, NULL);
}
