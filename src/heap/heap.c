#include "walk.h"

#include <inttypes.h>
#include <stdarg.h>
#include <string.h>

#include "memprobe/log.h"
#include "memprobe/lower_bound.h"
#include "memprobe/num.h"
#include "memprobe/big_array.h"
#include "memprobe/sparse_read.h"

#define TRIES_DEFAULT 3
#define BUFFER_SIZE   (1u << 20)
#define PREFIX_MAX    (64u << 20)

/* ---- regions and bits ---- */

static int compare_regions(const void *left, const void *right)
{
	const struct heap_region *a = left, *b = right;

	return a->start < b->start ? -1 : a->start > b->start;
}

static size_t bitmap_size(const struct heap *heap)
{
	return (heap->bits / 64 + 1) * sizeof(uint64_t);
}

struct error *heap_lay_out(struct heap *heap)
{
	struct heap_region_vec *regions = &heap->regions;
	uint64_t bits = 0, end = 0;
	size_t kept = 0;

	if (regions->size)
		qsort(regions->data, regions->size, sizeof(*regions->data), compare_regions);
	for (size_t i = 0; i < regions->size; i++) {
		struct heap_region *region = &regions->data[kept];

		*region = regions->data[i];
		if (region->start < end || region->end <= region->base) {
			struct error *error = heap_add_issue(
				heap, region->start, "areas of the heap overlap at 0x%" PRIx64,
				region->start);
			if (error)
				return error;
			continue;
		}
		kept++;
		end = region->end;
		region->first = bits;
		region->count =
			region->mmapped ? 1 : (region->end - region->base) / heap->alignment + 1;
		bits += round_up(region->count, 64);
	}
	regions->size = kept;
	heap->bits = bits;
	heap->lowest = regions->size ? regions->data[0].start : 0;
	heap->highest = end;
	heap->starts = big_array_create(bitmap_size(heap));
	heap->in_use = big_array_create(bitmap_size(heap));
	heap->fast = calloc(bits / 64 + 1, sizeof(uint64_t));
	heap->tcache = calloc(bits / 64 + 1, sizeof(uint64_t));
	if (!heap->starts || !heap->in_use || !heap->fast || !heap->tcache)
		return &error_no_memory;
	return NULL;
}

const struct heap_region *heap_region_at(const struct heap *heap, uint64_t address)
{
	size_t low =
		lower_bound(heap->regions.data, heap->regions.size, region, region->end <= address);

	if (address < heap->lowest || address >= heap->highest)
		return NULL;
	if (low == heap->regions.size || heap->regions.data[low].start > address)
		return NULL;
	return &heap->regions.data[low];
}

const struct heap_region *heap_region_of(const struct heap *heap, heap_index index)
{
	size_t low = 0, high = heap->regions.size;

	while (high - low > 1) {
		size_t middle = low + (high - low) / 2;

		if (heap->regions.data[middle].first <= index)
			low = middle;
		else
			high = middle;
	}
	return &heap->regions.data[low];
}

/* The highest set bit of @bitmap in [first, index], or HEAP_NONE. @first is a multiple of 64. */
static heap_index last_set(const uint64_t *bitmap, heap_index first, heap_index index)
{
	uint64_t at = index / 64, word = bitmap[at] << (63 - index % 64);

	if (word)
		return index - __builtin_clzll(word);
	while (at-- > first / 64)
		if (bitmap[at])
			return at * 64 + 63 - __builtin_clzll(bitmap[at]);
	return HEAP_NONE;
}

/* The lowest set bit of @bitmap in [index, end), or HEAP_NONE. */
static heap_index first_set(const uint64_t *bitmap, heap_index index, heap_index end)
{
	uint64_t at = index / 64, word;

	if (index >= end)
		return HEAP_NONE;
	word = bitmap[at] >> (index % 64) << (index % 64);
	for (;;) {
		if (word) {
			index = at * 64 + __builtin_ctzll(word);
			return index < end ? index : HEAP_NONE;
		}
		if (++at * 64 >= end)
			return HEAP_NONE;
		word = bitmap[at];
	}
}

heap_index heap_next(const struct heap *heap, heap_index index)
{
	return first_set(heap->starts, index, heap->bits);
}

