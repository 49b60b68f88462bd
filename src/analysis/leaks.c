#include "memprobe/leaks.h"

#include <stdlib.h>
#include <string.h>

#include "leak_mark.h"
#include "leak_scan.h"
#include "memprobe/lower_bound.h"
#include "memprobe/num.h"

VEC_DEFINE(number_vec, uint32_t)

/* ---- who hangs on whom ---- */

/* The pointers among leaked blocks, which are numbered by their place in the result. */
struct graph {
	const struct leak_scan *scan;
	const struct heap *heap;
	struct leak_result *result;
	/* Of each one's targets; one more at the end. Not written to before the first edge, so that
	 * flat leaks do not pay for it. */
	uint32_t *offsets;
	uint32_t *targets;
	size_t count, capacity;
	size_t at;			     /* the source while edges are gathered */
	uint64_t *has_owner, *is_pointed_to; /* bitmaps */
	struct number_vec stack;
	bool failed;
};

static void set_bit(uint64_t *bitmap, size_t at)
{
	bitmap[at / 64] |= 1ull << (at % 64);
}

static uint64_t *create_bitmap(size_t bits)
{
	return calloc(bits / 64 + 1, sizeof(uint64_t));
}

#define NOT_LEAKED SIZE_MAX
/* So many leaks within so many block numbers are read in one piece. */
#define CROWD	   64u
#define CROWD_SPAN 65536u

static size_t leak_number(const struct leak_record_vec *leaks, heap_index index)
{
	size_t low = lower_bound(leaks->data, leaks->size, leak, leak->index < index);

	return low < leaks->size && leaks->data[low].index == index ? low : NOT_LEAKED;
}

static void gather_edge(void *data, heap_index target)
{
	struct graph *graph = data;
	size_t number;

	if (heap_bit(graph->scan->reached, target))
		return;
	number = leak_number(&graph->result->leaks, target);
	if (number == NOT_LEAKED || number == graph->at)
		return;
	if (graph->count == graph->capacity) {
		size_t capacity = graph->capacity ? graph->capacity * 2 : 4096;
		uint32_t *targets = NULL;

		if (capacity < UINT32_MAX)
			targets = reallocarray(graph->targets, capacity, sizeof(*targets));
		if (!targets) {
			graph->failed = true;
			return;
		}
		graph->targets = targets;
		graph->capacity = capacity;
	}
	graph->targets[graph->count++] = number;
	set_bit(graph->is_pointed_to, number);
}

/* Whether others are close behind, so that what lies between may be read with them. */
static bool is_crowded(const struct leak_record_vec *leaks, size_t at)
{
	return at + CROWD < leaks->size &&
	       leaks->data[at + CROWD].index - leaks->data[at].index < CROWD_SPAN;
}

static struct error *build_graph(struct graph *graph)
{
	const struct leak_record_vec *leaks = &graph->result->leaks;
	struct reread reread = { 0 };
	struct error *error = NULL;

	graph->offsets = calloc(leaks->size + 1, sizeof(*graph->offsets));
	graph->has_owner = create_bitmap(leaks->size);
	graph->is_pointed_to = create_bitmap(leaks->size);
	if (!graph->offsets || !graph->has_owner || !graph->is_pointed_to)
		return &error_no_memory;
	for (graph->at = 0; !error && graph->at < leaks->size; graph->at++) {
		if (graph->count)
			graph->offsets[graph->at] = graph->count;
		error = leak_scan_edges(graph->scan, &reread, leaks->data[graph->at].index,
					is_crowded(leaks, graph->at), gather_edge, graph);
		if (!error && graph->failed)
			error = &error_no_memory;
	}
	if (graph->count)
		graph->offsets[leaks->size] = graph->count;
	reread_deinit(&reread);
	return error;
}

static void graph_deinit(struct graph *graph)
{
	free(graph->offsets);
	free(graph->targets);
	free(graph->has_owner);
	free(graph->is_pointed_to);
	number_vec_deinit(&graph->stack);
}

