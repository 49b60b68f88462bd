/* Finding glibc's arenas in memory built here, for several of its layouts, then in garbage. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "fake.h"
#include "memprobe/num.h"
#include "memprobe/ptmalloc.h"

#define BINS	    127
#define LIBC_SIZE   0x6000
#define MAIN_OFFSET 0x1c60 /* of main_arena in libc's data */
#define BRK_SIZE    0x21000
#define HEAP_USED   0x21000
#define ARENAS	    3 /* beside main_arena */

/* A process: libc's data, the brk heap, and heaps of other arenas. */
struct fake {
	struct target *target;
	unsigned word;
	uint64_t libc, brk, heaps[ARENAS + 1], heap_size;
};

/* What differs between the releases, as their structs have it. */
struct shape {
	const char *versions;
	const struct arch *arch;
	unsigned top, bins, next, system_mem, heap_info;
};

static const struct shape shapes[] = {
	{ "2.27-2.42", &arch_x86_64, 96, 112, 2160, 2184, 48 },
	{ "2.27-2.42", &arch_x86_64, 96, 112, 2160, 2184, 32 },
	{ "2.23-2.26", &arch_x86_64, 88, 104, 2152, 2176, 32 },
	{ "2.12-2.22", &arch_x86_64, 88, 104, 2152, 2168, 32 },
	{ "2.43", &arch_x86_64, 8, 24, 2072, 2096, 48 },
	{ "2.27-2.42", &arch_i386, 56, 64, 1096, 1108, 24 },
	{ "2.26", &arch_i386, 52, 60, 1092, 1104, 24 },
	{ "2.23-2.25", &arch_i386, 48, 56, 1088, 1100, 16 },
	{ "2.12-2.22", &arch_i386, 48, 56, 1088, 1096, 16 },
	{ "2.43", &arch_i386, 8, 16, 1048, 1060, 24 },
};

#define SHAPES (sizeof(shapes) / sizeof(shapes[0]))

static void store(struct fake *fake, uint64_t address, uint64_t value)
{
	assert_null(fake_target_write(fake->target, address, &value, fake->word));
}

static void add_segment(struct fake *fake, uint64_t start, size_t size, const char *path)
{
	struct fake_segment segment = {
		.start = start,
		.size = size,
		.perms = PERM_READ | PERM_WRITE,
		.path = path,
	};

	assert_null(fake_target_add_segment(fake->target, &segment));
}

static void fake_deinit(struct fake *fake)
{
	target_destroy(fake->target);
}

/* Of the file with main_arena. */
static const char *libc_path = "/lib/libc.so.6";

/* Every third bin of @arena holds one chunk of @chunks, the others are empty. */
static void build_bins(struct fake *fake, const struct shape *shape, uint64_t arena,
		       uint64_t chunks)
{
	unsigned word = fake->word;

	for (unsigned i = 0; i < BINS; i++) {
		uint64_t bin = arena + shape->bins + 2 * i * word - 2 * word;
		uint64_t chunk = chunks + i * 0x40, member = i % 3 == 1 ? chunk : bin;

		store(fake, bin + 2 * word, member);
		store(fake, bin + 3 * word, member);
		if (member == chunk) {
			store(fake, chunk + 2 * word, bin);
			store(fake, chunk + 3 * word, bin);
		}
	}
}

static uint64_t main_arena_of(const struct fake *fake)
{
	return fake->libc + MAIN_OFFSET;
}

static uint64_t arena_address(const struct fake *fake, const struct shape *shape, unsigned index)
{
	return index ? fake->heaps[index - 1] + shape->heap_info : main_arena_of(fake);
}

