/* Which words of a jemalloc's own are told from references, and which are not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "memprobe/arch.h"
#include "fake.h"
#include "memprobe/jemalloc_notes.h"

#define LOCAL	    0x700000000000
#define LOCAL_WORDS 1024
#define TCB	    (LOCAL + 8 * LOCAL_WORDS)
#define STACKS	    0x600000008000 /* the low bits of the later ones are below those of the first */
#define STACK_WORDS 200
#define BINS	    41
#define LARGE	    0x500000000040

struct bin {
	uint64_t head, requests;
	uint16_t low_water, full, empty, spare;
};

struct world {
	struct target *target;
	uint64_t local[LOCAL_WORDS];
	struct thread_vec threads;
	struct heap_block_vec blocks;
};

static void check(struct error *error)
{
	if (error)
		fail_msg("%s", error->message);
}

static void world_open(struct world *world)
{
	const struct fake_segment segment = {
		.start = LOCAL,
		.size = sizeof(world->local),
		.bytes = world->local,
		.bytes_size = sizeof(world->local),
		.perms = PERM_READ | PERM_WRITE,
	};
	const struct thread thread = { .tid = 1, .thread_pointer = TCB };

	check(fake_target_create(&arch_x86_64, &world->target));
	check(fake_target_add_segment(world->target, &segment));
	check(thread_vec_append(&world->threads, &thread));
}

static void world_close(struct world *world)
{
	thread_vec_deinit(&world->threads);
	heap_block_vec_deinit(&world->blocks);
	target_destroy(world->target);
}

static struct jemalloc_notes *notes_of(struct world *world)
{
	struct jemalloc_notes *notes = NULL;

	check(jemalloc_notes_find(world->target, &world->threads, NULL, &world->blocks, &notes));
	return notes;
}

/* @count bins at word @at, each with as many in its stack as its number. */
static void put_bins(struct world *world, size_t at, unsigned count)
{
	struct bin *bins = (struct bin *)(world->local + at);

	for (unsigned i = 0; i < count; i++) {
		uint64_t start = STACKS + 8 * STACK_WORDS * i, end = start + 8 * STACK_WORDS;

		bins[i] = (struct bin){
			.head = end - 8 * i,
			.requests = ~0ull,
			.low_water = (uint16_t)end,
			.full = (uint16_t)start,
			.empty = (uint16_t)end,
		};
	}
}

/* How many of the words of the caches' stacks, and of a page around them, stay. */
static size_t words_left(struct jemalloc_notes *notes)
{
	enum { PAGE = 512, COUNT = BINS * STACK_WORDS + 2 * PAGE };
	uint64_t *words = calloc(COUNT, sizeof(*words));
	size_t left = 0;

	assert_non_null(words);
	memset(words, 0x77, COUNT * sizeof(*words));
	jemalloc_notes_erase(notes, STACKS - 8 * PAGE, (uint8_t *)words, COUNT * sizeof(*words));
	for (size_t i = 0; i < COUNT; i++)
		left += words[i] != 0;
	free(words);
	return left;
}

static void test_caches(void **state)
{
	struct world world = { 0 };
	struct jemalloc_notes *notes;

	put_bins(&world, 300, BINS);
	world_open(&world);
	notes = notes_of(&world);
	assert_int_equal(words_left(notes), 1024);
	jemalloc_notes_destroy(notes);
	world_close(&world);
}

static void test_no_caches(void **state)
{
	struct world world = { 0 };
	struct jemalloc_notes *notes;

	/* Too few, and stacks that do not follow each other. */
	put_bins(&world, 100, 12);
	put_bins(&world, 300, BINS);
	for (unsigned i = 0; i < BINS; i += 2)
		world.local[300 + 3 * i] += 1 << 20;
	world_open(&world);
	notes = notes_of(&world);
	assert_int_equal(words_left(notes), BINS * STACK_WORDS + 1024);
	jemalloc_notes_destroy(notes);
	world_close(&world);
}

