#include "frozen_leaks.h"

#include <inttypes.h>

#include "memprobe/log.h"

struct error *frozen_leaks_open(struct command_context *context, struct frozen_leaks *ret)
{
	struct error *error = leak_prescan_create(&ret->prescan);
	const struct snapshot *snapshot;

	if (!error)
		error = frozen_heap_open(context, leak_prescan_observer(ret->prescan),
					 &ret->frozen);
	if (error)
		return error;
	snapshot = ret->frozen.snapshot;
	error = target_read_threads(snapshot->target, &ret->threads);
	if (error_is(error, ERROR_UNSUPPORTED)) {
		error_destroy(error);
		error = NULL;
	}
	if (error)
		return error;
	ret->options.threads = &ret->threads;
	ret->options.prescan = ret->prescan;
	if (snapshot->threads.size)
		ret->options.states = &snapshot->threads;
	frozen_leaks_warn_missed(snapshot);
	return NULL;
}

void frozen_leaks_close(struct command_context *context, struct frozen_leaks *leaks)
{
	leak_prescan_destroy(leaks->prescan);
	frozen_heap_close(context, &leaks->frozen);
	thread_vec_deinit(&leaks->threads);
}

void frozen_leaks_warn_missed(const struct snapshot *snapshot)
{
	vec_for_each (tid, &snapshot->missed)
		log_warn(
			"what only the registers of thread %d hold counts as leaked: it did not stop",
			(int)*tid);
}

void frozen_leaks_warn(struct command_context *context, const struct leak_result *result)
{
	if (!result->missing_bytes)
		return;
	log_warn("%" PRIu64
		 " bytes of blocks could not be read: what only they point to counts as leaked",
		 result->missing_bytes);
	context->status = ERROR_PARTIAL;
}
