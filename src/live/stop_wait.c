#include "stopper.h"

#include <unistd.h>

#include "memprobe/clock.h"
#include "memprobe/num.h"
#include "memprobe/ptrace.h"

/* A thread that did not stop in time and is not in an uninterruptible wait gets this much more,
 * with the others released: the machine is busy, and its wait may want repair. */
#define LATE_WAIT_US 5000000
/* In so many turns at most are those stopped whose wait fails. */
#define FAILING_ROUNDS 4
/* How often a wait looks around; for one that is late, so that the time until it stops is not taken
 * for time that it is held. */
#define LOOK_US	     10000
#define LOOK_LATE_US 500

void stopper_interrupt(struct held *held)
{
	struct error *error = ptrace_interrupt(held->tid);

	if (held->hold == HOLD_SEIZED)
		held->held_since_us = clock_us();
	held->hold = error ? HOLD_GONE : HOLD_INTERRUPTED;
	error_destroy(error);
}

/* Any stop but the one asked for: a signal is passed on, then the thread is to stop again. The
 * interrupt comes first, so that it stops before it runs the handler's first instruction. */
static void pass_on(struct stopper *stopper, struct held *held, const struct ptrace_stop *stop)
{
	int signal = stop->kind == PTRACE_STOP_SIGNAL ? stop->signal : 0;
	struct error *error;

	ptrace_avoid_restart(stopper->target->process, stopper->target->arch, held->tid);
	stopper_interrupt(held);
	if (held->hold == HOLD_GONE)
		return;
	error = ptrace_resume(PTRACE_CONT, held->tid, signal);
	if (error)
		held->hold = HOLD_GONE;
	error_destroy(error);
}

static void take(struct stopper *stopper, struct held *held)
{
	const struct target *target = stopper->target;
	struct error *error =
		ptrace_take(target->process, target->arch, held->tid, &held->state.regs);

	held->hold = error ? HOLD_GONE : HOLD_STOPPED;
	error_destroy(error);
}

void stopper_wait_for(struct stopper *stopper, struct held *held, uint64_t deadline_us)
{
	while (held->hold == HOLD_INTERRUPTED || held->hold == HOLD_LATE) {
		uint64_t now = clock_us();
		uint64_t left_us = deadline_us - min_u64(now, deadline_us);
		struct ptrace_stop stop;
		struct error *error = ptrace_wait(held->tid, min_u64(left_us, LOOK_US), &stop);

		if (error) {
			held->hold = HOLD_GONE;
			error_destroy(error);
			return;
		}
		switch (stop.kind) {
		case PTRACE_STOP_TRAP:
		case PTRACE_STOP_GROUP:
			take(stopper, held);
			break;
		case PTRACE_STOP_EXITED:
			held->hold = HOLD_GONE;
			break;
		case PTRACE_STOP_NONE:
			if (stopper->options.interrupted && stopper->options.interrupted())
				stopper->cancelled = true;
			held->held_since_us = clock_us();
			if (held->held_since_us >= deadline_us) {
				held->hold = HOLD_LATE;
				return;
			}
			break;
		default:
			/* It may have stopped right after it was seized. */
			held->held_since_us = held->seized_us;
			pass_on(stopper, held, &stop);
		}
	}
}

void stopper_release(struct stopper *stopper, struct held *held)
{
	if (held->hold != HOLD_STOPPED)
		return;
	ptrace_detach(held->tid, 0);
	held->hold = HOLD_RELEASED;
	stopper->stopped_us = max_u64(stopper->stopped_us, clock_us() - held->held_since_us);
}

/* The next one at or after @first that is yet to be asked to stop, of those whose wait fails. */
static size_t next_failing(const struct stopper *stopper, size_t first)
{
	const struct held_vec *held = &stopper->held;

	while (first < held->size &&
	       (held->data[first].hold != HOLD_SEIZED || held->data[first].kind != WAIT_FAILS))
		first++;
	return first;
}

/*
 * Those whose wait fails come first, a few at a time: until it is repaired, the end of memprobe
 * would leave it failed. Of few threads, one at a time.
 */
static void stop_failing(struct stopper *stopper, size_t first, uint64_t deadline_us)
{
	size_t count = 0, at_once;

	for (size_t i = next_failing(stopper, first); i < stopper->held.size;
	     i = next_failing(stopper, i + 1))
		count++;
	at_once = 1 + count / FAILING_ROUNDS;
	for (size_t i = next_failing(stopper, first);
	     i < stopper->held.size && !stopper->cancelled;) {
		size_t begin = i, end = i;

		for (size_t asked = 0; asked < at_once && i < stopper->held.size; asked++) {
			stopper_interrupt(&stopper->held.data[i]);
			end = i + 1;
			i = next_failing(stopper, end);
		}
		for (size_t k = begin; k < end; k++)
			stopper_wait_for(stopper, &stopper->held.data[k], deadline_us);
	}
}

static void stop_from(struct stopper *stopper, size_t first, uint64_t deadline_us)
{
	stop_failing(stopper, first, deadline_us);
	for (size_t i = first; i < stopper->held.size; i++)
		if (stopper->held.data[i].hold == HOLD_SEIZED)
			stopper_interrupt(&stopper->held.data[i]);
	for (size_t i = first; i < stopper->held.size; i++)
		stopper_wait_for(stopper, &stopper->held.data[i], deadline_us);
}

void stopper_stop_all(struct stopper *stopper)
{
	uint64_t deadline_us = clock_us() + stopper->options.patience_us;
	size_t count = 1, done = 0;

	stopper->stopping = true;
	for (unsigned pass = 0; count && pass < PASSES_MAX && !stopper->cancelled; pass++) {
		stop_from(stopper, done, deadline_us);
		done = stopper->held.size;
		if (stopper->options.tids)
			return;
		stopper->error = stopper_seize_new(stopper, &count);
		if (stopper->error)
			return;
	}
	stopper->overflow |= count && !stopper->cancelled;
}

/* Whether it has still not stopped, but will. */
static bool take_if_stopped(struct stopper *stopper, struct held *held)
{
	struct process_status status;
	struct error *error;
	bool waits;

	stopper_wait_for(stopper, held, clock_us());
	if (held->hold == HOLD_LATE) {
		error = process_read_status(stopper->target->process, held->tid, &status);
		waits = !error && status.state != 'D';
		error_destroy(error);
		return waits;
	}
	if (held->hold == HOLD_STOPPED && !stopper->cancelled && !stopper->error) {
		stopper_copy(stopper, held);
		stopper->late++;
	}
	stopper_release(stopper, held);
	return false;
}

void stopper_take_late(struct stopper *stopper)
{
	uint64_t deadline_us = clock_us() + LATE_WAIT_US;
	bool more = true;

	while (more && clock_us() < deadline_us) {
		more = false;
		vec_for_each (held, &stopper->held)
			if (held->hold == HOLD_LATE)
				more |= take_if_stopped(stopper, held);
		if (more)
			usleep(LOOK_LATE_US);
	}
}
