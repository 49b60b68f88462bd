#include "frozen_heap.h"

#include "memprobe/log.h"

#define SNAPSHOTS 4

struct snapshot_options command_snapshot_options(const struct command_context *context)
{
	return (struct snapshot_options){
		.no_fork = command_option(context, "no-fork") != NULL,
		.timeout_us = context->timeout_us,
		.max_pause_us = context->max_pause_us,
		.interrupted = command_interrupted,
	};
}

static struct error *freeze(struct command_context *context, const struct heap_observer *observer,
			    bool no_fork, struct frozen_heap *frozen)
{
	struct snapshot_options snapshot_options = command_snapshot_options(context);
	struct heap_options heap_options = {
		.observer = observer,
		/* What is frozen does not change by being read again. */
		.tries = 1,
	};
	struct error *error;

	snapshot_options.no_fork = no_fork;
	/* Who looks on asks for what registers hold. */
	snapshot_options.memory_only = !observer;
	error = snapshot_take(context->target, &snapshot_options, &frozen->snapshot);
	return error ? error : heap_open(frozen->snapshot->target, &heap_options, &frozen->heap);
}

/* Whether another snapshot may be luckier: damage counts only if two of them show the same. */
static bool is_settled(const struct frozen_heap *frozen, bool is_second)
{
	const struct heap *heap = frozen->heap;

	return !heap->is_inconsistent || frozen->snapshot->kind == SNAPSHOT_STILL ||
	       (is_second && (!heap->is_damaged || heap->is_confirmed)) || command_interrupted();
}

struct error *frozen_heap_open(struct command_context *context,
			       const struct heap_observer *observer, struct frozen_heap *ret)
{
	bool no_fork = command_option(context, "no-fork") != NULL, hold = false;
	struct heap_issue_vec before = { 0 };
	struct frozen_heap frozen = { 0 };
	struct error *error = NULL;

	for (unsigned i = 0; i < SNAPSHOTS; i++) {
		error = freeze(context, observer, no_fork || hold, &frozen);
		if (error && hold && error_is(error, ERROR_BUSY)) {
			/* Rather an incomplete one than none. */
			frozen_heap_close(context, &frozen);
			error_destroy(error);
			error = freeze(context, observer, no_fork, &frozen);
		}
		if (error)
			break;
		if (i)
			heap_compare_looks(frozen.heap, &before);
		if (is_settled(&frozen, i != 0) || i + 1 == SNAPSHOTS)
			break;
		/* Not all that a process has comes with its fork (MADV_WIPEONFORK). */
		hold = frozen.heap->missing_bytes && !frozen.heap->is_damaged;
		heap_issue_vec_deinit(&before);
		before = frozen.heap->issues;
		frozen.heap->issues = (struct heap_issue_vec){ 0 };
		frozen_heap_close(context, &frozen);
	}
	heap_issue_vec_deinit(&before);
	if (error) {
		frozen_heap_close(context, &frozen);
		return error;
	}
	command_warn_of_heap(context, frozen.heap);
	*ret = frozen;
	return NULL;
}

void frozen_heap_release(struct command_context *context, const struct frozen_heap *frozen)
{
	snapshot_release(frozen->snapshot);
	command_stopped(context, snapshot_stopped_us(frozen->snapshot));
}

void frozen_heap_close(struct command_context *context, struct frozen_heap *frozen)
{
	heap_destroy(take_pointer(frozen->heap));
	if (frozen->snapshot)
		command_stopped(context, snapshot_stopped_us(frozen->snapshot));
	snapshot_destroy(take_pointer(frozen->snapshot));
}

void frozen_heap_warn_of_types(const struct object_types *types)
{
	if (types && object_types_lack_memory(types))
		log_warn(
			"files that the program had mapped are missing: the classes of objects may "
			"be unknown");
}