static uint64_t size_of(const struct graph *graph, size_t number)
{
	struct heap_chunk chunk;

	heap_chunk(graph->heap, graph->result->leaks.data[number].index, &chunk);
	return chunk.size;
}

/* All that @owner reaches and nobody owns yet is indirect, and hangs on it. */
static struct error *own(struct graph *graph, size_t owner)
{
	struct leak_record *leaks = graph->result->leaks.data;
	struct number_vec *stack = &graph->stack;
	struct leak_sum sum = { .leak = owner };
	uint32_t at = owner;
	struct error *error;

	set_bit(graph->has_owner, owner);
	error = number_vec_append(stack, &at);
	while (!error && stack->size) {
		at = stack->data[--stack->size];
		for (uint32_t i = graph->offsets[at]; !error && i < graph->offsets[at + 1]; i++) {
			uint32_t target = graph->targets[i];

			if (heap_bit(graph->has_owner, target))
				continue;
			set_bit(graph->has_owner, target);
			leaks[target].indirect = true;
			sum.count++;
			sum.bytes += size_of(graph, target);
			error = number_vec_append(stack, &target);
		}
	}
	if (error || !sum.count)
		return error;
	leaks[owner].has_sum = true;
	return leak_sum_vec_append(&graph->result->sums, &sum);
}

/* The leaks without an owner, in the order in which a depth-first search leaves them. */
static struct error *order_by_leaving(struct graph *graph, uint32_t *order, size_t *count_ret)
{
	const size_t size = graph->result->leaks.size;
	cleanup(free) uint32_t *edge = calloc(size + 1, sizeof(*edge));
	cleanup(free) uint64_t *seen = create_bitmap(size);
	struct number_vec *stack = &graph->stack;
	struct error *error = edge && seen ? NULL : &error_no_memory;
	size_t count = 0;

	for (uint32_t start = 0; !error && start < size; start++) {
		if (heap_bit(graph->has_owner, start) || heap_bit(seen, start))
			continue;
		set_bit(seen, start);
		edge[start] = graph->offsets[start];
		error = number_vec_append(stack, &start);
		while (!error && stack->size) {
			uint32_t at = stack->data[stack->size - 1], target;

			if (edge[at] == graph->offsets[at + 1]) {
				order[count++] = at;
				stack->size--;
				continue;
			}
			target = graph->targets[edge[at]++];
			if (heap_bit(graph->has_owner, target) || heap_bit(seen, target))
				continue;
			set_bit(seen, target);
			edge[target] = graph->offsets[target];
			error = number_vec_append(stack, &target);
		}
	}
	*count_ret = count;
	return error;
}

/*
 * What is left hangs on cycles. In the order in which a depth-first search leaves them, the last
 * one lies on a cycle that nothing else points to (as in Kosaraju's algorithm): that makes it an
 * owner, and so on with what it does not reach.
 */
static struct error *own_cycles(struct graph *graph)
{
	struct leak_record_vec *leaks = &graph->result->leaks;
	cleanup(free) uint32_t *order = calloc(leaks->size + 1, sizeof(*order));
	struct error *error = order ? NULL : &error_no_memory;
	size_t left = 0;

	if (!error)
		error = order_by_leaving(graph, order, &left);
	while (!error && left--) {
		if (heap_bit(graph->has_owner, order[left]))
			continue;
		leaks->data[order[left]].cyclic = true;
		error = own(graph, order[left]);
	}
	return error;
}

static int compare_sums(const void *left, const void *right)
{
	const struct leak_sum *a = left, *b = right;

	return a->leak < b->leak ? -1 : a->leak > b->leak;
}

static struct error *tell_apart(const struct leak_scan *scan, struct leak_result *result)
{
	struct graph graph = { .scan = scan, .heap = scan->heap, .result = result };
	struct error *error = NULL;

