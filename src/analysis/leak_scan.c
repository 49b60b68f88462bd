#include "leak_scan.h"

#include <pthread.h>
#include <string.h>

#include "memprobe/log.h"
#include "memprobe/num.h"
#include "memprobe/big_array.h"
#include "memprobe/sparse_read.h"

#define WORKERS_MAX   16u
#define WORKERS_USUAL 4
#define WINDOW	      (1u << 20)
#define PART_SPAN     (1u << PART_BITS)

struct worker {
	struct leak_scan *scan;
	pthread_t thread;
	uint8_t *buffer;     /* WINDOW */
	uint64_t start, end; /* what it holds */
	struct sieve sieve;
	/* Edges of the stretch at hand. */
	uint64_t part_first;
	uint32_t *targets;
	uint32_t *sources;
	size_t size, capacity;
	bool too_many; /* to be kept */
	struct far_edge_vec far;
	uint64_t last_target, last_source;
	uint64_t count, bytes, missing, root_bytes;
	struct heap_index_vec from_roots;
	struct error *error;
};

/* ---- what was found ---- */

static bool grow(struct worker *worker)
{
	size_t capacity = worker->capacity ? worker->capacity * 2 : 1 << 12;
	uint32_t *targets = reallocarray(worker->targets, capacity, sizeof(*targets));
	uint32_t *sources;

	if (!targets)
		return false;
	worker->targets = targets;
	sources = reallocarray(worker->sources, capacity, sizeof(*sources));
	if (!sources)
		return false;
	worker->sources = sources;
	worker->capacity = capacity;
	return true;
}

/* Sources come in order; what a block says of itself, or says twice, is left out. */
static void keep_edge(void *data, uint32_t source, heap_index target)
{
	struct worker *worker = data;

	if (target == worker->part_first + source ||
	    (target == worker->last_target && source == worker->last_source))
		return;
	worker->last_target = target;
	worker->last_source = source;
	if (worker->size == EDGES_MAX) {
		worker->too_many = true;
		return;
	}
	if (worker->size == worker->capacity && !grow(worker)) {
		worker->error = &error_no_memory;
		return;
	}
	worker->targets[worker->size] = target;
	worker->sources[worker->size++] = source;
}

static void keep_root(void *data, uint32_t source, heap_index target)
{
	struct worker *worker = data;

	if (target == worker->last_target || worker->error)
		return;
	worker->last_target = target;
	worker->error = heap_index_vec_append(&worker->from_roots, &target);
}

/* A pointer in a block that begins in an earlier stretch. */
static void keep_far(struct worker *worker, heap_index source, uint64_t guess)
{
	heap_index target = heap_settle(worker->scan->heap, guess);
	struct far_edge edge = { source, target };

	if (target == HEAP_NONE || target == source || worker->error)
		return;
	if (worker->far.size * sizeof(edge) >= worker->scan->budget / 4)
		worker->scan->unstored[source >> PART_BITS] = true;
	else
		worker->error = far_edge_vec_append(&worker->far, &edge);
}

/* ---- blocks ---- */

/* [address, address + size) of a region, through the window. */
static const uint8_t *window(struct worker *worker, const struct heap_region *region,
			     uint64_t address, size_t size)
{
	if (address < worker->start || address + size > worker->end) {
		uint64_t end = min_u64(region->end, address + WINDOW);

		worker->error = target_read_sparse(worker->scan->heap->target, address,
						   worker->buffer, end - address, &worker->missing);
		if (worker->error)
			return NULL;
		worker->start = address;
		worker->end = end;
	}
	return worker->buffer + (address - worker->start);
}

static void scan_block(struct worker *worker, const struct heap_region *region, uint64_t address,
		       uint64_t size, uint32_t source)
{
	while (size && !worker->error) {
		/* Whole if it fits at all: else it would be read in two windows. */
		size_t part = min_u64(size, WINDOW);
		const uint8_t *bytes = window(worker, region, address, part);

		if (!bytes)
			return;
		sieve_words(&worker->sieve, bytes, part, source);
		address += part;
		size -= part;
	}
}