static void build_arena(struct fake *fake, const struct shape *shape, unsigned index,
			unsigned count)
{
	uint64_t arena = arena_address(fake, shape, index);
	uint64_t heap = index ? fake->heaps[index - 1] : fake->brk;
	unsigned word = fake->word;

	build_bins(fake, shape, arena, heap + 0x2000);
	store(fake, arena + shape->top, heap + 0x10000);
	store(fake, arena + shape->next, arena_address(fake, shape, (index + 1) % count));
	/* attached_threads lies there in 2.23 and later, and is no sensible size. */
	store(fake, arena + shape->system_mem - word, 1);
	store(fake, arena + shape->system_mem, BRK_SIZE);
	store(fake, arena + shape->system_mem + word, BRK_SIZE + 0x1000);
	if (!index)
		return;
	store(fake, heap, arena);
	store(fake, heap + word, 0);
	store(fake, heap + 2 * word, HEAP_USED);
	store(fake, heap + 3 * word, HEAP_USED);
}

/* @count arenas; the third's top lies in a second heap. */
static void build(struct fake *fake, const struct shape *shape, unsigned count)
{
	bool wide = shape->arch->word_size == 8;

	*fake = (struct fake){
		.word = shape->arch->word_size,
		.libc = wide ? 0x7f1234567000 : 0xf7d00000,
		.brk = wide ? 0x555500000000 : 0x57000000,
		.heap_size = wide ? 64u << 20 : 1u << 20,
	};
	assert_null(fake_target_create(shape->arch, &fake->target));
	add_segment(fake, fake->brk, BRK_SIZE, "[heap]");
	for (unsigned i = 0; i <= ARENAS; i++) {
		fake->heaps[i] = (wide ? 0x7f0000000000 : 0xf0000000) + i * fake->heap_size;
		if (i + 1 < count || (i == ARENAS && count == ARENAS + 1))
			add_segment(fake, fake->heaps[i], HEAP_USED, "");
	}
	add_segment(fake, fake->libc, LIBC_SIZE, libc_path);
	for (unsigned i = 0; i < count; i++)
		build_arena(fake, shape, i, count);
	if (count == ARENAS + 1) {
		uint64_t arena = arena_address(fake, shape, 3), second = fake->heaps[ARENAS];

		store(fake, second, arena);
		store(fake, second + fake->word, fake->heaps[2]);
		store(fake, second + 2 * fake->word, 0x5000);
		store(fake, arena + shape->top, second + 0x3000);
	}
}

static void find(struct fake *fake, struct arena_vec *ret, const struct ptmalloc_layout **layout)
{
	struct mapping_vec maps = { 0 };

	*ret = (struct arena_vec){ 0 };
	*layout = NULL;
	assert_null(target_read_maps(fake->target, MAPS_PLAIN, &maps));
	assert_null(ptmalloc_find_arenas_in(fake->target, &maps, ret));
	*layout = ret->size ? ret->data[0].layout : NULL;
	mappings_deinit(&maps);
}

static void assert_found(struct fake *fake, const struct shape *shape, unsigned count)
{
	const struct ptmalloc_layout *layout;
	struct arena_vec arenas;

	find(fake, &arenas, &layout);
	assert_int_equal(arenas.size, count);
	assert_string_equal(layout->versions, shape->versions);
	assert_int_equal(layout->word_size, fake->word);
	for (unsigned i = 0; i < count; i++) {
		const struct arena *arena = &arenas.data[i];

		assert_int_equal(arena->index, i);
		assert_int_equal(arena->is_main, i == 0);
		assert_true(arena->address == arena_address(fake, shape, i));
		assert_true(arena->system_mem == BRK_SIZE);
		assert_true(arena->max_system_mem == BRK_SIZE + 0x1000);
		assert_int_equal(arena->heaps.size, i == 3 ? 2 : 1);
	}
	if (count == ARENAS + 1) {
		const struct arena_heap_vec *heaps = &arenas.data[3].heaps;

		assert_true(heaps->data[0].start == fake->heaps[ARENAS]);
		assert_true(heaps->data[0].used == fake->heaps[ARENAS] + 0x5000);
		assert_true(heaps->data[0].end == fake->heaps[ARENAS] + fake->heap_size);
		assert_true(heaps->data[1].start == fake->heaps[2]);
	}
	arenas_deinit(&arenas);
}

static void assert_nothing(struct fake *fake)
{
	const struct ptmalloc_layout *layout;
	struct arena_vec arenas;

	find(fake, &arenas, &layout);
	assert_int_equal(arenas.size, 0);
	assert_null(layout);
}

