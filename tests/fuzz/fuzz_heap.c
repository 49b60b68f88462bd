/*
 * libFuzzer: heaps of every layout of glibc's malloc with words overwritten.
 *
 * The first byte chooses the layout, the second one the heap. Then follow changes of 5 bytes: what
 * is changed (place_of()), which one of them (two bytes), and to what (value_of()).
 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "../unit/heap_builder.h"
#include "memprobe/leaks.h"
#include "memprobe/num.h"
#include "memprobe/trim_forecast.h"

#define SEEDS	    4u
#define SHAPES_MAX  32u
#define CHANGES_MAX 256u

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

struct change {
	uint64_t address, good;
};

static struct built_heap *heap_of(unsigned shape, unsigned seed)
{
	static struct built_heap heaps[SHAPES_MAX][SEEDS];
	struct built_heap *built = &heaps[shape][seed];

	if (!built->target)
		heap_build(built, &heap_shapes[shape], seed + 1);
	return built;
}

static uint64_t word_in(const struct built_region *region, unsigned word, uint64_t index)
{
	return region->start + index * word % region->size;
}

/* Any word that the walk looks at, or may come to look at. */
static uint64_t place_of(const struct built_heap *built, unsigned kind, unsigned which)
{
	const struct expected_block *block = &built->blocks.data[which % built->blocks.size];
	const struct heap_shape *shape = built->shape;
	unsigned word = shape->arch->word_size;

	switch (kind % 10) {
	case 0:
		return block->address - word;
	case 1:
		return block->address - 2 * word;
	case 2:
		return block->address;
	case 3:
		return block->address + word;
	case 4: /* the arena but for its bins */
		which %= (shape->bins + shape->size - shape->next) / word;
		if (which >= shape->bins / word)
			which += (shape->next - shape->bins) / word;
		return built->arenas[kind / 10 % 2] + which * word;
	case 5:
		return built->arenas[kind / 10 % 2] + which * word % shape->size;
	case 6: /* heap_info */
		return word_in(&built->regions[2 + kind / 10 % 2], word, which % 8);
	case 7: /* malloc_par, and what is around it */
		return word_in(&built->regions[0], word, 0x1100 / word + which % 64);
	case 8: /* the thread cache */
		return built->blocks.data[0].address + which * word % 760 / word * word;
	default:
		return word_in(&built->regions[kind / 10 % BUILT_REGIONS], word, which);
	}
}

static uint64_t value_of(const struct built_heap *built, unsigned how, unsigned which,
			 const struct change *change)
{
	static const uint64_t values[] = { 0,	      1,	  7,	     8,	      16,
					   17,	      0x20,	  0x21,	     0x1000,  0x20ff1,
					   0x21000,   INT32_MAX,  0x7ff8,    1 << 16, 2,
					   INT64_MAX, UINT64_MAX, UINT32_MAX };

	switch (how % 8) {
	case 0:
		return values[which % (sizeof(values) / sizeof(*values))];
	case 1:
		return change->good + (int8_t)which;
	case 2:
		return change->good + (int8_t)which * built->shape->alignment;
	case 3:
		return change->good ^ 1ull << which % 64;
	case 4: /* the address of something */
		return place_of(built, how / 8, which);
	case 5: /* a mangled link */
		return place_of(built, how / 8, which) ^ change->address >> 12;
	case 6: /* of a region's start or end */
		return built->regions[which % BUILT_REGIONS].start +
		       (which & 8 ? built->regions[which % BUILT_REGIONS].size : 0);
	default:
		return which * 0x0101010101010101ull;
	}
}

struct checked {
	const struct heap *heap;
	uint64_t end;
	size_t count;
};