/* The lowest set bit in [index, end), or @end. */
static heap_index next_set(const uint64_t *bitmap, heap_index index, heap_index end)
{
	uint64_t at = index / 64, word;

	if (index >= end)
		return end;
	word = bitmap[at] >> (index % 64) << (index % 64);
	while (!word) {
		if (++at * 64 >= end)
			return end;
		word = bitmap[at];
	}
	return min_u64(end, at * 64 + __builtin_ctzll(word));
}

/* The usable size of the block at @index, and where the next one of the region is. */
static uint64_t size_of(const struct heap *heap, const struct heap_region *region, heap_index index,
			heap_index *next_ret)
{
	heap_index end = region->first + region->count;
	heap_index next = next_set(heap->starts, index + 1, end);
	uint64_t address = region->base + (index - region->first) * heap->alignment;
	uint64_t limit = next == end ? region->limit
				     : region->base + (next - region->first) * heap->alignment;

	*next_ret = next;
	return limit - address - (region->mmapped ? 0 : heap->header);
}

/* The blocks of the region that begin in [from, to). */
static void scan_blocks(struct worker *worker, const struct heap_region *region, heap_index from,
			heap_index to)
{
	const struct heap *heap = worker->scan->heap;
	heap_index index = next_set(heap->in_use, from, to);

	worker->start = worker->end = 0;
	while (index < to && !worker->error) {
		heap_index next;
		uint64_t size = size_of(heap, region, index, &next);
		uint64_t address = region->base + (index - region->first) * heap->alignment;

		worker->count++;
		worker->bytes += size;
		scan_block(worker, region, address, min_u64(size, region->end - address),
			   index - worker->part_first);
		index = next_set(heap->in_use, next, to);
	}
	sieve_flush(&worker->sieve);
}

/* The blocks of the region that begin in [from, to) are only counted. */
static void count_blocks(struct worker *worker, const struct heap_region *region, heap_index from,
			 heap_index to)
{
	const struct heap *heap = worker->scan->heap;
	heap_index index = next_set(heap->in_use, from, to), next;

	for (; index < to; index = next_set(heap->in_use, next, to)) {
		worker->count++;
		worker->bytes += size_of(heap, region, index, &next);
	}
}

/* The region's part of a window that was seen during the walk. */
static void use_window(struct worker *worker, const struct heap_region *region,
		       const struct raw_window *window)
{
	const struct heap *heap = worker->scan->heap;
	unsigned word = worker->scan->word;
	heap_index source = HEAP_NONE, next = 0, end = region->first + region->count;

	for (size_t i = 0; i < window->count && !worker->error; i++) {
		const struct raw *raw = &window->raws[i];
		/* Two words before it begins the first block. */
		uint64_t guess = raw->target | (raw->word & RAW_BEHIND ? GUESS_BEHIND : 0);
		int64_t ahead = (int64_t)(raw->word & ~RAW_BEHIND) * word - 2 * word;
		heap_index at = window->first + (ahead < 0 ? 0 : ahead / heap->alignment);

		if (ahead < 0) {
			if (window->first == region->first)
				continue;
			at--;
		}
		if (source == HEAP_NONE || at >= next || ahead < 0) {
			source = heap_settle_start(heap, at);
			if (source == HEAP_NONE)
				continue;
			next = ahead < 0 ? 0 : next_set(heap->starts, source + 1, end);
		}
		if (!heap_bit(heap->in_use, source))
			continue;
		if (source >= worker->part_first)
			sieve_put(&worker->sieve, guess, source - worker->part_first);
		else
			keep_far(worker, source, guess);
	}
	sieve_flush(&worker->sieve);
}

/*
 * Blocks that reach into this stretch from before: what was seen of them is not whole, they are to
 * be read again.
 */
static void distrust_before(struct worker *worker, const struct heap_region *region,
			    heap_index from)
{
	heap_index source =
		from > region->first ? heap_settle_start(worker->scan->heap, from - 1) : HEAP_NONE;

	if (source != HEAP_NONE)
		worker->scan->unstored[source >> PART_BITS] = true;
}

/* In the order of the regions: sources ascend. */
static void use_windows(struct worker *worker, const struct heap_region *region, heap_index from,
			heap_index to, const struct raw_window *windows)
{
	count_blocks(worker, region, from, to);
	for (; windows && !worker->error; windows = windows->next)
		if (windows->first >= from && windows->first < to)
			use_window(worker, region, windows);
}

