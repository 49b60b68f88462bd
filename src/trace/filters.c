#include "filters.h"

#include <limits.h>

#include "memprobe/num.h"
#include "memprobe/process.h"
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
