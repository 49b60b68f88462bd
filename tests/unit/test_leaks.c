/* The leak search on built heaps, against a plain search over the same pointers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "heap_builder.h"
#include "memprobe/leaks.h"

#define ROOT_PAGES 2u

/* What the search should find out. */
struct model {
	struct built_heap built;
	uint64_t root; /* address of a mapping that is a root */
	size_t (*edges)[2];
	size_t edge_count;
	size_t *roots;
	size_t root_count;
	bool *reached;
};

static unsigned word_of(const struct model *model)
{
	return model->built.shape->arch->word_size;
}

static const struct expected_block *block_of(const struct model *model, size_t i)
{
	return &model->built.blocks.data[i];
}

static bool is_in_use(const struct model *model, size_t i)
{
	return block_of(model, i)->state == HEAP_IN_USE;
}

static void add_root_segment(struct model *model)
{
	model->root = word_of(model) == 8 ? 0x7e0000000000 : 0xe0000000;
	assert_null(fake_target_add_segment(model->built.target,
					    &(struct fake_segment){
						    .start = model->root,
						    .size = ROOT_PAGES * PAGE_SIZE,
						    .perms = PERM_READ | PERM_WRITE,
					    }));
}

static void write_word(struct model *model, uint64_t address, uint64_t value)
{
	assert_null(fake_target_write(model->built.target, address, &value, word_of(model)));
}

/* A pointer to the block, somewhere into it, or right behind it. */
static uint64_t pointer_to(struct model *model, size_t i)
{
	const struct expected_block *block = block_of(model, i);

	switch (built_random(&model->built, 8)) {
	case 0:
		return block->address + block->size;
	case 1:
		return block->address + block->size - 1;
	case 2:
	case 3:
		return block->address + built_random(&model->built, block->size);
	default:
		return block->address;
	}
}

/* One between two blocks: too far behind the one, before the other. */
static uint64_t pointer_behind(struct model *model, size_t i)
{
	const struct expected_block *block = block_of(model, i);

	return block->address + block->size + 1 + built_random(&model->built, word_of(model) - 1);
}

static void build_model(struct model *model, const struct heap_shape *shape, uint64_t seed)
{
	size_t count, each = seed % 3 ? 1 : 2;

	*model = (struct model){ 0 };
	heap_build(&model->built, shape, seed);
	add_root_segment(model);
	count = model->built.blocks.size;
	model->edges = calloc(count * 2, sizeof(*model->edges));
	model->roots = calloc(count, sizeof(*model->roots));
	model->reached = calloc(count, sizeof(*model->reached));
	for (size_t i = 0; i < count; i++) {
		const struct expected_block *block = block_of(model, i);
		size_t words = block->size / word_of(model);

		if (!is_in_use(model, i) || words < 2)
			continue;
		for (size_t j = 0; j < each; j++) {
			/* One word in each half: none overwrites the other. */
			size_t at = j * (words / 2) + built_random(&model->built, words / 2);
			size_t to = built_random(&model->built, count);
			uint64_t address = block->address + at * word_of(model);

			if (!built_random(&model->built, 8)) {
				write_word(model, address, pointer_behind(model, to));
				continue;
			}
			write_word(model, address, pointer_to(model, to));
			model->edges[model->edge_count][0] = i;
			model->edges[model->edge_count++][1] = to;
		}
	}
	for (size_t i = 0; i < 20; i++) {
		size_t to = built_random(&model->built, count);

		write_word(model, model->root + i * 64, pointer_to(model, to));
		model->roots[model->root_count++] = to;
	}
	for (size_t i = 0; i < count; i++)
		write_word(model, model->root + PAGE_SIZE + i % 100 * word_of(model),
			   pointer_behind(model, i));
}

static void search_plainly(struct model *model)
{
	bool changed = true;

	for (size_t i = 0; i < model->root_count; i++)
		model->reached[model->roots[i]] = is_in_use(model, model->roots[i]);
	while (changed) {
		changed = false;
		for (size_t i = 0; i < model->edge_count; i++) {
			size_t from = model->edges[i][0], to = model->edges[i][1];

			if (!model->reached[from] || model->reached[to] || !is_in_use(model, to))
				continue;
			model->reached[to] = changed = true;
		}
	}
}