heap_index heap_find_index(const struct heap *heap, uint64_t address)
{
	const struct heap_region *region = heap_region_at(heap, address);

	if (!region || address < region->base || address >= region->limit)
		return HEAP_NONE;
	if (region->mmapped)
		return region->first;
	return last_set(heap->starts, region->first,
			region->first + (address - region->base) / heap->alignment);
}

heap_index heap_block_at(const struct heap *heap, uint64_t address)
{
	const struct heap_region *region = heap_region_at(heap, address);
	heap_index index;

	if (!region || address < region->base || (address - region->base) % heap->alignment)
		return HEAP_NONE;
	if (region->mmapped)
		return address == region->base ? region->first : HEAP_NONE;
	index = region->first + (address - region->base) / heap->alignment;
	return heap_bit(heap->starts, index) ? index : HEAP_NONE;
}

static void fill_chunk(const struct heap *heap, const struct heap_region *region, heap_index index,
		       struct heap_chunk *ret)
{
	heap_index end = region->first + region->count, next;
	uint64_t limit;

	*ret = (struct heap_chunk){
		.address = heap_address(heap, region, index),
		.mmapped = region->mmapped,
		.arena = region->arena,
		.region = region - heap->regions.data,
		.index = index,
	};
	next = first_set(heap->starts, index + 1, end);
	limit = next == HEAP_NONE ? region->limit : heap_address(heap, region, next);
	/* A mapping has no chunk behind it whose words would have to be spared. */
	ret->size = limit - ret->address - (region->mmapped ? 0 : heap->header);
	if (heap_bit(heap->tcache, index) && heap_bit(heap->fast, index))
		ret->state = HEAP_OWN;
	else if (heap_bit(heap->tcache, index))
		ret->state = HEAP_TCACHE;
	else if (heap_bit(heap->fast, index))
		ret->state = HEAP_FAST;
	else if (heap_bit(heap->in_use, index))
		ret->state = HEAP_IN_USE;
	else if (next == HEAP_NONE && region->has_top)
		ret->state = HEAP_TOP;
	else
		ret->state = HEAP_FREE;
	if (heap->trailers && ret->state == HEAP_IN_USE)
		ret->size -= heap->trailers[index];
}

void heap_chunk(const struct heap *heap, heap_index index, struct heap_chunk *ret)
{
	fill_chunk(heap, heap_region_of(heap, index), index, ret);
}

bool heap_find(const struct heap *heap, uint64_t address, struct heap_chunk *ret)
{
	heap_index index = heap_find_index(heap, address);

	if (index == HEAP_NONE)
		return false;
	heap_chunk(heap, index, ret);
	return true;
}

void heap_walk(const struct heap *heap, bool (*visit)(void *data, const struct heap_chunk *chunk),
	       void *data)
{
	vec_for_each (region, &heap->regions) {
		heap_index end = region->first + region->count;
		heap_index index = first_set(heap->starts, region->first, end);

		while (index != HEAP_NONE) {
			struct heap_chunk chunk;

			fill_chunk(heap, region, index, &chunk);
			if (!visit(data, &chunk))
				return;
			index = first_set(heap->starts, index + 1, end);
		}
	}
}

/* ---- contents ---- */

struct reading {
	const struct heap *heap;
	uint8_t *buffer;
	size_t buffer_size;
	uint64_t start, end; /* what the buffer holds */
};

/* Whether [address, address + size) was brought into the buffer, with what follows it. */
static struct error *fill_buffer(struct reading *reading, const struct heap_region *region,
				 uint64_t address, size_t size, bool *ret)
{
	uint64_t missing = 0, end;
	struct error *error;

	*ret = address >= reading->start && address + size <= reading->end;
	if (*ret)
		return NULL;
	end = min_u64(region->end, address + reading->buffer_size);
	error = target_read_sparse(reading->heap->target, address, reading->buffer, end - address,
				   &missing);
	if (!error && missing) {
		/* Rare: block by block from here on, to leave out the very ones. */
		missing = 0;
		end = min_u64(region->end, address + size);
		error = target_read_sparse(reading->heap->target, address, reading->buffer,
					   end - address, &missing);
	}
	reading->start = address;
	reading->end = error || missing ? address : end;
	log_progress(region->first + (address - region->base) / reading->heap->alignment,
		     reading->heap->bits);
	*ret = !error && address + size <= reading->end;
	return error;
}

