/* Walking heaps of glibc's malloc that were built to its layouts, then broken in every way. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "heap_builder.h"

#define SEEDS 4

struct compared {
	const struct built_heap *built;
	size_t at;
};

static bool compare(void *data, const struct heap_chunk *chunk)
{
	struct compared *compared = data;
	const struct expected_block *expected;

	assert_true(compared->at < compared->built->blocks.size);
	expected = &compared->built->blocks.data[compared->at++];
	assert_int_equal(chunk->address, expected->address);
	assert_int_equal(chunk->size, expected->size);
	assert_int_equal(chunk->state, expected->state);
	assert_int_equal(chunk->mmapped, expected->mmapped);
	if (!expected->mmapped)
		assert_int_equal(chunk->arena, expected->arena);
	return true;
}

static void figures_are(const struct heap_figures *a, const struct heap_figures *b)
{
	assert_int_equal(a->system, b->system);
	assert_int_equal(a->system_max, b->system_max);
	assert_int_equal(a->in_use, b->in_use);
	assert_int_equal(a->in_use_chunks, b->in_use_chunks);
	assert_int_equal(a->free, b->free);
	assert_int_equal(a->free_chunks, b->free_chunks);
	assert_int_equal(a->fast, b->fast);
	assert_int_equal(a->fast_chunks, b->fast_chunks);
	assert_int_equal(a->tcache, b->tcache);
	assert_int_equal(a->tcache_chunks, b->tcache_chunks);
	assert_int_equal(a->top, b->top);
}

static void walk_built(const struct heap_shape *shape, uint64_t seed)
{
	struct built_heap built;
	struct compared compared = { &built, 0 };
	struct heap *heap = NULL;

	heap_build(&built, shape, seed);
	assert_null(heap_open(built.target, NULL, &heap));
	vec_for_each (issue, &heap->issues)
		fail_msg("%s, %u bits: %s", shape->versions, shape->arch->bits, issue->text);
	assert_false(heap->is_inconsistent);
	assert_int_equal(heap->arenas.size, BUILT_ARENAS);
	heap_walk(heap, compare, &compared);
	assert_int_equal(compared.at, built.blocks.size);
	for (unsigned i = 0; i < BUILT_ARENAS; i++)
		figures_are(&heap->arenas.data[i].figures, &built.figures[i]);
	assert_int_equal(heap->mmapped_count, built.mmapped_count);
	assert_int_equal(heap->mmapped_bytes, built.mmapped_bytes);
	heap_destroy(heap);
	built_heap_deinit(&built);
}

static void test_layouts(void **state)
{
	for (unsigned i = 0; i < heap_shape_count; i++)
		for (uint64_t seed = 1; seed <= SEEDS; seed++)
			walk_built(&heap_shapes[i], seed);
}

static void test_find(void **state)
{
	struct built_heap built;
	struct heap *heap = NULL;
	struct heap_chunk chunk;

	heap_build(&built, &heap_shapes[1], 7);
	assert_null(heap_open(built.target, NULL, &heap));
	vec_for_each (block, &built.blocks) {
		assert_true(heap_find(heap, block->address, &chunk));
		assert_int_equal(chunk.address, block->address);
		assert_true(heap_find(heap, block->address + block->size - 1, &chunk));
		assert_int_equal(chunk.address, block->address);
		assert_int_equal(chunk.state, block->state);
	}
	assert_false(heap_find(heap, 0, &chunk));
	assert_false(heap_find(heap, UINT64_MAX, &chunk));
	assert_false(heap_find(heap, built.regions[1].start - 1, &chunk));
	assert_false(heap_find(heap, built.arenas[1], &chunk));
	assert_false(heap_find(heap, built.arenas[0], &chunk));
	heap_destroy(heap);
	built_heap_deinit(&built);
}

struct contents {
	const struct built_heap *built;
	size_t count;
};

static struct error *check_contents(void *data, const struct heap_chunk *chunk, const void *bytes,
				    size_t size)
{
	struct contents *contents = data;
	uint64_t word = 0;

	assert_int_equal(chunk->state, HEAP_IN_USE);
	assert_true(size == 64 || size == chunk->size);
	memcpy(&word, bytes, 8);
	assert_int_equal(word, built_load(contents->built, chunk->address));
	contents->count++;
	return NULL;
}

static void test_contents(void **state)
{
	struct built_heap built;
	struct contents contents = { &built, 0 };
	struct heap *heap = NULL;
	size_t in_use = 0;

	heap_build(&built, &heap_shapes[0], 9);
	vec_for_each (block, &built.blocks) {
		if (block->state != HEAP_IN_USE)
			continue;
		built_store(&built, block->address, block->address * 3);
		in_use++;
	}
	assert_null(heap_open(built.target, NULL, &heap));
	assert_null(heap_read_blocks(heap, 64, check_contents, &contents));
	assert_int_equal(contents.count, in_use);
	heap_destroy(heap);
	built_heap_deinit(&built);
}

/* ---- broken heaps ---- */

