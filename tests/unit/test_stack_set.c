#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "memprobe/stack_set.h"

static uint32_t add(struct stack_set *set, const uint64_t *pcs, size_t depth, bool truncated)
{
	uint32_t id;

	assert_null(stack_set_add(set, pcs, depth, truncated, &id));
	return id;
}

static void test_equal_stacks_have_one_number(void **state)
{
	cleanup(stack_set) struct stack_set *set = NULL;
	const uint64_t a[] = { 1, 2, 3 }, b[] = { 1, 2, 4 };
	size_t depth;
	bool truncated;

	assert_null(stack_set_create(&set));
	assert_int_equal(add(set, a, 3, false), 0);
	assert_int_equal(add(set, b, 3, false), 1);
	assert_int_equal(add(set, a, 2, false), 2);
	assert_int_equal(add(set, a, 3, true), 3);
	assert_int_equal(add(set, NULL, 0, false), 4);
	assert_int_equal(add(set, a, 3, false), 0);
	assert_int_equal(add(set, b, 3, false), 1);
	assert_int_equal(add(set, NULL, 0, false), 4);
	assert_int_equal(stack_set_size(set), 5);
	assert_memory_equal(stack_set_get(set, 1, &depth, &truncated), b, sizeof(b));
	assert_int_equal(depth, 3);
	assert_false(truncated);
	stack_set_get(set, 3, &depth, &truncated);
	assert_true(truncated);
}

/* More than a block holds; what was got first stays where it is. */
static void test_many(void **state)
{
	cleanup(stack_set) struct stack_set *set = NULL;
	const uint64_t *first;
	uint64_t pcs[40] = { 0 };
	size_t depth;
	bool truncated;

	assert_null(stack_set_create(&set));
	for (uint64_t i = 0; i < 20000; i++) {
		pcs[i % 40] = i;
		assert_int_equal(add(set, pcs, 1 + i % 40, false), i);
		if (!i)
			first = stack_set_get(set, 0, &depth, &truncated);
	}
	assert_ptr_equal(stack_set_get(set, 0, &depth, &truncated), first);
	assert_int_equal(first[0], 0);
	assert_memory_equal(stack_set_get(set, 19999, &depth, &truncated), pcs, sizeof(pcs));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_equal_stacks_have_one_number),
		cmocka_unit_test(test_many),
	};

	return cmocka_run_group_tests_name("stack_set", tests, NULL, NULL);
}
