#include "guard_target.h"

#include <unistd.h>

#include "memprobe/guard.h"
#include "memprobe/predecessor.h"

/* Threads looked at. */
#define PREDECESSOR_LOOK_MAX 512

static bool is_traced_by_predecessor(const struct process *process)
{
	struct pid_vec tids = { 0 };
	struct error *error = process_list_threads(process, &tids);
	pid_t living = 0;
	bool found = false;

	for (size_t i = 0; !error && !found && i < tids.size && i < PREDECESSOR_LOOK_MAX; i++) {
		struct process_status status;

		error = process_read_status(process, tids.data[i], &status);
		if (!error && status.tracer_pid && status.tracer_pid != living) {
			living = status.tracer_pid;
			found = predecessor_is_ending(living);
		}
		/* It has ended. */
		error_destroy(take_pointer(error));
	}
	error_destroy(error);
	pid_vec_deinit(&tids);
	return found;
}

/* Where Yama lets only ancestors trace, a child of ours may not trace another one. */
static bool is_child_of_ours(const struct process *process)
{
	struct process_status status;
	struct error *error = process_read_status(process, 0, &status);
	bool is_child = !error && status.ppid == getpid();

	error_destroy(error);
	return is_child;
}

void guard_target(const struct process *process)
{
	for (unsigned us = 0; us < PREDECESSOR_WAIT_US && is_traced_by_predecessor(process);
	     us += PREDECESSOR_LOOK_US)
		usleep(PREDECESSOR_LOOK_US);
	if (!is_child_of_ours(process))
		guard_begin();
}