static bool in_order(void *data, const struct heap_chunk *chunk)
{
	uint64_t *last = data;

	assert_true(chunk->address > *last);
	assert_true(chunk->size < UINT32_MAX);
	*last = chunk->address;
	return true;
}

/* Whatever stands there: an answer or an error, and an answer that holds together. */
static bool survives(struct built_heap *built)
{
	struct heap *heap = NULL;
	struct error *error = heap_open(built->target, NULL, &heap);
	bool complained = error || heap->is_inconsistent;
	uint64_t last = 0;

	if (heap)
		heap_walk(heap, in_order, &last);
	heap_destroy(heap);
	error_destroy(error);
	return complained;
}

static const uint64_t bad_words[] = {
	0, 1, 7, 8, 0x10, 0x11, 0x21, 0x1000, 0x20fff, 0xfffffff0, 0x7fffffffffffffff, UINT64_MAX,
};

#define BAD_WORDS (sizeof(bad_words) / sizeof(bad_words[0]))

/* Each size field in turn: none goes unnoticed but what is as good as the one before. */
static void break_sizes(const struct heap_shape *shape)
{
	unsigned word = shape->arch->word_size;
	struct built_heap built;
	size_t noticed = 0, tried = 0;

	heap_build(&built, shape, 3);
	for (size_t i = 0; i < built.blocks.size; i += 1 + built_random(&built, 40)) {
		const struct expected_block *block = &built.blocks.data[i];
		uint64_t at = block->address - word, good = built_load(&built, at);
		uint64_t bad = i % 2 ? bad_words[built_random(&built, BAD_WORDS)]
				     : built_random(&built, UINT64_MAX);

		built_store(&built, at, bad);
		if (built_load(&built, at) != good) {
			tried++;
			noticed += survives(&built);
		}
		built_store(&built, at, good);
	}
	assert_true(tried > 20);
	assert_true(noticed * 100 >= tried * 95);
	assert_false(survives(&built));
	built_heap_deinit(&built);
}

static void test_broken_sizes(void **state)
{
	for (unsigned i = 0; i < heap_shape_count; i += 3)
		break_sizes(&heap_shapes[i]);
}

/* prev_size, fd and bk of free chunks, links of fast bins and caches. */
static void break_links(const struct heap_shape *shape)
{
	unsigned word = shape->arch->word_size;
	struct built_heap built;
	size_t noticed = 0, tried = 0;

	heap_build(&built, shape, 5);
	for (size_t i = 0; i < built.blocks.size; i += 1 + built_random(&built, 12)) {
		const struct expected_block *block = &built.blocks.data[i];
		uint64_t at = block->address, good;

		if (block->state == HEAP_FREE)
			at += built_random(&built, 2) ? word : 0;
		else if (block->state != HEAP_FAST && block->state != HEAP_TCACHE)
			continue;
		if (block->state == HEAP_FREE && built_random(&built, 3) == 0)
			at = block->address + block->size - word;
		good = built_load(&built, at);
		built_store(&built, at, 0x4141414141414141);
		tried++;
		noticed += survives(&built);
		built_store(&built, at, good);
	}
	assert_true(tried > 10);
	assert_int_equal(noticed, tried);
	built_heap_deinit(&built);
}

