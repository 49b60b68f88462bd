#include "heap_builder.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define BINS	    127u
#define CACHE_BINS  76u
#define CACHE_COUNT 7u
#define FAST_BINS   12u
#define LIBC_SIZE   0x6000u
#define ARENA_AT    0x1c60u
#define PAR_AT	    0x1200u
#define USED	    0x21000u /* of each region */
#define MAPPED_SIZE 0x5000u
#define OWN_SIZE    0x3000u /* of the program's own memory in front of a piece */

const struct heap_shape heap_shapes[] = {
	{ "2.42", &arch_x86_64, 16, 10, 96, 112, 2160, 2184, 2200, 48, 16, CACHE_SLOTS, true, 5,
	  false },
	{ "2.35-2.41", &arch_x86_64, 16, 10, 96, 112, 2160, 2184, 2200, 48, 16, CACHE_SHORT, true,
	  5, false },
	{ "2.32-2.34", &arch_x86_64, 16, 10, 96, 112, 2160, 2184, 2200, 32, 16, CACHE_SHORT, true,
	  4, false },
	{ "2.30-2.31", &arch_x86_64, 16, 10, 96, 112, 2160, 2184, 2200, 32, 16, CACHE_SHORT, false,
	  4, false },
	{ "2.27-2.29", &arch_x86_64, 16, 10, 96, 112, 2160, 2184, 2200, 32, 16, CACHE_CHAR, false,
	  4, false },
	{ "2.26", &arch_x86_64, 8, 10, 88, 104, 2152, 2176, 2192, 32, 16, CACHE_CHAR, false, 4,
	  false },
	{ "2.23-2.25", &arch_x86_64, 8, 10, 88, 104, 2152, 2176, 2192, 32, 16, CACHE_NONE, false, 4,
	  true },
	{ "2.17-2.22", &arch_x86_64, 8, 10, 88, 104, 2152, 2168, 2184, 32, 16, CACHE_NONE, false, 4,
	  true },
	{ "2.43", &arch_x86_64, 0, 0, 8, 24, 2072, 2096, 2112, 48, 16, CACHE_SLOTS, true, 5,
	  false },
	{ "2.42", &arch_i386, 12, 11, 56, 64, 1096, 1108, 1116, 24, 16, CACHE_SLOTS, true, 5,
	  false },
	{ "2.32-2.41", &arch_i386, 12, 11, 56, 64, 1096, 1108, 1116, 24, 16, CACHE_SHORT, true, 5,
	  false },
	{ "2.27-2.29", &arch_i386, 12, 11, 56, 64, 1096, 1108, 1116, 24, 16, CACHE_CHAR, false, 4,
	  false },
	{ "2.26", &arch_i386, 8, 11, 52, 60, 1092, 1104, 1112, 24, 16, CACHE_CHAR, false, 4,
	  false },
	{ "2.23-2.25", &arch_i386, 8, 10, 48, 56, 1088, 1100, 1108, 16, 8, CACHE_NONE, false, 4,
	  true },
	{ "2.17-2.22", &arch_i386, 8, 10, 48, 56, 1088, 1096, 1104, 16, 8, CACHE_NONE, false, 4,
	  true },
	{ "2.43", &arch_i386, 0, 0, 8, 16, 1048, 1060, 1068, 24, 16, CACHE_SLOTS, true, 5, false },
};

const unsigned heap_shape_count = sizeof(heap_shapes) / sizeof(heap_shapes[0]);

/* Lists while they grow. */
struct lists {
	uint64_t fast[BUILT_ARENAS][FAST_BINS]; /* heads: chunks */
	uint64_t cached[CACHE_BINS];		/* heads: blocks */
	unsigned counts[CACHE_BINS];
	uint64_t last_free[BUILT_ARENAS]; /* chunk that was linked last */
	unsigned bin[BUILT_ARENAS];
};

uint64_t built_random(struct built_heap *built, uint64_t limit)
{
	built->random ^= built->random << 13;
	built->random ^= built->random >> 7;
	built->random ^= built->random << 17;
	return built->random % limit;
}

static unsigned word_of(const struct built_heap *built)
{
	return built->shape->arch->word_size;
}