static void scan_part_blocks(struct worker *worker, size_t part)
{
	const struct heap *heap = worker->scan->heap;
	heap_index first = (heap_index)part << PART_BITS;
	heap_index end = min_u64(first + PART_SPAN, heap->bits);
	const struct heap_region *region = heap_region_of(heap, first);
	bool whole;
	struct raw_window *windows =
		leak_prescan_take(worker->scan->options.prescan, heap, part, &whole);

	log_progress(part, worker->scan->part_count);
	worker->size = 0;
	worker->too_many = false;
	worker->part_first = first;
	worker->last_target = HEAP_NONE;
	worker->sieve.hit = keep_edge;
	for (; !worker->error && region < heap->regions.data + heap->regions.size &&
	       region->first < end;
	     region++) {
		heap_index from = max_u64(first, region->first);
		heap_index to = min_u64(end, region->first + region->count);

		if (from >= to)
			continue;
		if (whole && !region->mmapped) {
			use_windows(worker, region, from, to, windows);
			continue;
		}
		scan_blocks(worker, region, from, to);
		if (worker->scan->options.prescan)
			distrust_before(worker, region, from);
	}
	while (windows) {
		struct raw_window *window = windows;

		windows = window->next;
		raw_window_destroy(window);
	}
}

/* ---- roots ---- */

static void scan_root_bytes(struct worker *worker, const struct root *root, uint64_t start,
			    uint64_t end)
{
	worker->error = target_read_shared(worker->scan->heap->target, root->file, start,
					   worker->buffer, end - start);
	if (!worker->error && worker->scan->options.erase)
		worker->scan->options.erase(worker->scan->options.erase_data, start, worker->buffer,
					    end - start);
	if (!worker->error)
		sieve_words(&worker->sieve, worker->buffer, end - start, 0);
}

/* From *at_ret on, the next run of pages that hold something; false: there is none. */
static bool next_run(const bool *present, size_t pages, size_t *at_ret, size_t *end_ret)
{
	while (*at_ret < pages && !present[*at_ret])
		++*at_ret;
	*end_ret = *at_ret;
	while (*end_ret < pages && present[*end_ret])
		++*end_ret;
	return *at_ret < pages;
}

/* What was only reserved is not looked at: that may be a hundred times the memory of the process.
 */
static void scan_root(struct worker *worker, const struct root *root)
{
	bool present[ROOT_PART / PAGE_SIZE + 1];
	uint64_t first = round_down(root->start, PAGE_SIZE);
	size_t pages = (round_up(root->end, PAGE_SIZE) - first) / PAGE_SIZE, at = 0, end;
	struct error *error = NULL;

	worker->start = worker->end = 0;
	worker->last_target = HEAP_NONE;
	worker->sieve.hit = keep_root;
	worker->root_bytes += root->end - root->start;
	if (!root->file)
		error = target_page_present(worker->scan->heap->target, first, pages, present);
	if (root->file || error) {
		/* What stands in the way of reading will tell. */
		error_destroy(error);
		scan_root_bytes(worker, root, root->start, root->end);
	} else {
		for (; !worker->error && next_run(present, pages, &at, &end); at = end)
			scan_root_bytes(worker, root, max_u64(root->start, first + at * PAGE_SIZE),
					min_u64(root->end, first + end * PAGE_SIZE));
	}
	if (!worker->error)
		sieve_flush(&worker->sieve);
}

/* ---- threads ---- */

static void *work(void *data)
{
	struct worker *worker = data;
	struct leak_scan *scan = worker->scan;
	size_t roots = scan->roots.ranges.size;

	while (!worker->error) {
		size_t i = atomic_fetch_add(&scan->next, 1);

		if (i >= roots + scan->part_count)
			break;
		if (i < roots) {
			scan_root(worker, &scan->roots.ranges.data[i]);
			continue;
		}
		scan_part_blocks(worker, i - roots);
		if (worker->error || worker->too_many)
			scan->unstored[i - roots] = true;
		else
			leak_scan_store(scan, i - roots, worker->targets, worker->sources,
					worker->size);
	}
	/* An error of one ends all. */
	if (worker->error)
		atomic_store(&scan->next, roots + scan->part_count);
	return NULL;
}

