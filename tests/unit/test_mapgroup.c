/* Sums over mappings, and what changed between two looks. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "memprobe/mapgroup.h"

static struct mapping_vec look;

static void add(struct mapping_vec *maps, uint64_t start, uint64_t end, enum mapping_type type,
		uint64_t rss, const char *path)
{
	struct mapping mapping = { .start = start,
				   .end = end,
				   .type = type,
				   .usage_known = true,
				   .usage = { .rss = rss, .pss = rss / 2, .private_dirty = rss },
				   .path = strdup(path) };

	assert_null(mapping_vec_append(maps, &mapping));
}

static int teardown(void **state)
{
	mappings_deinit(&look);
	return 0;
}

static void types_are_summed_by_rss(void **state)
{
	struct map_group_vec groups = { 0 };
	struct map_sum total;

	add(&look, 0x1000, 0x3000, MAPPING_HEAP, 0x1000, "[heap]");
	add(&look, 0x4000, 0x8000, MAPPING_ANON, 0x2000, "");
	add(&look, 0x9000, 0xa000, MAPPING_ANON, 0x1000, "");
	add(&look, 0xb000, 0xc000, MAPPING_GUARD, 0, "");
	assert_null(maps_by_type(&look, &groups));
	assert_int_equal(groups.size, 3);
	assert_string_equal(groups.data[0].key, "anon");
	assert_int_equal(groups.data[0].sum.count, 2);
	assert_int_equal(groups.data[0].sum.size, 0x5000);
	assert_int_equal(groups.data[0].sum.rss, 0x3000);
	assert_string_equal(groups.data[1].key, "heap");
	assert_string_equal(groups.data[2].key, "guard");
	total = maps_total(&look);
	assert_int_equal(total.count, 4);
	assert_int_equal(total.rss, 0x4000);
	assert_int_equal(total.pss, 0x2000);
	map_group_vec_deinit(&groups);
}

static void files_and_sizes_are_grouped(void **state)
{
	struct map_group_vec groups = { 0 };

	add(&look, 0x1000, 0x2000, MAPPING_LIB, 0x1000, "/lib/b");
	add(&look, 0x2000, 0x3000, MAPPING_LIB, 0x1000, "/lib/a");
	add(&look, 0x4000, 0x5000, MAPPING_LIB, 0x1000, "/lib/b");
	add(&look, 0x6000, 0x9000, MAPPING_ANON, 0, "");
	assert_null(maps_by_file(&look, &groups));
	assert_int_equal(groups.size, 3);
	assert_string_equal(groups.data[0].key, "/lib/b");
	assert_int_equal(groups.data[0].sum.count, 2);
	assert_string_equal(groups.data[1].key, "/lib/a");
	assert_string_equal(groups.data[2].key, "[anon]");
	map_group_vec_deinit(&groups);

	assert_null(maps_by_size(&look, &groups));
	assert_int_equal(groups.size, 2);
	assert_int_equal(groups.data[0].each, 0x3000);
	assert_int_equal(groups.data[1].each, 0x1000);
	assert_int_equal(groups.data[1].sum.count, 3);
	map_group_vec_deinit(&groups);
}

static int64_t added_up(const struct map_change_vec *changes)
{
	int64_t size = 0;

	vec_for_each (change, changes)
		size += change->size;
	return size;
}

static void changes_are_found_and_add_up(void **state)
{
	struct mapping_vec now = { 0 };
	struct map_change_vec changes = { 0 };

	add(&look, 0x1000, 0x3000, MAPPING_HEAP, 0x1000, "[heap]");
	add(&look, 0x5000, 0x6000, MAPPING_ANON, 0x1000, "");
	add(&look, 0x8000, 0xa000, MAPPING_ANON, 0x2000, "");
	add(&look, 0xc000, 0xe000, MAPPING_ANON, 0x1000, "");
	add(&now, 0x1000, 0x4000, MAPPING_HEAP, 0x3000, "[heap]"); /* at its end */
	add(&now, 0x7000, 0xa000, MAPPING_ANON, 0x2000, "");	   /* at its start */
	add(&now, 0xc000, 0xe000, MAPPING_ANON, 0x1000, "");	   /* not at all */
	add(&now, 0x10000, 0x11000, MAPPING_ANON, 0x800, "");
	assert_null(maps_compare(&look, &now, &changes));
	assert_int_equal(changes.size, 4);
	assert_int_equal(changes.data[0].kind, MAP_GREW);
	assert_int_equal(changes.data[0].rss, 0x2000);
	assert_int_equal(changes.data[0].size, 0x1000);
	assert_int_equal(changes.data[1].kind, MAP_NEW);
	assert_int_equal(changes.data[1].mapping->start, 0x10000);
	assert_int_equal(changes.data[2].kind, MAP_GREW);
	assert_int_equal(changes.data[2].mapping->start, 0x7000);
	assert_int_equal(changes.data[3].kind, MAP_GONE);
	assert_int_equal(changes.data[3].rss, -0x1000);
	assert_int_equal(added_up(&changes), maps_total(&now).size - maps_total(&look).size);
	map_change_vec_deinit(&changes);
	mappings_deinit(&now);
}