/* Whether another leaked block points to it. */
static bool is_pointed_to(const struct model *model, size_t i)
{
	for (size_t j = 0; j < model->edge_count; j++)
		if (model->edges[j][1] == i && model->edges[j][0] != i &&
		    !model->reached[model->edges[j][0]])
			return true;
	return false;
}

static void result_is(const struct model *model, const struct heap *heap,
		      const struct leak_result *result)
{
	uint64_t live = 0, leaked = 0, owned = 0, bytes = 0;

	for (size_t i = 0; i < model->built.blocks.size; i++) {
		const struct expected_block *block = block_of(model, i);
		struct leak leak;

		if (!is_in_use(model, i))
			continue;
		if (model->reached[i]) {
			live++;
			continue;
		}
		assert_true(leaked < result->leaks.size);
		leak_get(heap, result, leaked++, &leak);
		assert_int_equal(leak.address, block->address);
		assert_int_equal(leak.size, block->size);
		/* Direct are those that nothing leaked points to, and one of a cycle. */
		assert_true(leak.indirect || leak.cyclic == is_pointed_to(model, i));
		assert_true(!leak.indirect || is_pointed_to(model, i));
	}
	assert_int_equal(result->live_count, live);
	assert_int_equal(result->leaked_count, leaked);
	assert_int_equal(result->leaks.size, leaked);
	for (size_t i = 0; i < result->leaks.size; i++) {
		struct leak leak;

		leak_get(heap, result, i, &leak);
		owned += leak.indirect ? 0 : 1 + leak.indirect_count;
		bytes += leak.indirect ? 0 : leak.size + leak.indirect_bytes;
	}
	assert_int_equal(owned, leaked);
	assert_int_equal(bytes, result->leaked_bytes);
}

static void find(struct model *model, bool prescan, unsigned workers)
{
	cleanup(leak_prescan) struct leak_prescan *scan = NULL;
	struct heap_options heap_options = { 0 };
	struct leak_options options = { .workers = workers };
	struct leak_result result = { 0 };
	struct heap *heap = NULL;

	if (prescan) {
		assert_null(leak_prescan_create(&scan));
		heap_options.observer = leak_prescan_observer(scan);
		options.prescan = scan;
	}
	assert_null(heap_open(model->built.target, &heap_options, &heap));
	assert_false(heap->is_inconsistent);
	assert_null(leaks_find(heap, &options, &result));
	result_is(model, heap, &result);
	leak_result_deinit(&result);
	heap_destroy(heap);
}

static void check_chain(struct model *model, size_t i)
{
	struct retain_step_vec chain = { 0 }, referrers = { 0 };
	struct heap *heap = NULL;
	struct heap_chunk chunk;

	assert_null(heap_open(model->built.target, NULL, &heap));
	assert_true(heap_find(heap, block_of(model, i)->address, &chunk));
	assert_null(leaks_retain(heap, NULL, chunk.index, &chain, &referrers));
	assert_true((chain.size > 0) == model->reached[i]);
	/* Each step points into the next one's block. */
	for (size_t j = 0; j < chain.size; j++) {
		const struct retain_step *step = &chain.data[j];
		struct heap_chunk to;
		uint64_t value;

		assert_true((step->kind == ROOT_MEMORY) == (j == 0));
		assert_null(target_read_word(model->built.target, step->at, &value));
		assert_true(heap_find(
			heap, j + 1 < chain.size ? chain.data[j + 1].block : chunk.address, &to));
		assert_in_range(value, to.address, to.address + to.size);
	}
	retain_step_vec_deinit(&chain);
	retain_step_vec_deinit(&referrers);
	heap_destroy(heap);
}

static void test_leaks(void **state)
{
	for (uint64_t seed = 1; seed <= 24; seed++) {
		struct model model;

		build_model(&model, &heap_shapes[seed % heap_shape_count], seed);
		search_plainly(&model);
		find(&model, false, 1);
		find(&model, false, 3);
		find(&model, true, 1);
		find(&model, true, 3);
		for (size_t i = 0; i < model.built.blocks.size; i += 97)
			if (is_in_use(&model, i))
				check_chain(&model, i);
		built_heap_deinit(&model.built);
		free(model.edges);
		free(model.roots);
		free(model.reached);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_leaks),
	};

	return cmocka_run_group_tests_name("leaks", tests, NULL, NULL);
}