	/* More than 100 GiB of leaks: they are numbered by 32 bits. */
	if (result->leaks.size >= UINT32_MAX)
		return &error_no_memory;
	error = build_graph(&graph);
	for (size_t i = 0; !error && i < result->leaks.size; i++) {
		if (i % 4096 == 0)
			error = target_check_interrupted(scan->heap->target);
		if (!error && !heap_bit(graph.is_pointed_to, i))
			error = own(&graph, i);
	}
	if (!error && graph.count)
		error = own_cycles(&graph);
	/* Those of cycles came last. */
	if (result->sums.size)
		qsort(result->sums.data, result->sums.size, sizeof(*result->sums.data),
		      compare_sums);
	graph_deinit(&graph);
	return error;
}

void leak_get(const struct heap *heap, const struct leak_result *result, size_t i, struct leak *ret)
{
	const struct leak_record *record = &result->leaks.data[i];
	struct heap_chunk chunk;

	heap_chunk(heap, record->index, &chunk);
	*ret = (struct leak){
		.index = record->index,
		.address = chunk.address,
		.size = chunk.size,
		.indirect = record->indirect,
		.cyclic = record->cyclic,
	};
	if (record->has_sum) {
		const struct leak_sum key = { .leak = i };
		const struct leak_sum *sum = bsearch(&key, result->sums.data, result->sums.size,
						     sizeof(key), compare_sums);

		ret->indirect_count = sum->count;
		ret->indirect_bytes = sum->bytes;
	}
}

static int compare_leaks(const void *key, const void *element)
{
	heap_index index = *(const heap_index *)key;
	const struct leak_record *leak = element;

	return index < leak->index ? -1 : index > leak->index;
}

bool leak_result_has(const struct leak_result *result, heap_index index)
{
	return result->leaks.size && bsearch(&index, result->leaks.data, result->leaks.size,
					     sizeof(*result->leaks.data), compare_leaks);
}

/* ---- the result ---- */

static struct error *sweep(const struct leak_scan *scan, struct leak_result *ret)
{
	const struct heap *heap = scan->heap;
	size_t count = 0;
	struct error *error;

	for (uint64_t at = 0; at < heap->bits / 64; at++)
		count += __builtin_popcountll(heap->in_use[at] & ~scan->reached[at]);
	error = leak_record_vec_reserve(&ret->leaks, count);
	if (error)
		return error;
	for (uint64_t at = 0; at < heap->bits / 64; at++) {
		uint64_t word = heap->in_use[at] & ~scan->reached[at];

		for (; word; word &= word - 1) {
			heap_index index = at * 64 + __builtin_ctzll(word);
			struct heap_chunk chunk;
			struct leak_record leak = { .index = index };

			heap_chunk(heap, index, &chunk);
			ret->leaked_count++;
			ret->leaked_bytes += chunk.size;
			error = leak_record_vec_append(&ret->leaks, &leak);
			if (error)
				return error;
		}
	}
	ret->live_count = scan->count - ret->leaked_count;
	ret->live_bytes = scan->bytes - ret->leaked_bytes;
	ret->root_bytes = scan->root_bytes;
	ret->missing_bytes = scan->missing;
	return NULL;
}

struct error *leaks_find(const struct heap *heap, const struct leak_options *options,
			 struct leak_result *ret)
{
	struct leak_scan scan;
	struct error *error = leak_scan_run(&scan, heap, options);

	if (!error)
		error = leak_mark(&scan);
	if (!error)
		error = sweep(&scan, ret);
	if (!error)
		error = tell_apart(&scan, ret);
	leak_scan_deinit(&scan);
	if (error)
		leak_result_deinit(ret);
	return error;
}

void leak_result_deinit(struct leak_result *result)
{
	leak_record_vec_deinit(&result->leaks);
	leak_sum_vec_deinit(&result->sums);
	*result = (struct leak_result){ 0 };
}
