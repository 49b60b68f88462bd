#include "tracer.h"

#include <unistd.h>

#include "memprobe/clock.h"
#include "memprobe/log.h"

/* For the last stop of all of them, while those that have come to it wait for the others. */
#define LEAVE_TOGETHER_US 200000
/* Then for each that is late. One in an uninterruptible wait comes to no stop. */
#define LEAVE_MOST_US 10000000
#define LEAVE_LOOK_US 200
#define STUCK_LOOK_US 20000

struct error *tracer_look_at_each(struct syscall_tracer *tracer, bool *found_ret)
{
	struct error *error = NULL;

	*found_ret = false;
	for (size_t i = 0; !error && i < tracer->tracees.size; i++) {
		struct tracee *tracee = &tracer->tracees.data[i];
		uint64_t now = clock_us();
		struct ptrace_stop stop;

		if (tracee->gone || tracee->parked)
			continue;
		error = ptrace_wait(tracee->tid, 0, &stop);
		if (error)
			break;
		if (stop.kind == PTRACE_STOP_NONE) {
			tracee->running_us = now;
			continue;
		}
		*found_ret = true;
		error = tracer_handle(tracer, tracee->tid, &stop);
	}
	return error;
}

/* Until all have come to their last stop and, where they are let go there, have gone. */
static struct error *await_last_stops(struct syscall_tracer *tracer, uint64_t deadline_us)
{
	struct error *error = NULL;
	bool found;

	while (!error && tracer->living > tracer->parked && clock_us() < deadline_us &&
	       !atomic_load(&tracer->execed)) {
		error = tracer_look_at_each(tracer, &found);
		if (!error && !found)
			usleep(LEAVE_LOOK_US);
	}
	return error;
}

static void let_go_of(struct syscall_tracer *tracer, struct tracee *tracee)
{
	if (tracee->gone || !tracee->parked)
		return;
	ptrace_detach(tracee->tid, 0);
	tracer_note_held(tracer, tracee);
	tracer_forget(tracer, tracee);
}

/* The first thread first; see seize_all(). */
static void let_go_of_all(struct syscall_tracer *tracer)
{
	tracer->letting_go = true;
	vec_for_each (tracee, &tracer->tracees)
		if (tracee->tid == tracer->target->pid)
			let_go_of(tracer, tracee);
	vec_for_each (tracee, &tracer->tracees)
		let_go_of(tracer, tracee);
}

/* Whether one that has not come to its last stop will. */
static bool somebody_is_late(struct syscall_tracer *tracer)
{
	bool late = false;

	for (size_t i = 0; !late && i < tracer->tracees.size; i++) {
		const struct tracee *tracee = &tracer->tracees.data[i];
		struct process_status status;
		struct error *error = NULL;

		if (tracee->gone)
			continue;
		error = process_read_status(tracer->target->process, tracee->tid, &status);
		late = !error && status.state != 'D';
		error_destroy(error);
	}
	return late;
}

/*
 * All are stopped before the first is let go: what wakes a thread for one that is still traced
 * finds none that we do not repair.
 */
void tracer_leave(struct syscall_tracer *tracer)
{
	uint64_t begin_us = clock_us();
	struct error *error;

	tracer->leaving = true;
	tracer_interrupt_all(tracer);
	error = await_last_stops(tracer, begin_us + LEAVE_TOGETHER_US);
	let_go_of_all(tracer);
	while (!error && tracer->living && clock_us() < begin_us + LEAVE_MOST_US &&
	       !atomic_load(&tracer->execed) && somebody_is_late(tracer))
		error = await_last_stops(tracer, clock_us() + STUCK_LOOK_US);
	if (error)
		log_debug("%s", error->message);
	error_destroy(error);
}
