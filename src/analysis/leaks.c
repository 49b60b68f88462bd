#include "memprobe/leaks.h"

#include <string.h>

#include "leak_mark.h"
#include "leak_scan.h"
#include "memprobe/num.h"

/* ---- who hangs on whom ---- */

/* The pointers among leaked blocks, which are numbered by their place in the vector. */
struct graph {
	const struct leak_scan *scan;
	struct leak_vec *leaks;
	uint64_t *offsets; /* of each one's targets; one more at the end */
	uint32_t *targets;
	size_t count, capacity;
	size_t at; /* the source while edges are gathered */
	bool *has_owner, *is_pointed_to;
	bool failed;
};

#define NOT_LEAKED SIZE_MAX
/* So many leaks within so many block numbers are read in one piece. */
#define CROWD	   64u
#define CROWD_SPAN 65536u

static size_t leak_number(const struct leak_vec *leaks, heap_index index)
{
	size_t low = 0, high = leaks->size;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (leaks->data[middle].index < index)
			low = middle + 1;
		else
			high = middle;
	}
	return low < leaks->size && leaks->data[low].index == index ? low : NOT_LEAKED;
}

static void gather_edge(void *data, heap_index target)
{
	struct graph *graph = data;
	size_t number;

	if (heap_bit(graph->scan->reached, target))
		return;
	number = leak_number(graph->leaks, target);
	if (number == NOT_LEAKED || number == graph->at)
		return;
	if (graph->count == graph->capacity) {
		size_t capacity = graph->capacity ? graph->capacity * 2 : 4096;
		uint32_t *targets = reallocarray(graph->targets, capacity, sizeof(*graph->targets));

		if (!targets) {
			graph->failed = true;
			return;
		}
		graph->targets = targets;
		graph->capacity = capacity;
	}
	graph->targets[graph->count++] = number;
	graph->is_pointed_to[number] = true;
}

/* Whether others are close behind, so that what lies between may be read with them. */
static bool is_crowded(const struct leak_vec *leaks, size_t at)
{
	return at + CROWD < leaks->size &&
	       leaks->data[at + CROWD].index - leaks->data[at].index < CROWD_SPAN;
}

static struct error *build_graph(struct graph *graph)
{
	size_t size = graph->leaks->size;
	struct reread reread = { 0 };
	struct error *error = NULL;

	graph->offsets = calloc(size + 1, sizeof(*graph->offsets));
	graph->has_owner = calloc(size + 1, sizeof(*graph->has_owner));
	graph->is_pointed_to = calloc(size + 1, sizeof(*graph->is_pointed_to));
	if (!graph->offsets || !graph->has_owner || !graph->is_pointed_to)
		return &error_no_memory;
	for (graph->at = 0; !error && graph->at < size; graph->at++) {
		graph->offsets[graph->at] = graph->count;
		error = leak_scan_edges(graph->scan, &reread, graph->leaks->data[graph->at].index,
					is_crowded(graph->leaks, graph->at), gather_edge, graph);
		if (!error && graph->failed)
			error = &error_no_memory;
	}
	graph->offsets[size] = graph->count;
	reread_deinit(&reread);
	return error;
}

static void graph_deinit(struct graph *graph)
{
	free(graph->offsets);
	free(graph->targets);
	free(graph->has_owner);
	free(graph->is_pointed_to);
}

/* All that @owner reaches and nobody owns yet is indirect, and hangs on it. @stack has room for
 * all. */
static void own(struct graph *graph, size_t owner, size_t *stack)
{
	struct leak *leaks = graph->leaks->data;
	size_t depth = 0;

	graph->has_owner[owner] = true;
	leaks[owner].owner = owner;
	stack[depth++] = owner;
	while (depth) {
		size_t at = stack[--depth];

		for (uint64_t i = graph->offsets[at]; i < graph->offsets[at + 1]; i++) {
			size_t target = graph->targets[i];

			if (graph->has_owner[target])
				continue;
			graph->has_owner[target] = true;
			leaks[target].indirect = true;
			leaks[target].owner = owner;
			leaks[owner].indirect_count++;
			leaks[owner].indirect_bytes += leaks[target].size;
			stack[depth++] = target;
		}
	}
}

/*
 * What is left hangs on cycles. In the order in which a depth-first search leaves them, the last
 * one lies on a cycle that nothing else points to (as in Kosaraju's algorithm): that makes it an
 * owner, and so on with what it does not reach.
 */
static struct error *own_cycles(struct graph *graph, size_t *stack)
{
	size_t size = graph->leaks->size, left = 0, depth;
	cleanup(free) size_t *order = calloc(size + 1, sizeof(*order));
	cleanup(free) uint64_t *edge = calloc(size + 1, sizeof(*edge));
	cleanup(free) bool *seen = calloc(size + 1, sizeof(*seen));

	if (!order || !edge || !seen)
		return &error_no_memory;
	for (size_t start = 0; start < size; start++) {
		if (graph->has_owner[start] || seen[start])
			continue;
		depth = 0;
		stack[depth++] = start;
		seen[start] = true;
		edge[start] = graph->offsets[start];
		while (depth) {
			size_t at = stack[depth - 1], target;

			if (edge[at] == graph->offsets[at + 1]) {
				order[left++] = at;
				depth--;
				continue;
			}
			target = graph->targets[edge[at]++];
			if (graph->has_owner[target] || seen[target])
				continue;
			seen[target] = true;
			edge[target] = graph->offsets[target];
			stack[depth++] = target;
		}
	}
	while (left--) {
		if (graph->has_owner[order[left]])
			continue;
		graph->leaks->data[order[left]].cyclic = true;
		own(graph, order[left], stack);
	}
	return NULL;
}

static struct error *tell_apart(const struct leak_scan *scan, struct leak_vec *leaks)
{
	struct graph graph = { .scan = scan, .leaks = leaks };
	cleanup(free) size_t *stack = calloc(leaks->size + 1, sizeof(*stack));
	struct error *error = stack ? build_graph(&graph) : &error_no_memory;

	for (size_t i = 0; !error && i < leaks->size; i++)
		if (!graph.is_pointed_to[i])
			own(&graph, i, stack);
	if (!error)
		error = own_cycles(&graph, stack);
	graph_deinit(&graph);
	return error;
}

/* ---- the result ---- */

static struct error *sweep(const struct leak_scan *scan, struct leak_result *ret)
{
	const struct heap *heap = scan->heap;

	for (uint64_t at = 0; at < heap->bits / 64; at++) {
		uint64_t word = heap->in_use[at] & ~scan->reached[at];

		for (; word; word &= word - 1) {
			heap_index index = at * 64 + __builtin_ctzll(word);
			struct heap_chunk chunk;
			struct leak leak = { .index = index };
			struct error *error;

			heap_chunk(heap, index, &chunk);
			leak.address = chunk.address;
			leak.size = chunk.size;
			ret->leaked_count++;
			ret->leaked_bytes += chunk.size;
			error = leak_vec_append(&ret->leaks, &leak);
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
		error = tell_apart(&scan, &ret->leaks);
	leak_scan_deinit(&scan);
	if (error)
		leak_result_deinit(ret);
	return error;
}

void leak_result_deinit(struct leak_result *result)
{
	leak_vec_deinit(&result->leaks);
	*result = (struct leak_result){ 0 };
}