struct error *heap_read_blocks(const struct heap *heap, size_t prefix,
			       struct error *(*visit)(void *data, const struct heap_chunk *chunk,
						      const void *bytes, size_t size),
			       void *data)
{
	struct reading reading = { .heap = heap };
	struct error *error = NULL;

	prefix = min_u64(prefix, PREFIX_MAX);
	reading.buffer_size = max_u64(BUFFER_SIZE, prefix);
	reading.buffer = malloc(reading.buffer_size);
	if (!reading.buffer)
		return &error_no_memory;
	vec_for_each (region, &heap->regions) {
		heap_index end = region->first + region->count;
		heap_index index = first_set(heap->in_use, region->first, end);

		for (; !error && index != HEAP_NONE;
		     index = first_set(heap->in_use, index + 1, end)) {
			struct heap_chunk chunk;
			bool there = false;
			size_t size;

			fill_chunk(heap, region, index, &chunk);
			size = min_u64(prefix, chunk.size);
			error = fill_buffer(&reading, region, chunk.address, size, &there);
			if (!error && there)
				error = visit(data, &chunk,
					      reading.buffer + (chunk.address - reading.start),
					      size);
		}
	}
	free(reading.buffer);
	return error;
}

/* ---- figures ---- */

struct error *heap_stats_of(const struct heap *heap, const struct thread_vec *threads,
			    struct heap_stats *ret)
{
	struct error *error = NULL;

	memset(&ret->totals, 0, sizeof(ret->totals));
	for (size_t i = 0; !error && i < heap->arenas.size; i++) {
		const struct heap_arena *arena = &heap->arenas.data[i];
		struct arena_stats *stats;

		error = heap_stats_add_arena(ret, i, &stats);
		if (error)
			break;
		stats->is_main = arena->is_main;
		stats->address = arena->address;
		stats->libc = arena->libc;
		stats->module = arena->module;
		stats->figures = arena->figures;
		heap_figures_add(&ret->totals, &arena->figures);
	}
	ret->mmapped_count = heap->mmapped_count;
	ret->mmapped_bytes = heap->mmapped_bytes;
	if (!error && threads && heap->ops && heap->ops->add_threads)
		error = heap->ops->add_threads(heap, threads, ret);
	return error;
}

/* ---- issues ---- */

static struct error *add_issue(struct heap *heap, struct heap_issue issue, const char *format,
			       va_list args)
{
	heap->is_inconsistent = true;
	if (heap->issues.size >= HEAP_ISSUES_MAX)
		return NULL;
	vsnprintf(issue.text, sizeof(issue.text), format, args);
	return heap_issue_vec_append(&heap->issues, &issue);
}

struct error *heap_add_issue(struct heap *heap, uint64_t address, const char *format, ...)
{
	struct error *error;
	va_list args;

	heap->is_damaged = true;
	va_start(args, format);
	error = add_issue(heap, (struct heap_issue){ .address = address }, format, args);
	va_end(args);
	return error;
}

struct error *heap_add_missing(struct heap *heap, uint64_t address, uint64_t bytes,
			       const char *format, ...)
{
	struct heap_issue issue = { .address = address, .is_missing = true };
	struct error *error;
	va_list args;

	heap->missing_bytes += bytes;
	va_start(args, format);
	error = add_issue(heap, issue, format, args);
	va_end(args);
	return error;
}

void heap_compare_looks(struct heap *heap, const struct heap_issue_vec *before)
{
	heap->is_confirmed = false;
	/* What names no address may well be true of two heaps in motion. */
	vec_for_each (issue, &heap->issues)
		vec_for_each (old, before)
			if (!issue->is_missing && strstr(issue->text, "0x") &&
			    !strcmp(issue->text, old->text))
				heap->is_confirmed = true;
	heap->is_changing =
		heap->is_inconsistent && !heap->is_confirmed && before->size &&
		(heap->is_damaged || strcmp(before->data[0].text, heap->issues.data[0].text) != 0);
}