static bool check_chunk(void *data, const struct heap_chunk *chunk)
{
	struct checked *checked = data;
	const struct heap_region *region = &checked->heap->regions.data[chunk->region];
	struct heap_chunk again;

	if (chunk->address < checked->end || chunk->address < region->base ||
	    chunk->address + chunk->size < chunk->address ||
	    chunk->address + chunk->size > region->end + 2 * checked->heap->header ||
	    chunk->arena >= checked->heap->arenas.size)
		abort();
	if (!heap_find(checked->heap, chunk->address, &again) || again.index != chunk->index ||
	    (chunk->size && (!heap_find(checked->heap, chunk->address + chunk->size - 1, &again) ||
			     again.index != chunk->index)))
		abort();
	checked->end = chunk->address + chunk->size;
	checked->count++;
	return true;
}

static struct error *take_block(void *data, const struct heap_chunk *chunk, const void *bytes,
				size_t size)
{
	uint8_t sum = 0;

	for (size_t i = 0; i < size; i++)
		sum ^= ((const uint8_t *)bytes)[i];
	*(uint64_t *)data += sum;
	return size > chunk->size ? &error_no_memory : NULL;
}

static void ask_leaks(const struct heap *heap, struct leak_prescan *prescan, unsigned choice)
{
	struct leak_options options = { .prescan = prescan, .workers = 1 + (choice & 1) };
	struct retain_step_vec chain = { 0 }, referrers = { 0 };
	struct leak_result result = { 0 };
	heap_index index = HEAP_NONE;

	if (leaks_find(heap, &options, &result))
		abort();
	if (result.leaks.size != result.leaked_count)
		abort();
	for (size_t i = 0; i < result.leaks.size; i++) {
		struct leak leak;

		leak_get(heap, &result, i, &leak);
		if (heap_find_index(heap, leak.address) != leak.index)
			abort();
		index = leak.index;
	}
	leak_result_deinit(&result);
	if (index != HEAP_NONE && choice % 16 == 0) {
		options.prescan = NULL;
		if (leaks_retain(heap, &options, index, &chain, &referrers) || chain.size)
			abort();
	}
	retain_step_vec_deinit(&chain);
	retain_step_vec_deinit(&referrers);
}

static void ask_all(const struct heap *heap, struct leak_prescan *prescan, unsigned choice)
{
	struct checked checked = { .heap = heap };
	struct trim_forecast forecast = { 0 };
	struct heap_stats stats;
	uint64_t sum = 0;

	heap_walk(heap, check_chunk, &checked);
	heap_stats_init(&stats);
	error_destroy(heap_stats_of(heap, NULL, &stats));
	heap_stats_deinit(&stats);
	error_destroy(heap_read_blocks(heap, 24, take_block, &sum));
	error_destroy(trim_forecast(heap, 0, &forecast));
	trim_forecast_deinit(&forecast);
	ask_leaks(heap, prescan, choice);
}

static void open_and_ask(struct target *target, unsigned choice)
{
	cleanup(leak_prescan) struct leak_prescan *prescan = NULL;
	struct heap_options options = { .tries = 1 };
	cleanup(heap) struct heap *heap = NULL;
	struct error *error = NULL;

	if (choice & 1) {
		error = leak_prescan_create(&prescan);
		options.observer = leak_prescan_observer(prescan);
	}
	if (!error)
		error = heap_open(target, &options, &heap);
	if (!error)
		ask_all(heap, prescan, choice);
	error_destroy(error);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
	struct change changes[CHANGES_MAX];
	struct built_heap *built;
	size_t count = 0;

	if (size < 2)
		return 0;
	built = heap_of(bytes[0] % heap_shape_count, bytes[1] % SEEDS);
	for (size_t at = 2; at + 5 <= size && count < CHANGES_MAX; at += 5, count++) {
		struct change *change = &changes[count];
		const uint8_t *five = bytes + at;

		change->address = place_of(built, five[0], five[1] | five[2] << 8);
		change->good = built_load(built, change->address);
		built_store(built, change->address,
			    value_of(built, five[3], five[4] | five[2] << 8, change));
	}
	open_and_ask(built->target, bytes[1] / SEEDS);
	while (count--)
		built_store(built, changes[count].address, changes[count].good);
	return 0;
}
