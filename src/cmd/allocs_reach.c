#include "allocs_reach.h"

#include <stdlib.h>

#include "frozen_leaks.h"
#include "memprobe/allocator.h"

struct error *allocs_reach_walks(struct target *target, bool *ret)
{
	struct allocator allocator;
	struct error *error = allocator_detect(target, &allocator);

	*ret = !error && allocator.ops && allocator.ops->walk;
	return error;
}

static enum allocs_fate fate_of(const struct heap *heap, const struct leak_result *leaks,
				const struct trace_block *block)
{
	struct heap_chunk chunk;

	/* A smaller block is another one, at the place of the one that was freed. */
	if (!heap_find(heap, block->address, &chunk) || chunk.state != HEAP_IN_USE ||
	    chunk.address != block->address || chunk.size < block->size)
		return ALLOCS_FREED;
	return leak_result_has(leaks, chunk.index) ? ALLOCS_UNREACHABLE : ALLOCS_REACHABLE;
}

static struct error *judge(const struct heap *heap, const struct leak_result *leaks,
			   const struct trace_data *data, struct allocs_reach *ret)
{
	ret->fates = calloc(data->blocks.size + 1, sizeof(*ret->fates));
	if (!ret->fates)
		return &error_no_memory;
	for (size_t i = 0; i < data->blocks.size; i++) {
		enum allocs_fate fate = fate_of(heap, leaks, &data->blocks.data[i]);

		ret->fates[i] = fate;
		ret->unreachable += fate == ALLOCS_UNREACHABLE;
		ret->freed += fate == ALLOCS_FREED;
	}
	return NULL;
}

struct error *allocs_reach_find(struct command_context *context, const struct trace_data *data,
				struct allocs_reach *ret)
{
	struct frozen_leaks frozen = { 0 };
	struct leak_result leaks = { 0 };
	struct error *error = frozen_leaks_open(context, &frozen);

	if (!error)
		error = leaks_find(frozen.frozen.heap, &frozen.options, &leaks);
	if (!error) {
		frozen_leaks_warn(context, &leaks);
		error = judge(frozen.frozen.heap, &leaks, data, ret);
	}
	leak_result_deinit(&leaks);
	frozen_leaks_close(context, &frozen);
	return error;
}

void allocs_reach_deinit(struct allocs_reach *reach)
{
	free(reach->fates);
}
