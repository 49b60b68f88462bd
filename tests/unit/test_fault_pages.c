/*
 * Whom a page is charged to, and the map of ranges below it, against a plain array of pages.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "record/kernel/fault_pages.h"
#include "memprobe/arch.h"
#include "record/kernel/pages.h"

#define BASE   0x7f0000000000u
#define BLOCK  (FAULT_BLOCK_PAGES * PAGE_SIZE)
#define PAGES  200u
#define ROUNDS 20000u

static uint64_t removed_bytes[8];

static void note_removed(void *data, uint64_t start, uint64_t end, uint32_t value)
{
	removed_bytes[value] += end - start;
}

static void test_range_map_is_an_array(void **state)
{
	struct range_map map = { 0 };
	uint64_t bytes[8] = { 0 };
	uint32_t model[PAGES];

	srandom(1);
	memset(model, 0xff, sizeof(model));
	memset(removed_bytes, 0, sizeof(removed_bytes));
	for (unsigned round = 0; round < ROUNDS; round++) {
		uint64_t start = (uint64_t)random() % PAGES, end = (uint64_t)random() % (PAGES + 1);
		uint32_t value = (uint32_t)random() % 9;

		if (value < 8)
			assert_null(range_map_set(&map, start, end, value, note_removed, NULL));
		else
			assert_null(range_map_erase(&map, start, end, note_removed, NULL));
		for (uint64_t i = start; i < end; i++) {
			if (model[i] < 8)
				bytes[model[i]]++;
			model[i] = value < 8 ? value : UINT32_MAX;
		}
		for (uint64_t i = 0; i < PAGES; i++) {
			const struct range_map_entry *entry = range_map_find(&map, i);

			assert_int_equal(entry ? entry->value : UINT32_MAX, model[i]);
		}
	}
	assert_memory_equal(bytes, removed_bytes, sizeof(bytes));
	for (size_t i = 0; i < map.entries.size; i++) {
		assert_true(map.entries.data[i].start < map.entries.data[i].end);
		assert_true(!i || map.entries.data[i - 1].end <= map.entries.data[i].start);
	}
	range_map_deinit(&map);
}

static void test_last_fault_owns_the_page(void **state)
{
	struct fault_pages pages = { 0 };

	assert_null(fault_pages_set(&pages, BASE + 5 * PAGE_SIZE + 17, 3));
	assert_int_equal(fault_pages_owner(&pages, BASE + 5 * PAGE_SIZE, PAGES_RESIDENT), 3);
	assert_null(fault_pages_set(&pages, BASE + 5 * PAGE_SIZE, 0));
	assert_int_equal(fault_pages_owner(&pages, BASE + 5 * PAGE_SIZE, PAGES_RESIDENT), 0);
	/* Nobody faulted near there. */
	assert_int_equal(fault_pages_owner(&pages, BASE + 100 * PAGE_SIZE, PAGES_RESIDENT),
			 STACK_NONE);
	assert_int_equal(fault_pages_owner(&pages, BASE + BLOCK, PAGES_HUGE), STACK_NONE);
	fault_pages_deinit(&pages);
}

static void test_neighbours(void **state)
{
	struct fault_pages pages = { 0 };

	assert_null(fault_pages_set(&pages, BASE + 20 * PAGE_SIZE, 1));
	assert_null(fault_pages_set(&pages, BASE + 300 * PAGE_SIZE, 2));
	/* Fault-around: the 16 aligned pages about it. */
	assert_int_equal(fault_pages_owner(&pages, BASE + 16 * PAGE_SIZE, PAGES_FILE), 1);
	assert_int_equal(fault_pages_owner(&pages, BASE + 31 * PAGE_SIZE, PAGES_FILE), 1);
	assert_int_equal(fault_pages_owner(&pages, BASE + 32 * PAGE_SIZE, PAGES_FILE), STACK_NONE);
	assert_int_equal(fault_pages_owner(&pages, BASE + 15 * PAGE_SIZE, PAGES_FILE), STACK_NONE);
	/* A huge page: the nearest in its 2 MiB. */
	assert_int_equal(fault_pages_owner(&pages, BASE + 159 * PAGE_SIZE, PAGES_HUGE), 1);
	assert_int_equal(fault_pages_owner(&pages, BASE + 161 * PAGE_SIZE, PAGES_HUGE), 2);
	assert_int_equal(fault_pages_owner(&pages, BASE + 511 * PAGE_SIZE, PAGES_HUGE), 2);
	fault_pages_deinit(&pages);
}

static void test_calls(void **state)
{
	struct fault_pages pages = { 0 };
	const uint64_t other = BASE + 10 * BLOCK, far = BASE + (1ull << 40);

	assert_null(fault_pages_set(&pages, BASE, 1));
	assert_null(fault_pages_set(&pages, BASE + 3 * PAGE_SIZE, 2));
	/* Populating voids what was there. */
	assert_null(fault_pages_populated(&pages, BASE, BASE + 2 * PAGE_SIZE, 5));
	assert_int_equal(fault_pages_owner(&pages, BASE, PAGES_RESIDENT), 5);
	assert_int_equal(fault_pages_owner(&pages, BASE + 3 * PAGE_SIZE, PAGES_RESIDENT), 2);
	/* A fault after it counts again. */
	assert_null(fault_pages_set(&pages, BASE + PAGE_SIZE, 6));
	assert_int_equal(fault_pages_owner(&pages, BASE + PAGE_SIZE, PAGES_RESIDENT), 6);
	/* What moves keeps its owner; what was there before the recording becomes the call's. */
	assert_null(fault_pages_moved(&pages, BASE, other, 8 * PAGE_SIZE, 7));
	assert_int_equal(fault_pages_owner(&pages, other + PAGE_SIZE, PAGES_RESIDENT), 6);
	assert_int_equal(fault_pages_owner(&pages, other + 3 * PAGE_SIZE, PAGES_RESIDENT), 2);
	assert_int_equal(fault_pages_owner(&pages, other + 4 * PAGE_SIZE, PAGES_RESIDENT), 7);
	assert_int_equal(fault_pages_owner(&pages, BASE + 3 * PAGE_SIZE, PAGES_RESIDENT),
			 STACK_NONE);
	/* More than all blocks together, and sizes that make no sense. */
	assert_null(fault_pages_populated(&pages, BASE, far, 8));
	assert_int_equal(fault_pages_owner(&pages, other + PAGE_SIZE, PAGES_RESIDENT), 8);
	assert_null(fault_pages_moved(&pages, BASE, UINT64_MAX - 5, 1ull << 40, 9));
	assert_null(fault_pages_populated(&pages, far, BASE, 9));
	assert_int_equal(fault_pages_owner(&pages, BASE + PAGE_SIZE, PAGES_RESIDENT), 8);
	fault_pages_deinit(&pages);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_range_map_is_an_array),
		cmocka_unit_test(test_last_fault_owns_the_page),
		cmocka_unit_test(test_neighbours),
		cmocka_unit_test(test_calls),
	};

	return cmocka_run_group_tests_name("fault_pages", tests, NULL, NULL);
}
