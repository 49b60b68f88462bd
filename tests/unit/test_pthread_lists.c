/* Lists of control blocks as glibc has them, built into a fake target. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "fake.h"
#include "memprobe/pthread_lists.h"

#define LIBRARY 0x60000000u
#define LIBC	0x100u /* what is in front of the heads of the lists */
#define STACKS	0x70000000u
#define STACK	0x10000u /* with its guard */
#define BLOCK	0xc000u	 /* in the stack's last pages */
#define COUNT	6u

enum list { USED, USER, CACHE };

static const struct {
	enum list list;
	int tid;
	bool terminated, freed;
} threads[COUNT] = {
	{ USER, 100, false, false },				/* the first one */
	{ USED, 101, false, false }, { USED, 0, false, false }, /* to be joined */
	{ CACHE, 0, true, true },				/* was detached */
	{ CACHE, -1, false, true },				/* was joined */
	{ USER, 105, false, false },				/* on a stack of the program's */
};

struct world {
	struct target *target;
	struct mapping_vec maps;
	struct pthread_block_vec blocks;
};

static uint64_t block_at(unsigned i)
{
	/* Not the last bytes of the stack. */
	return STACKS + i * STACK + BLOCK + 0x3000 - 0x40 * i - 0x940;
}

static void put(struct world *world, uint64_t address, uint64_t value, unsigned size)
{
	assert_null(fake_target_write(world->target, address, &value, size));
}

static uint64_t head_of(const struct arch *arch, enum list list)
{
	return LIBRARY + LIBC + 2 * arch->word_size * list;
}

static void link_list(struct world *world, enum list list)
{
	const struct arch *arch = world->target->arch;
	uint64_t head = head_of(arch, list), last = head;

	for (unsigned i = 0; i <= COUNT; i++) {
		uint64_t at = i < COUNT ? block_at(i) + arch->pthread.list : head;

		if (i < COUNT && threads[i].list != list)
			continue;
		put(world, last, at, arch->word_size);
		put(world, at + arch->word_size, last, arch->word_size);
		last = at;
	}
}

static void build_block(struct world *world, unsigned i)
{
	const struct arch *arch = world->target->arch;
	const unsigned word = arch->word_size;
	uint64_t address = block_at(i), robust = arch->pthread.list + 2 * word + 2 * word;

	put(world, address, address, word);
	put(world, address + arch->pthread.self, address, word);
	put(world, address + arch->pthread.list + 2 * word, (uint32_t)threads[i].tid, 4);
	put(world, address + robust, address + robust, word);
	put(world, address + robust + arch->pthread.cancelhandling,
	    threads[i].terminated ? 0x30 : 0x10, 4);
	if (i) {
		put(world, address + 0x500, STACKS + i * STACK, word);
		put(world, address + 0x500 + word, STACK, word);
		put(world, address + 0x500 + 2 * word, i == 5 ? 0 : PAGE_SIZE, word);
	}
}

static void open_world(struct world *world, const struct arch *arch)
{
	*world = (struct world){ 0 };
	assert_null(fake_target_create(arch, &world->target));
	assert_null(fake_target_add_segment(world->target, &(struct fake_segment){
								   .start = LIBRARY,
								   .size = 2 * PAGE_SIZE,
								   .perms = PERM_READ | PERM_WRITE,
							   }));
	for (unsigned i = 0; i < COUNT; i++) {
		unsigned guard = i == 5 ? 0 : PAGE_SIZE;

		if (guard)
			assert_null(fake_target_add_segment(world->target,
							    &(struct fake_segment){
								    .start = STACKS + i * STACK,
								    .size = guard,
							    }));
		assert_null(fake_target_add_segment(world->target,
						    &(struct fake_segment){
							    .start = STACKS + i * STACK + guard,
							    .size = STACK - guard,
							    .perms = PERM_READ | PERM_WRITE,
						    }));
		build_block(world, i);
	}
	link_list(world, USED);
	link_list(world, USER);
	link_list(world, CACHE);
	assert_null(target_read_maps(world->target, MAPS_PLAIN, &world->maps));
}

static void close_world(struct world *world)
{
	pthread_block_vec_deinit(&world->blocks);
	mappings_deinit(&world->maps);
	target_destroy(world->target);
}