static uint8_t *bytes_at(const struct built_heap *built, uint64_t address)
{
	for (unsigned i = 0; i < BUILT_REGIONS; i++) {
		const struct built_region *region = &built->regions[i];

		if (address >= region->start && address - region->start < region->size)
			return region->bytes + (address - region->start);
	}
	fail_msg("0x%llx is in no region", (unsigned long long)address);
	return NULL;
}

uint64_t built_load(const struct built_heap *built, uint64_t address)
{
	uint64_t value = 0;

	memcpy(&value, bytes_at(built, address), word_of(built));
	return value;
}

/* Before the target is made, and after. */
void built_store(struct built_heap *built, uint64_t address, uint64_t value)
{
	memcpy(bytes_at(built, address), &value, word_of(built));
	if (built->target)
		assert_null(fake_target_write(built->target, address, &value, word_of(built)));
}

/* ---- the lists ---- */

static uint64_t link_to(const struct built_heap *built, uint64_t at, uint64_t to)
{
	return built->shape->mangled ? to ^ at >> 12 : to;
}

static void push_fast(struct built_heap *built, struct lists *lists, unsigned arena, uint64_t chunk,
		      uint64_t size)
{
	unsigned word = word_of(built), bin = size / (2 * word) - 2;
	uint64_t at = chunk + 2 * word;

	built_store(built, at, link_to(built, at, lists->fast[arena][bin]));
	lists->fast[arena][bin] = chunk;
}

static void push_cached(struct built_heap *built, struct lists *lists, uint64_t block, unsigned bin)
{
	built_store(built, block, link_to(built, block, lists->cached[bin]));
	lists->cached[bin] = block;
	lists->counts[bin]++;
}

/* In front of the last one of its bin; every now and then in the next bin. */
static void push_free(struct built_heap *built, struct lists *lists, unsigned arena, uint64_t chunk)
{
	unsigned word = word_of(built);
	uint64_t head, next;

	if (built_random(built, 3) == 0)
		lists->bin[arena] = (lists->bin[arena] + 1) % BINS;
	head = built->arenas[arena] + built->shape->bins + 2ull * word * lists->bin[arena] -
	       2 * word;
	next = built_load(built, head + 2 * word);
	built_store(built, chunk + 2 * word, next);
	built_store(built, chunk + 3 * word, head);
	built_store(built, next + 3 * word, chunk);
	built_store(built, head + 2 * word, chunk);
}

/* ---- chunks ---- */

static void expect(struct built_heap *built, uint64_t chunk, uint64_t size, enum heap_state state,
		   unsigned arena)
{
	struct heap_figures *figures = &built->figures[arena];
	struct expected_block block = {
		.address = chunk + 2 * word_of(built),
		.size = size - (state == HEAP_TOP ? 2 : 1) * word_of(built),
		.state = state,
		.arena = arena,
	};

	assert_null(expected_block_vec_append(&built->blocks, &block));
	if (state == HEAP_FREE || state == HEAP_FAST || state == HEAP_TOP) {
		figures->free += size;
		figures->free_chunks++;
	} else {
		figures->in_use_chunks++;
	}
	if (state == HEAP_FAST) {
		figures->fast += size;
		figures->fast_chunks++;
	} else if (state == HEAP_TCACHE) {
		figures->tcache += size;
		figures->tcache_chunks++;
	} else if (state == HEAP_TOP) {
		figures->top += size;
	}
}

static enum heap_state choose_state(struct built_heap *built, struct lists *lists, uint64_t size,
				    bool after_free)
{
	const struct heap_shape *shape = built->shape;
	unsigned word = word_of(built), bin = (size - 4 * word) / shape->alignment;

	switch (built_random(built, 6)) {
	case 0:
		return after_free ? HEAP_IN_USE : HEAP_FREE;
	case 1:
		return shape->fastbins && size / (2 * word) - 2 < 7 ? HEAP_FAST : HEAP_IN_USE;
	case 2:
		return shape->cache != CACHE_NONE && bin < 64 && lists->counts[bin] < CACHE_COUNT
			       ? HEAP_TCACHE
			       : HEAP_IN_USE;
	default:
		return HEAP_IN_USE;
	}
}

struct place {
	uint64_t at, end;
	unsigned arena;
	bool after_free;
	uint64_t free_size; /* of the free chunk in front */
};

static void put_header(struct built_heap *built, const struct place *place, uint64_t size,
		       bool is_free)
{
	unsigned word = word_of(built);
	uint64_t flags = (place->after_free ? 0 : 1) | (place->arena && !is_free ? 4 : 0);

	if (place->after_free)
		built_store(built, place->at, place->free_size);
	built_store(built, place->at + word, size | flags);
}

