#include "filters.h"

#include <limits.h>

#include "memprobe/log.h"
#include "memprobe/num.h"
#include "memprobe/process.h"
#include "memprobe/ptrace.h"
#include "memprobe/seccomp.h"

enum { STRICT = 1, FILTERED = 2 };

static int count_of(struct target *target, pid_t tid)
{
	struct process_status status = { 0 };
	struct error *error = process_read_status(target->process, tid, &status);
	int count = 0;

	if (!error && status.seccomp == STRICT)
		count = INT_MAX;
	if (!error && status.seccomp == FILTERED)
		count = status.seccomp_filters > 0 ? status.seccomp_filters : 1;
	error_destroy(error);
	return count;
}

int filters_count(struct target *target, bool all)
{
	struct pid_vec tids = { 0 };
	struct error *error = all ? process_list_threads(target->process, &tids) : NULL;
	int most = count_of(target, 0);

	for (size_t i = 0; !error && i < tids.size; i++) {
		int count = count_of(target, tids.data[i]);

		most = count > most ? count : most;
	}
	error_destroy(error);
	pid_vec_deinit(&tids);
	return most;
}

static struct error *allow_agent(struct target *target, pid_t tid, uint64_t image)
{
	static const struct seccomp_call calls[] = {
		{ "gettid", 186, { 0 }, true },
		{ "rt_sigprocmask", 14, { UINT32_MAX, 0, 0, 8 }, true },
		{ "sigaltstack", 131, { 0 }, true },
	};
	struct process_status status = { 0 };
	struct seccomp_filters filters = { 0 };
	struct error *error = process_read_status(target->process, tid, &status);

	if (!error)
		error = seccomp_load(tid, status.seccomp, &filters);
	if (!error)
		error = seccomp_allows(&filters, tid, target->arch->audit_arch, image, calls,
				       sizeof(calls) / sizeof(calls[0]));
	seccomp_deinit(&filters);
	return error;
}

struct error *filters_allow_agent(struct target *target, const struct stop *stop, uint64_t image)
{
	struct error *error = NULL;

	for (size_t i = 0; !error && i < stop->threads.size; i++)
		error = allow_agent(target, stop->threads.data[i].tid, image);
	return error;
}

struct error *filters_no_dispatch(const struct stop *stop)
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

	*found = error ? error : filters_no_dispatch(stop);
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