static const struct pthread_block *block_of(const struct world *world, unsigned i)
{
	for (size_t j = 0; j < world->blocks.size; j++)
		if (world->blocks.data[j].address == block_at(i))
			return &world->blocks.data[j];
	return NULL;
}

static void lists_are_found(const struct arch *arch)
{
	/* Whichever is known. */
	for (unsigned seed = 0; seed < COUNT; seed++) {
		struct world world;

		open_world(&world, arch);
		assert_null(pthread_lists_read(world.target, &world.maps, block_at(seed),
					       &world.blocks));
		assert_int_equal(world.blocks.size, COUNT);
		for (unsigned i = 0; i < COUNT; i++) {
			const struct pthread_block *block = block_of(&world, i);
			uint64_t guard = i == 5 ? 0 : PAGE_SIZE;

			assert_non_null(block);
			assert_int_equal(block->tid, threads[i].tid);
			assert_int_equal(block->is_freed, threads[i].freed);
			assert_int_equal(block->start, i ? STACKS + i * STACK + guard : 0);
			assert_int_equal(block->end, i ? STACKS + (i + 1) * STACK : 0);
			assert_int_equal(block->bounds, i ? block->address + 0x500 : 0);
		}
		close_world(&world);
	}
}

static void test_lists(void **state)
{
	lists_are_found(&arch_x86_64);
	lists_are_found(&arch_i386);
}

/* A list that is being changed is left out, the others are not. */
static void test_broken_list(void **state)
{
	const struct arch *arch = &arch_x86_64;
	struct world world;

	open_world(&world, arch);
	put(&world, block_at(3) + arch->pthread.list + 8, block_at(5), 8);
	assert_null(pthread_lists_read(world.target, &world.maps, block_at(1), &world.blocks));
	assert_int_equal(world.blocks.size, 4);
	assert_null(block_of(&world, 3));
	assert_null(block_of(&world, 4));
	world.blocks.size = 0;
	/* Nor is it read for ever. */
	put(&world, block_at(1) + arch->pthread.list, block_at(2) + arch->pthread.list, 8);
	put(&world, block_at(2) + arch->pthread.list, block_at(1) + arch->pthread.list, 8);
	put(&world, block_at(1) + arch->pthread.list + 8, block_at(2) + arch->pthread.list, 8);
	assert_null(pthread_lists_read(world.target, &world.maps, block_at(1), &world.blocks));
	assert_int_equal(world.blocks.size, 0);
	close_world(&world);
}

static void test_none(void **state)
{
	const uint64_t addresses[] = { 0, 1, LIBRARY, STACKS, block_at(1) + 8, UINT64_MAX };
	struct world world;

	open_world(&world, &arch_x86_64);
	for (unsigned i = 0; i < sizeof(addresses) / sizeof(addresses[0]); i++)
		assert_null(
			pthread_lists_read(world.target, &world.maps, addresses[i], &world.blocks));
	assert_int_equal(world.blocks.size, 0);
	close_world(&world);
}

/* Bytes of a target are hostile: whatever stands there, it ends. */
static void test_garbage(void **state)
{
	uint64_t seed = 1;

	for (unsigned round = 0; round < 2000; round++) {
		struct world world;

		open_world(&world, round % 2 ? &arch_x86_64 : &arch_i386);
		for (unsigned i = 0; i < 4; i++) {
			uint64_t places[] = { LIBRARY + LIBC, block_at(1), block_at(3) };
			uint64_t at, value;

			seed = seed * 6364136223846793005ull + 1442695040888963407ull;
			at = places[(seed >> 33) % 3] + ((seed >> 40) % 0x600 & ~7ull);
			value = (seed >> 20) % 4 ? block_at((seed >> 24) % COUNT) +
							   ((seed >> 50) % 0x300 & ~7ull)
						 : seed;
			put(&world, at, value, 8);
		}
		assert_null(pthread_lists_read(world.target, &world.maps, block_at(round % COUNT),
					       &world.blocks));
		for (size_t i = 0; i < world.blocks.size; i++)
			assert_true(world.blocks.data[i].end >= world.blocks.data[i].start);
		close_world(&world);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_lists),
		cmocka_unit_test(test_broken_list),
		cmocka_unit_test(test_none),
		cmocka_unit_test(test_garbage),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