static void put_chunk(struct built_heap *built, struct lists *lists, struct place *place,
		      uint64_t size, enum heap_state state)
{
	unsigned word = word_of(built);
	uint64_t block = place->at + 2 * word;

	put_header(built, place, size, state == HEAP_FREE);
	if (state == HEAP_FREE)
		push_free(built, lists, place->arena, place->at);
	else if (state == HEAP_FAST)
		push_fast(built, lists, place->arena, place->at, size);
	else if (state == HEAP_TCACHE)
		push_cached(built, lists, block, (size - 4 * word) / built->shape->alignment);
	expect(built, place->at, size, state, place->arena);
	place->after_free = state == HEAP_FREE;
	place->free_size = size;
	place->at += size;
}

/* Chunks until @room is left. */
static void fill(struct built_heap *built, struct lists *lists, struct place *place, uint64_t room)
{
	unsigned word = word_of(built);

	while (place->end - place->at > room + 0x800) {
		uint64_t size = 4 * word + built_random(built, built_random(built, 4) ? 8 : 90) *
						   built->shape->alignment;
		enum heap_state state = choose_state(built, lists, size, place->after_free);

		/* Beyond what arenas cache, too. */
		put_chunk(built, lists, place, size, state);
	}
	if (place->after_free)
		put_chunk(built, lists, place, 4 * word, HEAP_IN_USE);
}

static void put_top(struct built_heap *built, struct place *place)
{
	uint64_t size = place->end - place->at,
		 top = built->arenas[place->arena] + built->shape->top;

	built_store(built, place->at + word_of(built), size | 1);
	built_store(built, top, place->at);
	expect(built, place->at, size, HEAP_TOP, place->arena);
}

/* What sysmalloc() leaves of an old heap's top. */
static void put_fence(struct built_heap *built, struct lists *lists, struct place *place)
{
	unsigned word = word_of(built);
	uint64_t left = place->end - place->at - 4 * word;

	left -= left % built->shape->alignment;
	put_chunk(built, lists, place, left, HEAP_FREE);
	built_store(built, place->at, left);
	built_store(built, place->at + word, 2 * word);
	built_store(built, place->at + 3 * word, place->arena ? 1 : 2 * word | 1);
}

static uint64_t first_chunk(const struct built_heap *built, uint64_t address)
{
	uint64_t block = address + 2 * word_of(built), alignment = built->shape->alignment;

	return (block + alignment - 1) / alignment * alignment - 2 * word_of(built);
}

/* ---- the thread cache ---- */

static const unsigned cache_sizes[2][4] = { { 0, 320, 384, 456 }, { 0, 576, 640, 760 } };

static uint64_t put_cache(struct built_heap *built, struct lists *lists, struct place *place)
{
	unsigned word = word_of(built), alignment = built->shape->alignment;
	unsigned size = cache_sizes[word == 8][built->shape->cache] + word;
	uint64_t block = place->at + 2 * word;

	put_chunk(built, lists, place, (size + alignment - 1) / alignment * alignment, HEAP_OWN);
	return block;
}

static void fill_cache(struct built_heap *built, const struct lists *lists, uint64_t block)
{
	enum cache_kind kind = built->shape->cache;
	unsigned bins = kind == CACHE_SLOTS ? CACHE_BINS : 64, each = kind == CACHE_CHAR ? 1 : 2;

	for (unsigned i = 0; i < bins; i++) {
		uint16_t count =
			kind == CACHE_SLOTS ? CACHE_COUNT - lists->counts[i] : lists->counts[i];

		memcpy(bytes_at(built, block + i * each), &count, each);
		built_store(built, block + bins * each + i * word_of(built), lists->cached[i]);
	}
}

/* ---- arenas ---- */

static void put_arena(struct built_heap *built, unsigned arena, uint64_t system)
{
	const struct heap_shape *shape = built->shape;
	uint64_t address = built->arenas[arena];
	unsigned word = word_of(built);

	for (unsigned i = 0; i < BINS; i++) {
		uint64_t bin = address + shape->bins + 2ull * i * word;

		built_store(built, bin, bin - 2 * word);
		built_store(built, bin + word, bin - 2 * word);
	}
	built_store(built, address + shape->next, built->arenas[!arena]);
	built_store(built, address + shape->system_mem - word, 1);
	built_store(built, address + shape->system_mem, system);
	built_store(built, address + shape->system_mem + word, system + 0x1000);
	built->figures[arena].system = system;
	built->figures[arena].system_max = system + 0x1000;
}

