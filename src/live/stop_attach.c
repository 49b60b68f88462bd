#include "stopper.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "memprobe/clock.h"
#include "memprobe/num.h"
#include "memprobe/pause.h"
#include "memprobe/permit.h"
#include "memprobe/ptrace.h"

/* Threads born while others are being stopped, and sleepers that are offered to options.use. */
#define ROOM_FOR_YOUNG 64

static bool is_gone(const struct error *error)
{
	return error->errnum == ESRCH || error->errnum == ECHILD;
}

static bool is_known(const struct stopper *stopper, pid_t tid)
{
	return map64_get(&stopper->known, (uint64_t)tid) != MAP64_NONE;
}

static struct error *add(struct stopper *stopper, const struct held *held)
{
	struct error *error = map64_put(&stopper->known, (uint64_t)held->tid, 0);

	return error ? error : held_vec_append(&stopper->held, held);
}

/* A thread that exits, or has exited but for its leader's zombie, cannot be attached to. */
static bool is_exiting(const struct stopper *stopper, pid_t tid)
{
	struct process_status status;
	struct error *error = process_read_status(stopper->target->process, tid, &status);
	bool exiting = error || status.state == 'Z' || status.state == 'X';

	error_destroy(error);
	return exiting;
}

struct error *stopper_seize(struct stopper *stopper, pid_t tid)
{
	struct held held = {
		.tid = tid, .kind = WAIT_RUNNING, .seized_us = clock_us(), .state.tid = tid
	};
	struct error *error = ptrace_seize(tid, 0);
	int errnum;

	if (!error)
		return add(stopper, &held);
	if (is_gone(error) || is_exiting(stopper, tid)) {
		error_destroy(error);
		held.hold = HOLD_GONE;
		return add(stopper, &held);
	}
	if (error->code != ERROR_PERMISSION)
		return error;
	errnum = error->errnum;
	error_destroy(error);
	return permit_explain(stopper->target->process, PERMIT_ATTACH, errnum);
}

/* One pass over the threads that now exist. */
struct error *stopper_seize_new(struct stopper *stopper, size_t *count_ret)
{
	struct error *error;

	*count_ret = 0;
	stopper->listing.size = 0;
	error = process_list_threads(stopper->target->process, &stopper->listing);
	if (error)
		return error;
	vec_for_each (tid, &stopper->listing) {
		if (is_known(stopper, *tid))
			continue;
		if (stopper->stopping && stopper->held.size == stopper->held.capacity) {
			stopper->overflow = true;
			return NULL;
		}
		error = stopper_seize(stopper, *tid);
		if (error)
			return error;
		++*count_ret;
	}
	return NULL;
}

static struct error *seize_given(struct stopper *stopper)
{
	struct error *error = NULL;

	for (size_t i = 0; !error && i < stopper->options.tid_count; i++) {
		struct process_status status;
		pid_t tid = stopper->options.tids[i];

		error = process_read_status(stopper->target->process, tid, &status);
		if (!error && !is_known(stopper, tid))
			error = stopper_seize(stopper, tid);
	}
	return error;
}

static struct error *seize_awake(struct stopper *stopper)
{
	struct error *error = sleepers_find(stopper->target, stopper->options.unless,
					    &stopper->sleepers, &stopper->awake, &stopper->quiet);

	for (size_t i = 0; !error && i < stopper->sleepers.size; i++)
		error = map64_put(&stopper->known, (uint64_t)stopper->sleepers.data[i].tid, 0);
	for (size_t i = 0; !error && i < stopper->awake.size; i++)
		error = stopper_seize(stopper, stopper->awake.data[i]);
	return error;
}

struct error *stopper_seize_all(struct stopper *stopper)
{
	size_t count = 1;

	if (stopper->options.sleepers_run_on)
		return seize_awake(stopper);

	if (stopper->options.tids)
		return seize_given(stopper);
	for (unsigned pass = 0; count && pass < PASSES_MAX; pass++) {
		struct error *error = stopper_seize_new(stopper, &count);

		if (error)
			return error;
	}
	return NULL;
}

static void look_at_waits(struct stopper *stopper)
{
	const struct target *target = stopper->target;

	vec_for_each (held, &stopper->held) {
		struct process_syscall call;

		held->kind = wait_kind_now(target->process, target->arch, held->tid, &call);
		held->sp = call.sp;
	}
}

/* Who stands still anyway loses nothing. */
static struct error *check_pause(struct stopper *stopper, size_t stack_bytes)
{
	const struct target *target = stopper->target;
	size_t running = 0;
	char what[64];

	vec_for_each (held, &stopper->held)
		running += held->hold == HOLD_SEIZED && held->state.state != 'T';
	snprintf(what, sizeof(what), "looking at its %zu thread%s", running,
		 running == 1 ? "" : "s");
	return running ? pause_check(target->pid, what, pause_of_stop(running, stack_bytes),
				     stopper->options.max_pause_us)
		       : NULL;
}

void stopper_read_names(struct stopper *stopper)
{
	vec_for_each (held, &stopper->held) {
		struct process_status status;
		struct error *error = NULL;

		if (held->state.name[0] || held->hold == HOLD_GONE)
			continue;
		error = process_read_status(stopper->target->process, held->tid, &status);
		if (!error) {
			memcpy(held->state.name, status.name, sizeof(held->state.name));
			/* Being attached to shows a thread that a signal had stopped as traced. */
			held->state.state = status.state == 't' ? 'T' : status.state;
		}
		error_destroy(error);
	}
}

struct error *stopper_get_ready(struct stopper *stopper)
{
	size_t room = stopper->held.size * 2 + ROOM_FOR_YOUNG;
	struct error *error = held_vec_reserve(&stopper->held, room);
	size_t expected;

	if (!error)
		error = pid_vec_reserve(&stopper->listing, room + stopper->sleepers.size);
	if (!error)
		error = target_read_maps(stopper->target, MAPS_PLAIN, &stopper->maps);
	if (!error)
		look_at_waits(stopper);
	if (error)
		return error;
	stopper_read_names(stopper);
	expected = stopper_expected_stacks(stopper);
	error = check_pause(stopper, expected);
	return error ? error : stopper_make_arena(stopper, expected);
}