/* ---- opening ---- */

void heap_reset(struct heap *heap)
{
	heap_region_vec_deinit(&heap->regions);
	heap_arena_vec_deinit(&heap->arenas);
	heap_issue_vec_deinit(&heap->issues);
	heap_gap_vec_deinit(&heap->gaps);
	big_array_destroy(heap->starts, bitmap_size(heap));
	big_array_destroy(heap->in_use, bitmap_size(heap));
	free(heap->fast);
	free(heap->tcache);
	free(take_pointer(heap->trailers));
	free(take_pointer(heap->headed));
	heap->starts = heap->in_use = heap->fast = heap->tcache = NULL;
	heap->bits = heap->lowest = heap->highest = 0;
	heap->mmapped_count = heap->mmapped_bytes = STAT_UNKNOWN;
	heap->missing_bytes = 0;
	heap->is_inconsistent = heap->is_changing = false;
	heap->is_damaged = heap->is_confirmed = false;
}

void heap_destroy(struct heap *heap)
{
	if (!heap)
		return;
	heap_reset(heap);
	mappings_deinit(&heap->owned_maps);
	free(heap);
}

static bool can_walk(const struct allocator_ops *ops)
{
	return ops->walk != NULL;
}

static struct error *no_walker(const struct allocator *allocator)
{
	char titles[ALLOCATOR_TITLES_MAX];

	allocator_titles(can_walk, titles);
	return error_hint(
		error_create(ERROR_UNSUPPORTED, "the heap of %s cannot be walked", allocator->name),
		"memprobe walks the heap of %s", titles);
}

static struct error *read_maps(struct heap *heap, const struct heap_options *options)
{
	heap->maps = options ? options->maps : NULL;
	if (heap->maps)
		return NULL;
	mappings_deinit(&heap->owned_maps);
	heap->maps = &heap->owned_maps;
	return target_read_maps(heap->target, MAPS_PLAIN, &heap->owned_maps);
}

/* Until it holds still, or is read for the last time. */
static struct error *read_heap(struct heap *heap, const struct allocator_ops *ops,
			       const struct heap_options *options)
{
	unsigned tries = options && options->tries ? options->tries : TRIES_DEFAULT;
	struct error *error = NULL;

	heap->ops = ops;
	for (unsigned i = 0; !error && i < tries; i++) {
		struct heap_issue_vec before = heap->issues;

		heap->issues = (struct heap_issue_vec){ 0 };
		heap_reset(heap);
		error = read_maps(heap, options);
		if (!error)
			error = ops->walk(heap, options ? options->observer : NULL);
		if (!error && i)
			heap_compare_looks(heap, &before);
		heap_issue_vec_deinit(&before);
		if (!error && !heap->is_inconsistent)
			break;
	}
	return error;
}

/* What has no symbols and no libc file (a core without its files) may have a heap all the same.
 * Should none be found, the first one's reason is as good as any. */
static struct error *read_unknown(struct heap *heap, const struct heap_options *options)
{
	struct error *first = NULL;

	for (size_t i = 0; allocators[i]; i++) {
		struct error *error;

		if (!can_walk(allocators[i]))
			continue;
		error = read_heap(heap, allocators[i], options);
		if (!error_is(error, ERROR_UNSUPPORTED)) {
			error_destroy(first);
			return error;
		}
		if (first)
			error_destroy(error);
		else
			first = error;
	}
	return first;
}

struct error *heap_open(struct target *target, const struct heap_options *options,
			struct heap **ret)
{
	cleanup(heap) struct heap *heap = calloc(1, sizeof(*heap));
	struct error *error;

	if (!heap)
		return &error_no_memory;
	heap->target = target;
	error = allocator_detect(target, &heap->allocator);
	if (error)
		return error;
	if (!heap->allocator.ops)
		error = read_unknown(heap, options);
	else if (can_walk(heap->allocator.ops))
		error = read_heap(heap, heap->allocator.ops, options);
	else
		error = no_walker(&heap->allocator);
	if (!error)
		*ret = take_pointer(heap);
	return error;
}