static void put_fast_heads(struct built_heap *built, const struct lists *lists)
{
	for (unsigned arena = 0; arena < BUILT_ARENAS; arena++)
		for (unsigned i = 0; i < built->shape->fastbin_count; i++)
			built_store(built,
				    built->arenas[arena] + built->shape->fastbins +
					    i * word_of(built),
				    lists->fast[arena][i]);
}

static void put_heap_info(struct built_heap *built, uint64_t heap, uint64_t previous)
{
	unsigned word = word_of(built);

	built_store(built, heap, built->arenas[1]);
	built_store(built, heap + word, previous);
	built_store(built, heap + 2 * word, USED);
	built_store(built, heap + 3 * word, USED);
}

/* ---- blocks of their own ---- */

static void put_mapped(struct built_heap *built, unsigned region, uint64_t offset)
{
	unsigned word = word_of(built);
	uint64_t start = built->regions[region].start, size = built->regions[region].size;
	bool spared = !strcmp(built->shape->versions, "2.43");
	uint64_t chunk = start + offset;
	struct expected_block block = {
		.address = chunk + 2 * word,
		.size = size - offset - (spared ? 3 : 2) * word,
		.state = HEAP_IN_USE,
		.mmapped = true,
	};

	built_store(built, chunk, offset);
	built_store(built, chunk + word, (size - offset - (spared ? 2 * word : 0)) | 2);
	assert_null(expected_block_vec_append(&built->blocks, &block));
	built->mmapped_count++;
	built->mmapped_bytes += size;
}

/* What was the header before the block was aligned. */
static void put_stale(struct built_heap *built, unsigned region)
{
	unsigned word = word_of(built), pad = built->shape->alignment == 2 * word ? 0 : 8;
	bool spared = !strcmp(built->shape->versions, "2.43");
	uint64_t start = built->regions[region].start, size = built->regions[region].size;

	built_store(built, start + pad, pad);
	built_store(built, start + pad + word, (size - pad - (spared ? 2 * word : 0)) | 2);
}

/* trim_threshold ... n_mmaps, n_mmaps_max, max_n_mmaps, no_dyn_threshold, mmapped_mem, ... */
static void put_par(struct built_heap *built)
{
	const struct heap_shape *shape = built->shape;
	unsigned word = word_of(built), ints = shape->par_ints;
	uint64_t at = built->regions[0].start + PAR_AT + (ints == 5 ? 7 : 5) * word;
	const uint32_t values[] = { 0, built->mmapped_count, 65536, built->mmapped_count + 1, 0 };

	memcpy(bytes_at(built, at), values + (5 - ints), 4 * ints);
	at += 4 * ints;
	at = (at + word - 1) / word * word;
	built_store(built, at, built->mmapped_bytes);
	built_store(built, at + word, built->mmapped_bytes + 0x10000);
	at += (shape->par_total ? 3 : 2) * word;
	built_store(built, at, built->regions[1].start);
}

/* ---- all of it ---- */

static void add_region(struct built_heap *built, unsigned index, uint64_t start, size_t size,
		       const char *path)
{
	built->regions[index] = (struct built_region){ start, size, calloc(1, size), path };
	assert_non_null(built->regions[index].bytes);
}

static void lay_out(struct built_heap *built)
{
	bool wide = word_of(built) == 8;
	uint64_t heaps = wide ? 0x7f0000000000 : 0xf0000000;
	uint64_t heap_size = wide ? 64u << 20 : 1u << 20;

	add_region(built, 0, wide ? 0x7f1234567000 : 0xf7d00000, LIBC_SIZE, "/lib/libc.so.6");
	add_region(built, 1, wide ? 0x555500000000 : 0x57000000, USED, "[heap]");
	add_region(built, 2, heaps, USED, "");
	add_region(built, 3, heaps + 2 * heap_size, USED, "");
	add_region(built, 4, heaps + 4 * heap_size, MAPPED_SIZE, "");
	add_region(built, 5, heaps + 5 * heap_size, 2 * MAPPED_SIZE, "");
	add_region(built, 6, heaps + 6 * heap_size + PAGE_SIZE, 3 * MAPPED_SIZE, "");
	/* Beside memory of the program's own, which the kernel merges with it. */
	add_region(built, 7, heaps + 7 * heap_size, OWN_SIZE + USED, "");
	built->arenas[0] = built->regions[0].start + ARENA_AT;
	built->arenas[1] = heaps + built->shape->heap_info;
}