static void test_broken_links(void **state)
{
	break_links(&heap_shapes[0]);
	break_links(&heap_shapes[3]);
	break_links(&heap_shapes[8]);
	break_links(&heap_shapes[10]);
}

/* Every word of the administration in turn: no crash, no endless loop. */
static void test_broken_arenas(void **state)
{
	static const unsigned shapes[] = { 1, 7, 12 };

	for (unsigned i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
		const struct heap_shape *shape = &heap_shapes[shapes[i]];
		unsigned word = shape->arch->word_size;
		struct built_heap built;

		heap_build(&built, shape, 11);
		for (unsigned arena = 0; arena < BUILT_ARENAS; arena++) {
			for (unsigned at = 0; at < shape->size; at += word) {
				uint64_t address = built.arenas[arena] + at;
				uint64_t good = built_load(&built, address);

				/* All of the head and the tail, some of the bins. */
				if (at > shape->bins + 8 * word && at < shape->next && at % 64)
					continue;
				built_store(&built, address,
					    bad_words[built_random(&built, BAD_WORDS)]);
				survives(&built);
				built_store(&built, address, good);
			}
		}
		for (unsigned at = 0; at < 6 * word; at += word)
			for (size_t j = 0; j < BAD_WORDS; j++) {
				uint64_t address = built.regions[2 + j % 2].start + at;
				uint64_t good = built_load(&built, address);

				built_store(&built, address, bad_words[j]);
				survives(&built);
				built_store(&built, address, good);
			}
		assert_false(survives(&built));
		built_heap_deinit(&built);
	}
}

/* Pages of garbage where chunks were. */
static void test_garbage(void **state)
{
	for (unsigned round = 0; round < 40; round++) {
		struct built_heap built;
		uint64_t region, size;

		heap_build(&built, &heap_shapes[round % heap_shape_count], round + 100);
		region = built_random(&built, BUILT_REGIONS);
		size = built.regions[region].size;
		for (unsigned i = 0; i < 256; i++) {
			uint64_t at =
				built.regions[region].start + built_random(&built, size / 8) * 8;
			uint64_t value = built_random(&built, UINT64_MAX);

			/* Plausible at times. */
			if (i % 3 == 0)
				value &= 0xfff7;
			built_store(&built, at, value);
		}
		survives(&built);
		built_heap_deinit(&built);
	}
}

/* A corrupt chunk is said to be where it is. */
static void test_says_where(void **state)
{
	struct built_heap built;
	struct heap *heap = NULL;
	const struct expected_block *block;
	char address[32];

	heap_build(&built, &heap_shapes[1], 13);
	block = &built.blocks.data[40];
	snprintf(address, sizeof(address), "0x%llx", (unsigned long long)block->address - 16);
	built_store(&built, block->address - 8, 0xdeadbeefdeadbee9);
	assert_null(heap_open(built.target, NULL, &heap));
	assert_true(heap->is_inconsistent);
	assert_false(heap->is_changing);
	assert_true(heap->issues.size >= 1);
	assert_int_equal(heap->issues.data[0].address, block->address - 16);
	assert_non_null(strstr(heap->issues.data[0].text, address));
	heap_destroy(heap);
	built_heap_deinit(&built);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_layouts),	     cmocka_unit_test(test_find),
		cmocka_unit_test(test_contents),     cmocka_unit_test(test_broken_sizes),
		cmocka_unit_test(test_broken_links), cmocka_unit_test(test_broken_arenas),
		cmocka_unit_test(test_garbage),	     cmocka_unit_test(test_says_where),
	};

	return cmocka_run_group_tests_name("heap", tests, NULL, NULL);
}