static void test_layouts(void **state)
{
	for (size_t i = 0; i < SHAPES; i++) {
		for (unsigned count = 1; count <= ARENAS + 1; count++) {
			struct fake fake;

			build(&fake, &shapes[i], count);
			assert_found(&fake, &shapes[i], count);
			fake_deinit(&fake);
		}
	}
}

/* The data of the program, as in one linked statically, and of no other file. */
static void test_static_program(void **state)
{
	struct fake fake;

	libc_path = "/usr/bin/program";
	build(&fake, &shapes[0], 1);
	assert_nothing(&fake);
	free(fake.target->exe);
	fake.target->exe = strdup(libc_path);
	assert_found(&fake, &shapes[0], 1);
	fake_deinit(&fake);
	libc_path = "/lib/libc.so.6";
}

/* Bins in motion, as a read of a running process sees them. */
static void test_torn_bins(void **state)
{
	for (size_t i = 0; i < SHAPES; i++) {
		unsigned word = shapes[i].arch->word_size;
		struct fake fake;

		build(&fake, &shapes[i], 1);
		for (unsigned bin = 1; bin < BINS; bin += 3)
			store(&fake, main_arena_of(&fake) + shapes[i].bins + 2 * bin * word,
			      fake.brk + 0x8000);
		assert_found(&fake, &shapes[i], 1);
		fake_deinit(&fake);
	}
}

/* One bin that no chunk list can be: main_arena is then found from the others' heaps. */
static void test_by_heaps(void **state)
{
	for (size_t i = 0; i < SHAPES; i++) {
		struct fake fake;

		build(&fake, &shapes[i], ARENAS);
		store(&fake, main_arena_of(&fake) + shapes[i].bins, 3);
		assert_found(&fake, &shapes[i], ARENAS);
		fake_deinit(&fake);
		build(&fake, &shapes[i], 1);
		store(&fake, main_arena_of(&fake) + shapes[i].bins, 3);
		assert_nothing(&fake);
		fake_deinit(&fake);
	}
}

static void test_broken_rings(void **state)
{
	const struct shape *shape = &shapes[0];
	struct fake fake;

	build(&fake, shape, 3);
	store(&fake, arena_address(&fake, shape, 2) + shape->next,
	      arena_address(&fake, shape, 1)); /* a loop that leaves main_arena out */
	assert_nothing(&fake);
	store(&fake, arena_address(&fake, shape, 2) + shape->next, 0xdead0000);
	assert_nothing(&fake);
	store(&fake, arena_address(&fake, shape, 2) + shape->next, main_arena_of(&fake));
	assert_found(&fake, shape, 3);
	store(&fake, main_arena_of(&fake) + shape->system_mem, 123);
	assert_nothing(&fake);
	fake_deinit(&fake);
}

/* As the file has it: zeros, but for `next` and, from 2.23 on, attached_threads. */
static void test_unused(void **state)
{
	for (size_t i = 0; i < SHAPES; i++) {
		const struct shape *shape = &shapes[i];
		const struct ptmalloc_layout *layout;
		struct arena_vec arenas;
		struct fake fake;

		build(&fake, shape, 0);
		store(&fake, main_arena_of(&fake) + shape->next, main_arena_of(&fake));
		store(&fake, main_arena_of(&fake) + shape->next + 2 * fake.word, 1);
		find(&fake, &arenas, &layout);
		assert_int_equal(arenas.size, 1);
		assert_true(arenas.data[0].address == main_arena_of(&fake));
		assert_int_equal(arenas.data[0].top, 0);
		assert_int_equal(arenas.data[0].system_mem, 0);
		arenas_deinit(&arenas);
		store(&fake, main_arena_of(&fake) + shape->next, main_arena_of(&fake) + 16);
		assert_nothing(&fake);
		fake_deinit(&fake);
	}
}

/* 100 arrays of pointers in front of main_arena are no bins. */
static void test_pointers_in_front(void **state)
{
	struct fake fake;

	build(&fake, &shapes[0], 1);
	for (uint64_t at = 0; at < MAIN_OFFSET; at += fake.word)
		store(&fake, fake.libc + at, fake.brk + 16 * (at % 64));
	assert_found(&fake, &shapes[0], 1);
	fake_deinit(&fake);
}

