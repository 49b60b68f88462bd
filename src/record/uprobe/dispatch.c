#include "dispatch.h"

#include "memprobe/log.h"
#include "memprobe/ptrace.h"
#include "memprobe/stop.h"

static struct error *no_dispatch(const struct stop *stop)
{
	vec_for_each (thread, &stop->threads)
		if (ptrace_has_dispatch(thread->tid))
			return error_create(ERROR_UNSUPPORTED,
					    "thread %d has its system calls dispatched to itself "
					    "(PR_SET_SYSCALL_USER_DISPATCH), and so those that "
					    "recording makes in it",
					    (int)thread->tid);
	return NULL;
}

static void look_while_held(void *data, struct stop *stop, struct error *error)
{
	struct error **found = data;

	*found = error ? error : no_dispatch(stop);
	stop_destroy(stop);
}

struct error *filters_find_dispatch(struct target *target, uint64_t *stopped_us_ret)
{
	struct error *found = NULL;
	struct stop_options options = {
		.no_stacks = true,
		.held = look_while_held,
		.data = &found,
		.stopped_us_ret = stopped_us_ret,
	};
	struct error *error = stop_threads(target, &options, NULL);

	if (!error)
		error = found;
	else
		error_destroy(found);
	if (!error || error_is(error, ERROR_UNSUPPORTED))
		return error;
	log_debug("dispatched system calls: %s", error->message);
	error_destroy(error);
	return NULL;
}
