/* The census of built heaps against a plain count of what was built and written into it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "heap_builder.h"
#include "memprobe/census.h"
#include "memprobe/content.h"
#include "memprobe/map64.h"

struct fixture {
	struct built_heap built;
	struct heap *heap;
	uint64_t count, bytes; /* in use */
};

static void fixture_init(struct fixture *fixture, unsigned shape)
{
	heap_build(&fixture->built, &heap_shapes[shape], shape + 1);
	fixture->heap = NULL;
	fixture->count = fixture->bytes = 0;
	vec_for_each (block, &fixture->built.blocks) {
		if (block->state != HEAP_IN_USE)
			continue;
		fixture->count++;
		fixture->bytes += block->size;
	}
}

static void fixture_deinit(struct fixture *fixture)
{
	heap_destroy(fixture->heap);
	built_heap_deinit(&fixture->built);
}

/* Into the blocks in use, and zeros behind it. */
static void write_block(struct fixture *fixture, const struct expected_block *block,
			const char *text, size_t offset)
{
	uint8_t bytes[CONTENT_PREFIX] = { 0 };
	size_t size = block->size < sizeof(bytes) ? block->size : sizeof(bytes);

	if (offset + strlen(text) < size)
		memcpy(bytes + offset, text, strlen(text));
	assert_null(fake_target_write(fixture->built.target, block->address, bytes, size));
}

static void take(struct fixture *fixture, enum census_by by, uint64_t top, uint64_t contents_max,
		 struct census *ret)
{
	const struct census_options options = { by, top, contents_max };
	uint64_t count = 0, bytes = 0;

	if (!fixture->heap)
		assert_null(heap_open(fixture->built.target, NULL, &fixture->heap));
	*ret = (struct census){ 0 };
	assert_null(census_take(fixture->heap, &options, ret));
	assert_int_equal(ret->count, fixture->count);
	assert_int_equal(ret->bytes, fixture->bytes);
	assert_int_equal(ret->unread_count, 0);
	for (size_t i = 0; i < ret->groups.size; i++) {
		const struct census_group *group = &ret->groups.data[i];

		count += group->count;
		bytes += group->bytes;
		assert_true(!group->size || group->bytes == group->size * group->count);
		assert_true(i == 0 || group->bytes <= group[-1].bytes);
	}
	assert_true(ret->groups.size <= ret->group_count);
	if (ret->groups.size < ret->group_count)
		return;
	assert_int_equal(count + ret->single_count, ret->count);
	assert_int_equal(bytes + ret->single_bytes, ret->bytes);
}

static const struct census_group *group_of(const struct census *census, const char *key)
{
	vec_for_each (group, &census->groups)
		if (!strcmp(group->key, key))
			return group;
	return NULL;
}

static void by_size_and_type(void **state)
{
	for (unsigned shape = 0; shape < heap_shape_count; shape++) {
		struct fixture fixture;
		struct census census;

		fixture_init(&fixture, shape);
		take(&fixture, CENSUS_BY_SIZE, 0, 0, &census);
		vec_for_each (group, &census.groups) {
			uint64_t count = 0;

			vec_for_each (block, &fixture.built.blocks)
				count += block->state == HEAP_IN_USE && block->size == group->size;
			assert_int_equal(group->count, count);
		}
		census_deinit(&census);
		take(&fixture, CENSUS_BY_TYPE, 3, 0, &census);
		assert_true(census.groups.size <= 3);
		vec_for_each (group, &census.groups)
			assert_null(group->type);
		census_deinit(&census);
		fixture_deinit(&fixture);
	}
}

static void by_content(void **state)
{
	for (unsigned shape = 0; shape < heap_shape_count; shape++) {
		struct fixture fixture;
		struct census census;
		const struct census_group *group;
		uint64_t requests = 0, numbers = 0, behind = 0, zeros = 0, i = 0;

		fixture_init(&fixture, shape);
		vec_for_each (block, &fixture.built.blocks) {
			char text[64];

			if (block->state != HEAP_IN_USE)
				continue;
			snprintf(text, sizeof(text), "job %u of 16", (unsigned)i);
			i++;
			if (block->size < 40)
				write_block(&fixture, block, "", 0), zeros++;
			else if (i % 3 == 0)
				write_block(&fixture, block, "GET /comm HTTP/1.1\r\nHost", 0),
					requests++;
			else if (i % 3 == 1)
				write_block(&fixture, block, text, 0), numbers++;
			else
				write_block(&fixture, block, "behind 16", 16), behind++;
		}
		assert_true(requests > 1 && numbers > 1 && behind > 1 && zeros > 1);
		take(&fixture, CENSUS_BY_CONTENT, 0, 0, &census);
		assert_int_equal(census.missed_max, 0);
		group = group_of(&census, "\"GET /comm HTTP/1.1\"");
		assert_int_equal(group->count, requests);
		/* A number that never differs stays. */
		group = group_of(&census, "\"job # of 16\"");
		assert_int_equal(group->count, numbers);
		group = group_of(&census, "+16 \"behind 16\"");
		assert_int_equal(group->count, behind);
		group = group_of(&census, "(zeros)");
		assert_int_equal(group->count, zeros);
		census_deinit(&census);
		fixture_deinit(&fixture);
	}
}