static void splits_and_merges_add_up(void **state)
{
	struct mapping_vec now = { 0 };
	struct map_change_vec changes = { 0 };

	add(&look, 0x1000, 0x9000, MAPPING_ANON, 0x8000, "");
	add(&now, 0x1000, 0x3000, MAPPING_ANON, 0x2000, "");
	add(&now, 0x3000, 0x4000, MAPPING_GUARD, 0x1000, "");
	add(&now, 0x5000, 0x9000, MAPPING_ANON, 0x4000, "");
	assert_null(maps_compare(&look, &now, &changes));
	assert_int_equal(added_up(&changes), -0x1000);
	map_change_vec_deinit(&changes);
	assert_null(maps_compare(&now, &look, &changes));
	assert_int_equal(added_up(&changes), 0x1000);
	map_change_vec_deinit(&changes);
	assert_null(maps_compare(&now, &now, &changes));
	assert_int_equal(changes.size, 0);
	map_change_vec_deinit(&changes);
	mappings_deinit(&now);
}

static void add_arena(struct mapping_vec *maps, uint64_t start, uint64_t middle, uint64_t end,
		      uint64_t rss)
{
	if (start < middle) {
		add(maps, start, middle, MAPPING_ARENA, rss, "");
		maps->data[maps->size - 1].perms = PERM_READ | PERM_WRITE;
	}
	if (middle < end)
		add(maps, middle, end, MAPPING_ARENA, 0, "");
}

static void arenas_grow_into_their_reserve(void **state)
{
	struct mapping_vec now = { 0 };
	struct map_change_vec changes = { 0 };

	add_arena(&look, 0x10000, 0x12000, 0x20000, 0x1000);
	add_arena(&look, 0x30000, 0x38000, 0x40000, 0x8000);
	add_arena(&look, 0x50000, 0x51000, 0x60000, 0x1000);
	add(&look, 0x60000, 0x61000, MAPPING_GUARD, 0, "");
	add_arena(&now, 0x10000, 0x18000, 0x20000, 0x7000); /* grew */
	add_arena(&now, 0x30000, 0x32000, 0x40000, 0x2000); /* was trimmed */
	add_arena(&now, 0x50000, 0x60000, 0x60000, 0x9000); /* used up */
	add(&now, 0x60000, 0x61000, MAPPING_GUARD, 0, "");
	add_arena(&now, 0x70000, 0x71000, 0x80000, 0x800); /* new */
	assert_null(maps_compare(&look, &now, &changes));
	assert_int_equal(changes.size, 4);
	for (size_t i = 0; i < 4; i++) {
		static const struct {
			uint64_t start;
			enum map_change_kind kind;
			int64_t rss, size;
		} expected[] = {
			{ 0x50000, MAP_GREW, 0x8000, 0 },
			{ 0x10000, MAP_GREW, 0x6000, 0 },
			{ 0x70000, MAP_NEW, 0x800, 0x10000 },
			{ 0x30000, MAP_SHRANK, -0x6000, 0 },
		};

		assert_int_equal(changes.data[i].mapping->start, expected[i].start);
		assert_int_equal(changes.data[i].kind, expected[i].kind);
		assert_int_equal(changes.data[i].rss, expected[i].rss);
		assert_int_equal(changes.data[i].size, expected[i].size);
	}
	assert_int_equal(added_up(&changes), maps_total(&now).size - maps_total(&look).size);
	map_change_vec_deinit(&changes);
	mappings_deinit(&now);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(types_are_summed_by_rss, teardown),
		cmocka_unit_test_teardown(files_and_sizes_are_grouped, teardown),
		cmocka_unit_test_teardown(changes_are_found_and_add_up, teardown),
		cmocka_unit_test_teardown(splits_and_merges_add_up, teardown),
		cmocka_unit_test_teardown(arenas_grow_into_their_reserve, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