static struct error *collect(struct leak_scan *scan, struct worker *worker)
{
	struct error *error = worker->error;

	scan->count += worker->count;
	scan->bytes += worker->bytes;
	scan->missing += worker->missing;
	scan->root_bytes += worker->root_bytes;
	vec_for_each (index, &worker->from_roots)
		if (!error)
			error = heap_index_vec_append(&scan->from_roots, index);
	vec_for_each (edge, &worker->far)
		if (!error)
			error = far_edge_vec_append(&scan->far, edge);
	far_edge_vec_deinit(&worker->far);
	heap_index_vec_deinit(&worker->from_roots);
	free(worker->buffer);
	free(worker->targets);
	free(worker->sources);
	return error;
}

static struct error *run_workers(struct leak_scan *scan, unsigned count)
{
	cleanup(free) struct worker *workers = calloc(count, sizeof(*workers));
	struct error *error = NULL;
	unsigned started = 1;

	if (!workers)
		return &error_no_memory;
	for (unsigned i = 0; i < count; i++) {
		workers[i].scan = scan;
		sieve_init(&workers[i].sieve, scan, NULL, &workers[i]);
		workers[i].buffer = malloc(WINDOW);
		if (!workers[i].buffer)
			workers[i].error = &error_no_memory;
	}
	/* This thread is one of them: fewer are no error. */
	for (; started < count; started++)
		if (pthread_create(&workers[started].thread, NULL, work, &workers[started]))
			break;
	work(&workers[0]);
	for (unsigned i = 1; i < started; i++)
		pthread_join(workers[i].thread, NULL);
	for (unsigned i = 0; i < count; i++) {
		struct error *one = collect(scan, &workers[i]);

		if (error)
			error_destroy(one);
		else
			error = one;
	}
	return error;
}

static unsigned worker_count(const struct leak_options *options)
{
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);

	if (options && options->workers)
		return min_u64(options->workers, WORKERS_MAX);
	return cpus < 1 ? 1 : min_u64(cpus, WORKERS_USUAL);
}

struct error *leak_scan_run(struct leak_scan *scan, const struct heap *heap,
			    const struct leak_options *options)
{
	struct error *error;

	*scan = (struct leak_scan){ .heap = heap, .word = heap->target->arch->word_size };
	heap_ranges_set(heap, &scan->ranges);
	if (options)
		scan->options = *options;
	/* 0: blocks are read again when they are reached. */
	scan->budget = leak_budget(heap);
	scan->part_count = (heap->bits + PART_SPAN - 1) >> PART_BITS;
	scan->parts = calloc(scan->part_count + 1, sizeof(*scan->parts));
	scan->unstored = calloc(scan->part_count + 1, sizeof(*scan->unstored));
	scan->has_far = calloc(scan->part_count + 1, sizeof(*scan->has_far));
	scan->reached = big_array_create((heap->bits / 64 + 1) * sizeof(*scan->reached));
	scan->store = big_array_create(scan->budget);
	if (!scan->parts || !scan->unstored || !scan->has_far || !scan->reached || !scan->store)
		return &error_no_memory;
	error = roots_find(heap, options, &scan->roots);
	if (!error)
		error = run_workers(scan, worker_count(options));
	leak_scan_sort_far(scan);
	vec_for_each (word, &scan->roots.words) {
		heap_index index = leak_scan_resolve(scan, word->value);

		if (!error && index != HEAP_NONE)
			error = heap_index_vec_append(&scan->from_roots, &index);
	}
	return error;
}

void leak_scan_deinit(struct leak_scan *scan)
{
	free(scan->parts);
	free(scan->unstored);
	free(scan->has_far);
	far_edge_vec_deinit(&scan->far);
	big_array_destroy(scan->reached, (scan->heap->bits / 64 + 1) * sizeof(*scan->reached));
	big_array_destroy(scan->store, scan->budget);
	heap_index_vec_deinit(&scan->from_roots);
	roots_deinit(&scan->roots);
}