/* More contents than are kept: what shows is exact, and what may lack is said. */
static void too_many_contents(void **state)
{
	for (unsigned shape = 0; shape < heap_shape_count; shape++) {
		struct fixture fixture;
		struct census census;
		const struct census_group *group;
		uint64_t many = 0, i = 0;

		fixture_init(&fixture, shape);
		vec_for_each (block, &fixture.built.blocks) {
			char text[16] = "xxxxxxxxxxx";

			if (block->state != HEAP_IN_USE)
				continue;
			if (i++ % 2 || block->size < sizeof(text)) {
				write_block(&fixture, block, "same for all", 0);
				many += block->size > strlen("same for all");
				continue;
			}
			text[i % 11] = 'a' + i / 11 % 20;
			text[(i + 5) % 11] = 'A' + i / 220;
			write_block(&fixture, block, text, 0);
		}
		take(&fixture, CENSUS_BY_CONTENT, 0, 8, &census);
		assert_true(census.missed_max > 0);
		assert_true(census.group_count <= 8);
		group = group_of(&census, "\"same for all\"");
		assert_non_null(group);
		assert_int_equal(group->count, many);
		census_deinit(&census);
		fixture_deinit(&fixture);
	}
}

/* ---- what a block begins with ---- */

static void describe(struct fixture *fixture, const void *bytes, size_t size, char *name)
{
	struct content content;

	content_describe(fixture->heap, bytes, size, 0, &content);
	content_name(fixture->heap, &content, bytes, 0, name);
}

static void names_of_contents(void **state)
{
	static const struct {
		const char *bytes;
		size_t size;
		const char *name;
	} cases[] = {
		{ "abcd", 5, "\"abcd\"" },
		{ "abcd", 4, "\"abcd\"" },
		{ "abcdefg\1", 8, "0x167666564636261" },
		{ "abcdefgh\1", 9, "\"abcdefgh\"" },
		{ "line one\nline two", 17, "\"line one\"" },
		{ "a\tb c", 6, "\"a\tb c\"" },
		{ "gr\xc3\xbc\xc3\x9f dich", 13, "\"gr\xc3\xbc\xc3\x9f dich\"" },
		{ "abcdefghijk\xc3\x28", 13, "\"abcdefghijk\"" },
		/* What may be left of another block, and what is not. */
		{ "\0\0\0\0\0\0\0\0price 30\0\0\0\0\0\0\0\0unrouted request 7", 42,
		  "+24 \"unrouted request 7\"" },
		{ "\0\0\0\0\0\0\0\0price 30\0\0\0\0\0\0\0\0another text", 37, "+8 \"price 30\"" },
		{ "\0\0\0\0\0\0\0\0one line\nand a much longer one", 38, "+8 \"one line\"" },
		{ "\0\0\0\0text at four\0\0\0\0", 20, "+4 \"text at four\"" },
		{ "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 16, "(zeros)" },
		{ "", 0, "(zeros)" },
		{ "abc", 4, "(binary)" },
		{ "0123456789012345678901234567890123456789012345678901234567890", 60,
		  "\"012345678901234567890123456789012345678901234567\"..." },
		{ "123456789012345678901234567890123456789012345678", 49,
		  "\"123456789012345678901234567890123456789012345678\"" },
	};
	struct fixture fixture;

	for (unsigned shape = 0; shape < heap_shape_count; shape++) {
		if (heap_shapes[shape].arch->word_size != 8)
			continue;
		fixture_init(&fixture, shape);
		assert_null(heap_open(fixture.built.target, NULL, &fixture.heap));
		for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
			char name[CONTENT_NAME];

			describe(&fixture, cases[i].bytes, cases[i].size, name);
			assert_string_equal(name, cases[i].name);
		}
		fixture_deinit(&fixture);
		break;
	}
}

/* Any bytes: names end where they must. */
static void any_bytes(void **state)
{
	static const unsigned firsts[] = { '0', ' ', '8', 0 }, counts[] = { 10, 95, 4, 256 };

	for (unsigned shape = 0; shape < heap_shape_count; shape++) {
		struct fixture fixture;

		fixture_init(&fixture, shape);
		assert_null(heap_open(fixture.built.target, NULL, &fixture.heap));
		for (unsigned i = 0; i < 3000; i++) {
			size_t size = built_random(&fixture.built, CONTENT_PREFIX + 1);
			cleanup(free) uint8_t *bytes = malloc(size + 1);
			uint64_t kind = built_random(&fixture.built, 4);
			struct content content;
			char name[CONTENT_NAME];

			for (size_t j = 0; j < size; j++)
				bytes[j] =
					firsts[kind] + built_random(&fixture.built, counts[kind]);
			bytes = realloc(bytes, size ? size : 1);
			content_describe(fixture.heap, bytes, size, i % 3 * 4, &content);
			content_name(fixture.heap, &content, bytes, i, name);
			assert_true(strlen(name) > 0 && strlen(name) < CONTENT_NAME);
		}
		fixture_deinit(&fixture);
	}
}

/* ---- the map ---- */

static void maps_of_numbers(void **state)
{
	struct map64 map = { 0 };

	assert_true(map64_get(&map, 0) == MAP64_NONE);
	for (unsigned round = 0; round < 2; round++) {
		for (uint64_t i = 0; i < 10000; i++)
			assert_null(map64_put(&map, i * 4096, i + round));
		assert_int_equal(map.size, 10000);
		for (uint64_t i = 0; i < 10000; i++)
			assert_int_equal(map64_get(&map, i * 4096), i + round);
		assert_true(map64_get(&map, 1) == MAP64_NONE);
	}
	map64_clear(&map);
	assert_int_equal(map.size, 0);
	assert_null(map64_put(&map, UINT64_MAX, 0));
	assert_int_equal(map64_get(&map, UINT64_MAX), 0);
	assert_true(map64_get(&map, 4096) == MAP64_NONE);
	map64_deinit(&map);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(by_size_and_type),  cmocka_unit_test(by_content),
		cmocka_unit_test(too_many_contents), cmocka_unit_test(names_of_contents),
		cmocka_unit_test(any_bytes),	     cmocka_unit_test(maps_of_numbers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
