#include "dispatch.h"

#include <unistd.h>

#include "memprobe/clock.h"
#include "memprobe/log.h"
#include "memprobe/ptrace.h"
#include "memprobe/stop.h"
#include "memprobe/waits.h"

#define PAUSE_US 2000

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

static struct error *look(struct target *target, const struct pid_vec *tids,
			  uint64_t *stopped_us_ret)
{
	struct error *found = NULL;
	struct stop_options options = {
		.tids = tids->data,
		.tid_count = tids->size,
		.no_stacks = true,
		.held = look_while_held,
		.data = &found,
		.stopped_us_ret = stopped_us_ret,
	};
	struct error *error = tids->size ? stop_threads(target, &options, NULL) : NULL;

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

/* Of @tids those that are in a transfer are kept; the others are looked at. */
static struct error *look_at_others(struct target *target, struct pid_vec *tids,
				    uint64_t *stopped_us_ret)
{
	struct pid_vec others = { 0 };
	struct error *error = NULL;
	size_t kept = 0;

	vec_for_each (tid, tids) {
		struct process_syscall call;

		if (wait_kind_now(target->process, target->arch, *tid, &call) == WAIT_CUT)
			tids->data[kept++] = *tid;
		else if (!error)
			error = pid_vec_append(&others, tid);
	}
	tids->size = kept;
	if (!error)
		error = look(target, &others, stopped_us_ret);
	pid_vec_deinit(&others);
	return error;
}

struct error *filters_find_dispatch(struct target *target, uint64_t timeout_us,
				    uint64_t *stopped_us_ret)
{
	uint64_t deadline = clock_us() + timeout_us;
	struct pid_vec tids = { 0 };
	struct error *error = process_list_threads(target->process, &tids);
	char text[WAIT_TEXT_MAX];

	while (!error && tids.size) {
		error = look_at_others(target, &tids, stopped_us_ret);
		if (!error && tids.size && clock_us() >= deadline)
			error = error_create(
				ERROR_BUSY, "thread %d is%s, which a stop would cut short",
				(int)tids.data[0],
				wait_describe(target->process, target->arch, tids.data[0], text));
		if (!error && tids.size)
			usleep(PAUSE_US);
	}
	pid_vec_deinit(&tids);
	return error;
}
