/* Profiles: interning, merging, sorting, sums. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "memprobe/profile.h"

static struct profile *new_profile(void)
{
	struct profile *profile;

	assert_null(profile_create(&profile));
	return profile;
}

static uint32_t add_frame(struct profile *profile, const char *function)
{
	struct profile_frame frame = { .function = function };
	uint32_t id;

	assert_null(profile_add_frame(profile, &frame, &id));
	return id;
}

static void equal_things_are_one(void **state)
{
	cleanup(profile) struct profile *profile = new_profile();
	char name[] = "main";
	uint32_t a = add_frame(profile, "main"), b = add_frame(profile, name), stacks[3];
	struct profile_frame line = { .function = "main", .line = 7 };
	uint32_t path[] = { a, a }, c;
	size_t depth;

	assert_int_equal(a, b);
	assert_null(profile_add_frame(profile, &line, &c));
	assert_int_not_equal(a, c);
	assert_ptr_equal(profile->frames.data[a].function, profile->frames.data[c].function);
	assert_ptr_not_equal(profile->frames.data[a].function, name);
	assert_null(profile_add_stack(profile, path, 2, &stacks[0]));
	assert_null(profile_add_stack(profile, path, 1, &stacks[1]));
	assert_null(profile_add_stack(profile, path, 2, &stacks[2]));
	assert_int_equal(stacks[0], stacks[2]);
	assert_int_not_equal(stacks[0], stacks[1]);
	assert_null(profile_add_stack(profile, NULL, 0, &stacks[2]));
	assert_null(profile_stack_frames(profile, stacks[2], &depth));
	assert_int_equal(depth, 0);
}

static void sites_of_one_stack_add_up(void **state)
{
	cleanup(profile) struct profile *profile = new_profile();
	const int64_t small[PROFILE_COLUMNS] = { 1, 10 }, large[PROFILE_COLUMNS] = { 1, 100 };
	uint32_t frame = add_frame(profile, "f"), one, none;

	assert_null(profile_add_stack(profile, &frame, 1, &one));
	assert_null(profile_add_stack(profile, NULL, 0, &none));
	assert_null(profile_add_site(profile, one, small));
	assert_null(profile_add_site(profile, none, large));
	assert_null(profile_add_site(profile, one, small));
	assert_int_equal(profile->sites.size, 2);
	profile_sort(profile);
	assert_int_equal(profile->sites.data[0].stack, none);
	assert_int_equal(profile->sites.data[1].values[PROFILE_COUNT], 2);
	assert_int_equal(profile_total(profile, PROFILE_BYTES), 120);
	/* Also after sorting. */
	assert_null(profile_add_site(profile, one, large));
	assert_int_equal(profile->sites.size, 2);
	assert_int_equal(profile->sites.data[1].values[PROFILE_BYTES], 120);
}

/* Two calls of one function, from two lines, and a function without a name at two addresses. */
static void stacks_merge_by_name(void **state)
{
	cleanup(profile) struct profile *profile = new_profile();
	cleanup(profile) struct profile *merged = NULL;
	const int64_t values[PROFILE_COLUMNS] = { 1, 10, 2, 20 };
	struct profile_frame frames[] = { { .function = "f", .line = 1, .address = 1 },
					  { .function = "f", .line = 2, .address = 2 },
					  { .module = "/x", .offset = 16 },
					  { .module = "/x", .offset = 32 } };
	uint32_t path[2] = { add_frame(profile, "main") }, stack;

	for (size_t i = 0; i < 4; i++) {
		assert_null(profile_add_frame(profile, &frames[i], &path[1]));
		assert_null(profile_add_stack(profile, path, 2, &stack));
		assert_null(profile_add_site(profile, stack, values));
	}
	assert_null(profile_set_column(profile, PROFILE_ALL_BYTES, "alloc_space", "bytes"));
	profile->lost = 7;
	assert_null(profile_intern(profile, "x", &profile->name));
	assert_null(profile_by_name(profile, &merged));
	assert_int_equal(profile->sites.size, 4);
	assert_int_equal(merged->sites.size, 3);
	assert_int_equal(merged->sites.data[0].values[PROFILE_COUNT], 2);
	assert_int_equal(merged->sites.data[0].values[PROFILE_ALL_BYTES], 40);
	assert_int_equal(profile_total(merged, PROFILE_BYTES), 40);
	assert_true(profile_has(merged, PROFILE_ALL_BYTES));
	assert_int_equal(merged->lost, 7);
	assert_string_equal(merged->name, "x");
}

