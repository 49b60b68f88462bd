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
			    struct frozen_heap *frozen)
{
	struct snapshot_options snapshot_options = command_snapshot_options(context);
	struct heap_options heap_options = {
		.observer = observer,
		/* What is frozen does not change by being read again. */
		.tries = 1,
	};
	struct error *error = snapshot_take(context->target, &snapshot_options, &frozen->snapshot);

	return error ? error : heap_open(frozen->snapshot->target, &heap_options, &frozen->heap);
}

struct error *frozen_heap_open(struct command_context *context,
			       const struct heap_observer *observer, struct frozen_heap *ret)
{
	struct frozen_heap frozen = { 0 };
	struct error *error = NULL;

	for (unsigned i = 0; i < SNAPSHOTS; i++) {
		error = freeze(context, observer, &frozen);
		if (error || !frozen.heap->is_inconsistent || i + 1 == SNAPSHOTS ||
		    frozen.snapshot->kind == SNAPSHOT_STILL || command_interrupted())
			break;
		frozen_heap_close(context, &frozen);
	}
	if (error) {
		frozen_heap_close(context, &frozen);
		return error;
	}
	command_warn_of_heap(frozen.heap);
	*ret = frozen;
	return NULL;
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
