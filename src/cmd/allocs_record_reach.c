#include "allocs_record_reach.h"

#include <stdlib.h>

#include "frozen_leaks.h"
#include "memprobe/allocator.h"
#include "memprobe/heap_blocks.h"
#include "memprobe/log.h"
#include "memprobe/snapshot.h"

struct search {
	struct command_context *context;
	const struct trace_data *data;
	bool is_pool;
	uint64_t number; /* blocks with a higher one may not be in the snapshot */
	struct snapshot *snapshot;
	struct mapping_vec all, maps; /* of the latter, what @all has without the agent's */
	struct thread_vec threads;
	struct heap_block_vec blocks;
	struct heap *heap;
	struct allocator_notes notes;
};

static bool is_old(const struct search *search, const struct trace_block *block)
{
	return block->number <= search->number;
}

/* Its tables hold the address of every block. */
static struct error *find_maps(struct search *search, const struct trace_session *session)
{
	struct error *error = target_read_maps(search->snapshot->target, MAPS_PLAIN, &search->all);
	const struct trace_report *report = trace_report(session);

	vec_for_each (mapping, &search->all)
		if (!error &&
		    (mapping->end <= report->area_start || mapping->start >= report->area_end))
			error = mapping_vec_append(&search->maps, mapping);
	return error;
}

static struct error *find_threads(struct search *search)
{
	struct error *error = target_read_threads(search->snapshot->target, &search->threads);

	if (!error_is(error, ERROR_UNSUPPORTED))
		return error;
	error_destroy(error);
	return NULL;
}

static struct error *make_heap(struct search *search)
{
	struct error *error = NULL;

	vec_for_each (block, &search->data->blocks) {
		struct heap_block one = { block->address, block->size };

		if (!error && is_old(search, block))
			error = heap_block_vec_append(&search->blocks, &one);
	}
	if (!error)
		error = heap_of_blocks(search->snapshot->target, &search->maps, &search->blocks,
				       &search->heap);
	return error;
}

static struct error *find_notes(struct search *search)
{
	struct target *target = search->snapshot->target;
	struct allocator allocator;
	struct error *error;

	if (search->is_pool)
		return NULL;
	error = allocator_detect(target, &allocator);
	if (error || !allocator.ops || !allocator.ops->find_notes)
		return error;
	return allocator.ops->find_notes(target, &search->threads, &search->snapshot->threads,
					 &search->blocks, &search->notes);
}

static bool is_leak(const struct search *search, const struct leak_result *leaks,
		    const struct trace_block *block)
{
	struct heap_chunk chunk;

	return is_old(search, block) && heap_find(search->heap, block->address, &chunk) &&
	       chunk.address == block->address && chunk.size == block->size &&
	       leak_result_has(leaks, chunk.index);
}

static struct error *judge(const struct search *search, const struct leak_result *leaks,
			   struct allocs_reach *ret)
{
	const struct trace_block_vec *blocks = &search->data->blocks;

	ret->fates = calloc(blocks->size + 1, sizeof(*ret->fates));
	if (!ret->fates)
		return &error_no_memory;
	for (size_t i = 0; i < blocks->size; i++) {
		if (!is_leak(search, leaks, &blocks->data[i]))
			continue;
		ret->fates[i] = ALLOCS_UNREACHABLE;
		ret->unreachable++;
	}
	return NULL;
}

static struct error *find_leaks(struct search *search, struct allocs_reach *ret)
{
	struct leak_options options = {
		.threads = &search->threads,
		.erase = search->notes.erase,
		.erase_data = search->notes.data,
	};
	struct leak_result leaks = { 0 };
	struct error *error;

	if (search->snapshot->threads.size)
		options.states = &search->snapshot->threads;
	error = leaks_find(search->heap, &options, &leaks);
	if (!error) {
		frozen_leaks_warn(search->context, &leaks);
		error = judge(search, &leaks, ret);
	}
	leak_result_deinit(&leaks);
	return error;
}

/* Their blocks look as if they were there, and lost; and so does what has their place now. */
static void warn_of_frees(const struct trace_data *data)
{
	if (data->counters.lapses || data->counters.lost_frees)
		log_warn(
			"frees are missing in the record: what they freed, and what only blocks in "
			"its place point to, may count as leaked");
}

static void search_deinit(struct search *search)
{
	allocator_notes_deinit(&search->notes);
	heap_destroy(search->heap);
	heap_block_vec_deinit(&search->blocks);
	thread_vec_deinit(&search->threads);
	/* Its mappings are those of the other. */
	mapping_vec_deinit(&search->maps);
	mappings_deinit(&search->all);
	if (search->snapshot)
		command_stopped(search->context, snapshot_stopped_us(search->snapshot));
	snapshot_destroy(search->snapshot);
}

struct error *allocs_record_reach_find(struct command_context *context,
				       struct trace_session *session,
				       const struct trace_wanted *wanted,
				       struct trace_data **data_ret, struct allocs_reach *ret)
{
	struct search search = { .context = context,
				 .number = trace_number(session),
				 .is_pool = command_option(context, "pool") != NULL };
	struct snapshot_options options = command_snapshot_options(context);
	struct error *error = snapshot_take(context->target, &options, &search.snapshot);

	trace_pause(session);
	if (!error)
		error = trace_read(session, wanted, data_ret);
	search.data = *data_ret;
	if (!error) {
		frozen_leaks_warn_missed(search.snapshot);
		warn_of_frees(search.data);
		error = find_maps(&search, session);
	}
	if (!error)
		error = find_threads(&search);
	if (!error)
		error = make_heap(&search);
	if (!error)
		error = find_notes(&search);
	if (!error)
		error = find_leaks(&search, ret);
	search_deinit(&search);
	return error;
}
