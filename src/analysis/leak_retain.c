/*
 * Who points to a block: breadth first from the roots, so that the chain found is a shortest one.
 */
#include <string.h>

#include "leak_scan.h"
#include "memprobe/num.h"
#include "memprobe/sparse_read.h"

#define NO_PARENT SIZE_MAX

/* A block that was reached, and through which other one. */
struct visit {
	heap_index index;
	size_t parent; /* in the queue */
};

VEC_DEFINE(visit_vec, struct visit)

struct search {
	struct leak_scan *scan;
	struct visit_vec queue;
	struct reread reread;
	size_t at; /* the parent at hand */
	bool failed;
};

static void reach(void *data, heap_index index)
{
	struct search *search = data;
	struct visit visit = { index, search->at };
	uint64_t *word = &search->scan->reached[index / 64], bit = 1ull << (index % 64);

	if (*word & bit)
		return;
	*word |= bit;
	if (visit_vec_append(&search->queue, &visit))
		search->failed = true;
}

/* *found_ret: where in the queue @wanted is; NO_PARENT: not reached. */
static struct error *search_breadth(struct search *search, heap_index wanted, size_t *found_ret)
{
	*found_ret = NO_PARENT;
	search->at = NO_PARENT;
	vec_for_each (index, &search->scan->from_roots)
		reach(search, *index);
	for (size_t i = 0; i < search->queue.size && !search->failed; i++) {
		heap_index index = search->queue.data[i].index;
		struct error *error;

		if (index == wanted) {
			*found_ret = i;
			return NULL;
		}
		search->at = i;
		error = leak_scan_edges(search->scan, &search->reread, index, false, reach, search);
		if (error)
			return error;
	}
	return search->failed ? &error_no_memory : NULL;
}

/* ---- places ---- */

/* Calls for the words of [start, end) that point into the block @target. */
static struct error *find_words(const struct leak_scan *scan, uint64_t start, uint64_t end,
				const struct mapping *file, heap_index target,
				const struct retain_step *like, struct retain_step_vec *ret,
				size_t max)
{
	cleanup(free) uint8_t *bytes = malloc(ROOT_PART);
	unsigned word = scan->word;
	struct error *error = bytes ? NULL : &error_no_memory;

	for (; !error && start < end && ret->size < max; start += ROOT_PART) {
		size_t size = min_u64(end - start, ROOT_PART);

		error = target_read_shared(scan->heap->target, file, start, bytes, size);
		for (size_t i = 0; !error && i + word <= size && ret->size < max; i += word) {
			struct retain_step step = *like;

			if (leak_scan_resolve(scan, load_word(bytes + i, word)) != target)
				continue;
			step.at = start + i;
			error = retain_step_vec_append(ret, &step);
		}
	}
	return error;
}

static struct error *find_roots_to(const struct leak_scan *scan, heap_index target,
				   struct retain_step_vec *ret, size_t max)
{
	struct error *error = NULL;

	vec_for_each (word, &scan->roots.words) {
		struct retain_step step = { .kind = ROOT_REGISTER,
					    .tid = word->tid,
					    .number = word->number };

		if (!error && ret->size < max && leak_scan_resolve(scan, word->value) == target)
			error = retain_step_vec_append(ret, &step);
	}
	vec_for_each (root, &scan->roots.ranges) {
		struct retain_step step = { .kind = root->kind, .tid = root->tid };

		if (!error && ret->size < max)
			error = find_words(scan, root->start, root->end, root->file, target, &step,
					   ret, max);
	}
	return error;
}

static struct error *find_in_block(const struct leak_scan *scan, heap_index block,
				   heap_index target, struct retain_step_vec *ret, size_t max)
{
	struct heap_chunk chunk;
	struct retain_step step = { .kind = ROOT_NONE };

	heap_chunk(scan->heap, block, &chunk);
	step.block = chunk.address;
	step.size = chunk.size;
	return find_words(scan, chunk.address, chunk.address + chunk.size, NULL, target, &step, ret,
			  max);
}

struct referrers {
	heap_index wanted;
	bool found;
};

static void is_wanted(void *data, heap_index target)
{
	struct referrers *referrers = data;

	referrers->found |= target == referrers->wanted;
}

/* What threads that ended have left on their stacks keeps nothing, but people look for it. */
static struct error *find_in_ended(const struct leak_scan *scan, heap_index target,
				   struct retain_step_vec *ret)
{
	const struct retain_step step = { .kind = ROOT_ENDED };
	struct error *error = NULL;

	vec_for_each (block, &scan->roots.ended)
		if (!error && ret->size < RETAIN_REFERRERS_MAX)
			error = find_words(scan, block->start, block->end, NULL, target, &step, ret,
					   RETAIN_REFERRERS_MAX);
	return error;
}

/* Roots first, then the blocks. */
static struct error *find_referrers(const struct leak_scan *scan, struct reread *reread,
				    heap_index wanted, struct retain_step_vec *ret)
{
	const struct heap *heap = scan->heap;
	struct error *error = find_roots_to(scan, wanted, ret, RETAIN_REFERRERS_MAX);

	if (!error)
		error = find_in_ended(scan, wanted, ret);
	for (uint64_t at = 0; !error && at < heap->bits / 64; at++) {
		for (uint64_t word = heap->in_use[at]; !error && word; word &= word - 1) {
			heap_index index = at * 64 + __builtin_ctzll(word);
			struct referrers referrers = { .wanted = wanted };

			if (ret->size >= RETAIN_REFERRERS_MAX)
				return NULL;
			error = leak_scan_edges(scan, reread, index, true, is_wanted, &referrers);
			if (!error && referrers.found)
				error = find_in_block(scan, index, wanted, ret,
						      RETAIN_REFERRERS_MAX);
		}
	}
	return error;
}

/* From the root to the block. */
static struct error *build_chain(const struct search *search, size_t found,
				 struct retain_step_vec *ret)
{
	const struct visit *queue = search->queue.data;
	size_t length = 0, at = found;
	cleanup(free) size_t *path = NULL;
	struct error *error;

	for (; at != NO_PARENT; at = queue[at].parent)
		length++;
	path = calloc(length, sizeof(*path));
	if (!path)
		return &error_no_memory;
	for (at = found; at != NO_PARENT; at = queue[at].parent)
		path[--length] = at;
	for (at = found; at != NO_PARENT; at = queue[at].parent)
		length++;
	error = find_roots_to(search->scan, queue[path[0]].index, ret, 1);
	for (size_t i = 0; !error && i + 1 < length; i++)
		error = find_in_block(search->scan, queue[path[i]].index, queue[path[i + 1]].index,
				      ret, ret->size + 1);
	return error;
}

struct error *leaks_retain(const struct heap *heap, const struct leak_options *options,
			   heap_index index, struct retain_step_vec *chain_ret,
			   struct retain_step_vec *referrers_ret)
{
	struct leak_scan scan;
	struct search search = { .scan = &scan };
	size_t found = NO_PARENT;
	struct error *error = leak_scan_run(&scan, heap, options);

	if (!error)
		error = search_breadth(&search, index, &found);
	if (!error && found != NO_PARENT)
		error = build_chain(&search, found, chain_ret);
	if (!error)
		error = find_referrers(&scan, &search.reread, index, referrers_ret);
	reread_deinit(&search.reread);
	visit_vec_deinit(&search.queue);
	leak_scan_deinit(&scan);
	return error;
}