static void test_garbage(void **state)
{
	struct world world = { 0 };

	srand(1);
	for (unsigned round = 0; round < 200; round++) {
		struct jemalloc_notes *notes;

		for (size_t i = 0; i < LOCAL_WORDS; i++)
			world.local[i] = (uint64_t)rand() << (rand() % 48) & ~7ull;
		if (round % 2)
			put_bins(&world, (size_t)(rand() % (LOCAL_WORDS - 3 * BINS)), BINS);
		world_open(&world);
		notes = notes_of(&world);
		words_left(notes);
		jemalloc_notes_destroy(notes);
		world_close(&world);
		memset(&world, 0, sizeof(world));
	}
}

static uint64_t erased(struct jemalloc_notes *notes, uint64_t bits, uint64_t address,
		       uint64_t behind)
{
	uint64_t words[] = { bits, address, behind, 2 };

	jemalloc_notes_erase(notes, LOCAL, (uint8_t *)words, sizeof(words));
	assert_int_equal(words[0], bits);
	assert_int_equal(words[2], behind);
	assert_int_equal(words[3], 2);
	return words[1];
}

/* As jemalloc 5.3.0 has them: the size's number from bit 20 on. */
static void test_extents(void **state)
{
	const struct {
		uint64_t size, extent, bits;
	} cases[] = {
		{ 16000, 16384 + 4096, 0x240a000 },	{ 20000, 20480 + 4096, 0x250a000 },
		{ 20481, 24576 + 4096, 0x260a000 },	{ 32768, 32768 + 4096, 0x280a000 },
		{ 32769, 40960 + 4096, 0x290a000 },	{ 1000003, 1048576 + 4096, 0x3c0a003 },
		{ 1048576, 1048576 + 4096, 0x3c0a000 }, { 1048577, 1310720 + 4096, 0x100003d0a000 }
	};
	struct world world = { 0 };
	struct jemalloc_notes *notes;

	world_open(&world);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct heap_block block = { LARGE + (i << 32), cases[i].size };

		check(heap_block_vec_append(&world.blocks, &block));
	}
	/* Small ones have none. */
	check(heap_block_vec_append(&world.blocks, &(struct heap_block){ LARGE - 4096, 100 }));
	notes = notes_of(&world);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		uint64_t address = LARGE + (i << 32), bits = cases[i].bits;
		uint64_t older = (bits & 0x3fff) | bits >> 20 << 18;

		assert_int_equal(erased(notes, bits, address, cases[i].extent), 0);
		assert_int_equal(erased(notes, bits, address, cases[i].extent | 0x123), 0);
		assert_int_equal(erased(notes, older, address, cases[i].extent), 0);
		/* A program's {pointer, size}, whatever size, or pointer to somewhere else. */
		assert_int_equal(erased(notes, 0, address, cases[i].extent), address);
		assert_int_equal(erased(notes, LARGE, address, cases[i].extent), address);
		assert_int_equal(erased(notes, bits + (16 << 20), address, cases[i].extent),
				 address);
		assert_int_equal(erased(notes, bits ^ 1 << 12, address, cases[i].extent), address);
		assert_int_equal(erased(notes, bits, address, cases[i].size), address);
		assert_int_equal(erased(notes, bits, address, cases[i].extent - 4096), address);
		assert_int_equal(erased(notes, bits, address + 64, cases[i].extent), address + 64);
	}
	assert_int_equal(erased(notes, 0x240a000, LARGE - 4096, 112 + 4096), LARGE - 4096);
	jemalloc_notes_destroy(notes);
	world_close(&world);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_caches),
		cmocka_unit_test(test_no_caches),
		cmocka_unit_test(test_garbage),
		cmocka_unit_test(test_extents),
	};

	return cmocka_run_group_tests_name("jemalloc_notes", tests, NULL, NULL);
}