/* [from, to) of a region. */
static void add_segment(struct built_heap *built, const struct built_region *region, size_t from,
			size_t to, const char *path, unsigned perms)
{
	assert_null(fake_target_add_segment(built->target, &(struct fake_segment){
								   .start = region->start + from,
								   .size = to - from,
								   .bytes = region->bytes + from,
								   .bytes_size = to - from,
								   .perms = perms,
								   .path = path,
								   .inode = path[0] == '/' ? 7 : 0,
							   }));
}

static void make_target(struct built_heap *built)
{
	unsigned perms = PERM_READ | PERM_WRITE;

	assert_null(fake_target_create(built->shape->arch, &built->target));
	for (unsigned i = 0; i < BUILT_REGIONS; i++) {
		const struct built_region *region = &built->regions[i];

		if (i != 5) {
			add_segment(built, region, 0, region->size, region->path, perms);
			continue;
		}
		add_segment(built, region, 0, 0x2000, "", PERM_READ);
		add_segment(built, region, 0x2000, 0x3000, "[anon:half]", perms);
		add_segment(built, region, 0x3000, region->size, "", perms);
	}
}

static int compare_blocks(const void *left, const void *right)
{
	const struct expected_block *a = left, *b = right;

	return a->address < b->address ? -1 : a->address > b->address;
}

void heap_build(struct built_heap *built, const struct heap_shape *shape, uint64_t seed)
{
	struct lists lists = { 0 };
	struct place place;
	uint64_t cache = 0;

	*built = (struct built_heap){ .shape = shape,
				      .random = seed * 2654435761u + 88172645463325252u };
	lay_out(built);
	put_arena(built, 0, 2 * USED);
	put_arena(built, 1, 2 * USED);
	put_heap_info(built, built->regions[2].start, 0);
	put_heap_info(built, built->regions[3].start, built->regions[2].start);

	place = (struct place){ .at = first_chunk(built, built->regions[1].start),
				.end = built->regions[1].start + USED };
	if (shape->cache != CACHE_NONE)
		cache = put_cache(built, &lists, &place);
	fill(built, &lists, &place, 0x1000);
	put_top(built, &place);
	place = (struct place){ .at = first_chunk(built, built->regions[7].start + OWN_SIZE),
				.end = built->regions[7].start + OWN_SIZE + USED };
	fill(built, &lists, &place, 0x100);
	put_fence(built, &lists, &place);
	place = (struct place){ .at = first_chunk(built, built->arenas[1] + shape->size),
				.end = built->regions[2].start + USED,
				.arena = 1 };
	fill(built, &lists, &place, 0x100);
	put_fence(built, &lists, &place);
	place = (struct place){ .at = first_chunk(built,
						  built->regions[3].start + shape->heap_info),
				.end = built->regions[3].start + USED,
				.arena = 1 };
	fill(built, &lists, &place, 0x1000);
	put_top(built, &place);

	put_fast_heads(built, &lists);
	if (cache)
		fill_cache(built, &lists, cache);
	put_mapped(built, 4, shape->alignment == 2 * word_of(built) ? 0 : 8);
	/* As for an alignment of 64. */
	put_mapped(built, 5, 64 - 2 * word_of(built));
	/* For 8192, with the header that memalign() leaves at the start. */
	put_mapped(built, 6, PAGE_SIZE - 2 * word_of(built));
	put_stale(built, 6);
	put_par(built);
	for (unsigned i = 0; i < BUILT_ARENAS; i++)
		built->figures[i].in_use = built->figures[i].system - built->figures[i].free;
	qsort(built->blocks.data, built->blocks.size, sizeof(*built->blocks.data), compare_blocks);
	make_target(built);
}

void built_heap_deinit(struct built_heap *built)
{
	target_destroy(built->target);
	for (unsigned i = 0; i < BUILT_REGIONS; i++)
		free(built->regions[i].bytes);
	expected_block_vec_deinit(&built->blocks);
}