static void sums_stop_at_their_ends(void **state)
{
	assert_int_equal(profile_sum(INT64_MAX, 1), INT64_MAX);
	assert_int_equal(profile_sum(INT64_MIN, -1), INT64_MIN);
	assert_int_equal(profile_sum(INT64_MAX, INT64_MIN), -1);
}

static void many_are_found_again(void **state)
{
	cleanup(profile) struct profile *profile = new_profile();
	char name[32];

	for (unsigned pass = 0; pass < 2; pass++) {
		for (unsigned i = 0; i < 20000; i++) {
			snprintf(name, sizeof(name), "function_%u", i);
			assert_int_equal(add_frame(profile, name), i);
		}
	}
}

static void frames_have_names(void **state)
{
	struct profile_frame frame = { .address = 0x1234 };
	char buffer[PROFILE_NAME_MAX];

	assert_string_equal(profile_frame_name(&frame, buffer), "[0x1234]");
	frame.module = "/usr/lib/libz.so";
	assert_string_equal(profile_frame_name(&frame, buffer), "[libz.so]");
	frame.offset = 0x10;
	assert_string_equal(profile_frame_name(&frame, buffer), "[libz.so+0x10]");
	frame.function = "inflate";
	assert_string_equal(profile_frame_name(&frame, buffer), "inflate");
	frame = (struct profile_frame){ 0 };
	assert_string_equal(profile_frame_name(&frame, buffer), "[unknown]");
}

static void columns_come_and_go(void **state)
{
	cleanup(profile) struct profile *profile = new_profile();

	assert_true(profile_has(profile, PROFILE_BYTES));
	assert_false(profile_has(profile, PROFILE_ALL_BYTES));
	assert_null(profile_set_column(profile, PROFILE_ALL_BYTES, "alloc_space", "bytes"));
	assert_string_equal(profile->columns[PROFILE_ALL_BYTES].unit, "bytes");
	assert_null(profile_set_column(profile, PROFILE_COUNT, NULL, NULL));
	assert_false(profile_has(profile, PROFILE_COUNT));
}

/* Sorted by all that was allocated, where that is the weight; also its copy by name. */
static void sites_go_by_weight(void **state)
{
	cleanup(profile) struct profile *profile = new_profile();
	cleanup(profile) struct profile *merged = NULL;
	const int64_t kept[PROFILE_COLUMNS] = { [PROFILE_BYTES] = 50, [PROFILE_ALL_BYTES] = 60 };
	const int64_t churn[PROFILE_COLUMNS] = { [PROFILE_BYTES] = 1, [PROFILE_ALL_BYTES] = 900 };
	uint32_t frame = add_frame(profile, "kept"), stack;

	assert_null(profile_set_column(profile, PROFILE_ALL_BYTES, "alloc_space", "bytes"));
	assert_null(profile_add_stack(profile, &frame, 1, &stack));
	assert_null(profile_add_site(profile, stack, kept));
	frame = add_frame(profile, "churn");
	assert_null(profile_add_stack(profile, &frame, 1, &stack));
	assert_null(profile_add_site(profile, stack, churn));
	profile_sort(profile);
	assert_int_equal(profile->sites.data[0].values[PROFILE_BYTES], 50);
	assert_int_equal(profile_weight_count(profile), PROFILE_COUNT);
	profile->weight = PROFILE_ALL_BYTES;
	assert_int_equal(profile_weight_count(profile), PROFILE_ALL_COUNT);
	assert_null(profile_by_name(profile, &merged));
	assert_int_equal(merged->weight, PROFILE_ALL_BYTES);
	assert_int_equal(merged->sites.data[0].values[PROFILE_ALL_BYTES], 900);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(equal_things_are_one), cmocka_unit_test(sites_of_one_stack_add_up),
		cmocka_unit_test(stacks_merge_by_name), cmocka_unit_test(sums_stop_at_their_ends),
		cmocka_unit_test(many_are_found_again), cmocka_unit_test(frames_have_names),
		cmocka_unit_test(columns_come_and_go),	cmocka_unit_test(sites_go_by_weight),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