/* A heap list that runs in a circle ends. */
static void test_circular_heaps(void **state)
{
	const struct shape *shape = &shapes[5];
	const struct ptmalloc_layout *layout;
	struct arena_vec arenas;
	struct fake fake;

	build(&fake, shape, ARENAS + 1);
	store(&fake, fake.heaps[ARENAS] + fake.word, fake.heaps[ARENAS]);
	find(&fake, &arenas, &layout);
	assert_int_equal(arenas.size, ARENAS + 1);
	arenas_deinit(&arenas);
	fake_deinit(&fake);
}

/* Nothing of what a process may have written there makes the search crash or hang. */
static void test_mutations(void **state)
{
	uint32_t random = 1;

	for (unsigned round = 0; round < 400; round++) {
		const struct shape *shape = &shapes[round % SHAPES];
		const struct ptmalloc_layout *layout;
		struct arena_vec arenas;
		struct fake fake;

		build(&fake, shape, ARENAS + 1);
		for (unsigned i = 0; i < 1 + round % 8; i++) {
			uint64_t arena, where;

			random = random * 1664525 + 1013904223;
			arena = arena_address(&fake, shape, random >> 8 & 3);
			where = round & 1 ? arena + shape->bins - 8 * fake.word
					  : round_down(arena, 0x1000);
			where += (random >> 12) % (shape->next + 64) / fake.word * fake.word;
			store(&fake, where,
			      random & 0x10   ? arena_address(&fake, shape, random >> 20 & 3)
			      : random & 0x20 ? (uint64_t)-1
					      : random);
		}
		find(&fake, &arenas, &layout);
		assert_true(arenas.size <= ARENAS + 1);
		arenas_deinit(&arenas);
		fake_deinit(&fake);
	}
}

static void test_threads(void **state)
{
	for (size_t i = 0; i < SHAPES; i++) {
		const struct ptmalloc_layout *layout;
		struct arena_vec arenas;
		struct thread thread;
		struct fake fake;
		uint64_t tls;

		build(&fake, &shapes[i], 3);
		tls = fake.libc + 0x100000;
		add_segment(&fake, tls, 0x3000, "");
		find(&fake, &arenas, &layout);
		thread = (struct thread){ .tid = 1, .thread_pointer = tls + 0x1080 };
		assert_null(arena_of_thread(fake.target, &thread, &arenas));
		/* A dead frame far below, then the variable itself. */
		store(&fake, tls + 0x200, arena_address(&fake, &shapes[i], 1));
		assert_ptr_equal(arena_of_thread(fake.target, &thread, &arenas), &arenas.data[1]);
		store(&fake, tls + 0x1080 - 7 * fake.word, arena_address(&fake, &shapes[i], 2));
		assert_ptr_equal(arena_of_thread(fake.target, &thread, &arenas), &arenas.data[2]);
		store(&fake, tls + 0x1080 - 6 * fake.word, main_arena_of(&fake));
		assert_ptr_equal(arena_of_thread(fake.target, &thread, &arenas), &arenas.data[0]);
		thread.thread_pointer = 0;
		assert_null(arena_of_thread(fake.target, &thread, &arenas));
		thread.thread_pointer = UINT64_MAX;
		assert_null(arena_of_thread(fake.target, &thread, &arenas));
		thread.thread_pointer = tls + 0x8000;
		assert_null(arena_of_thread(fake.target, &thread, &arenas));
		arenas_deinit(&arenas);
		fake_deinit(&fake);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_layouts),	     cmocka_unit_test(test_static_program),
		cmocka_unit_test(test_torn_bins),    cmocka_unit_test(test_by_heaps),
		cmocka_unit_test(test_unused),	     cmocka_unit_test(test_pointers_in_front),
		cmocka_unit_test(test_broken_rings), cmocka_unit_test(test_circular_heaps),
		cmocka_unit_test(test_mutations),    cmocka_unit_test(test_threads),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
