#include "stopper.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "memprobe/clock.h"
#include "memprobe/guard.h"
#include "memprobe/log.h"
#include "memprobe/num.h"
#include "memprobe/ptrace.h"

/* All threads are held for at most this long when one of them does not stop, by default. */
#define STOP_WAIT_US  100000
#define STOPPER_STACK (256u << 10)

/* ---- the result ---- */

static bool take_bytes(uint8_t **bytes, size_t size)
{
	uint8_t *copy = *bytes ? malloc(size) : NULL;
	bool failed = *bytes && !copy;

	if (copy)
		memcpy(copy, *bytes, size);
	*bytes = copy;
	return !failed;
}

static struct error *take_state(struct stop *stop, struct held *held)
{
	struct error *error = thread_state_vec_reserve(&stop->threads, stop->threads.size + 1);
	struct thread_state *state;
	bool good;

	if (error)
		return error;
	state = &stop->threads.data[stop->threads.size++];
	*state = held->state;
	held->state.regsets = NULL;
	good = take_bytes(&state->stack, state->stack_size);
	for (size_t i = 0; i < THREAD_INTERRUPTED_MAX; i++)
		good &= take_bytes(&state->interrupted[i].bytes, state->interrupted[i].size);
	return good ? NULL : &error_no_memory;
}

static struct error *make_result(struct stopper *stopper, struct stop **ret)
{
	const struct target *target = stopper->target;
	cleanup(stop) struct stop *stop = calloc(1, sizeof(*stop));
	struct error *error = NULL;
	char text[WAIT_TEXT_MAX];

	if (!stop)
		return &error_no_memory;
	stop->stopped_us = stopper->stopped_us;
	stop->incomplete = stopper->overflow;
	stopper_read_names(stopper); /* of threads born while the others were being stopped */
	vec_for_each (held, &stopper->held) {
		if (held->copied)
			error = take_state(stop, held);
		else if (held->hold == HOLD_LATE || held->hold == HOLD_RELEASED)
			error = pid_vec_append(&stop->missed, &held->tid);
		if (error)
			return error;
	}
	stop->woken = stopper->woken;
	stopper->woken = (struct pid_vec){ 0 };
	vec_for_each (sleeper, &stopper->sleepers)
		if (sleeper->kind == WAIT_CUT)
			stop->in_transfer = sleeper->tid;
	if (stop->threads.size == 0 && stop->missed.size == 0 && !stopper->sleepers.size)
		return error_create(ERROR_NO_TARGET, "process %d has exited",
				    (int)stopper->target->pid);
	/* Who has so little patience tries again. */
	if (stopper->options.patience_us >= STOP_WAIT_US && stop->threads.size)
		vec_for_each (tid, &stop->missed)
			log_warn("thread %d is left out: it %s", (int)*tid,
				 wait_describe_stuck(target->process, target->arch, *tid, text));
	if (stopper->late)
		log_warn("%zu of the threads took more than %d ms to stop: "
			 "they were taken later than the others",
			 stopper->late, (int)(stopper->options.patience_us / 1000));
	if (stopper->overflow)
		log_warn("threads are being created faster than they can be stopped: "
			 "the youngest are left out");
	*ret = take_pointer(stop);
	return NULL;
}

/* ---- the tracing thread ---- */

static struct error *outcome(struct stopper *stopper, struct stop **ret)
{
	struct error *error = take_pointer(stopper->error);

	if (!error && stopper->cancelled)
		error = error_create(ERROR_FAILED, "interrupted while stopping process %d",
				     (int)stopper->target->pid);
	return error ? error : make_result(stopper, ret);
}

static bool offer(struct stopper *stopper, struct held *held)
{
	const struct stop_options *options = &stopper->options;
	struct user_regs_struct regs = held->state.regs;

	if (held->hold != HOLD_STOPPED || !held->copied ||
	    !options->use(options->data, held->tid, &regs))
		return false;
	held->hold = HOLD_RELEASED;
	stopper->stopped_us = max_u64(stopper->stopped_us, clock_us() - held->held_since_us);
	return true;
}

/* A thread that sleeps, and as far as can be told is still in a wait that a stop does not harm. */
static bool offer_sleeper(struct stopper *stopper, const struct sleeper *sleeper)
{
	const struct target *target = stopper->target;
	struct process_syscall call;
	struct held *held;

	if (wait_kind_now(target->process, target->arch, sleeper->tid, &call) != sleeper->kind)
		return false;
	stopper->error = stopper_seize(stopper, sleeper->tid);
	if (stopper->error)
		return false;
	held = &stopper->held.data[stopper->held.size - 1];
	held->kind = sleeper->kind;
	if (held->hold != HOLD_SEIZED)
		return false;
	stopper_interrupt(held);
	stopper_wait_for(stopper, held, clock_us() + stopper->options.patience_us);
	if (held->hold == HOLD_STOPPED)
		stopper_copy(stopper, held);
	if (offer(stopper, held))
		return true;
	stopper_release(stopper, held);
	return false;
}

static void lend_to_use(struct stopper *stopper)
{
	static const enum wait_kind kinds[] = { WAIT_RESTARTS, WAIT_FAILS, WAIT_UNKNOWN };

	vec_for_each (held, &stopper->held)
		if (offer(stopper, held))
			return;
	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
		vec_for_each (sleeper, &stopper->sleepers) {
			if (stopper->error || stopper->held.size == stopper->held.capacity)
				return;
			if (sleeper->kind == kinds[i] && offer_sleeper(stopper, sleeper))
				return;
		}
}

/* While all are held: what the caller wants beyond a copy. */
static void lend(struct stopper *stopper)
{
	const struct stop_options *options = &stopper->options;

	if (options->use)
		lend_to_use(stopper);
	if (options->held) {
		struct stop *stop = NULL;
		struct error *error = outcome(stopper, &stop);

		stopper->lent = true;
		options->held(options->data, stop, error);
	}
}

static void hand_over(struct stopper *stopper)
{
	struct stop *stop = NULL;
	struct error *error = outcome(stopper, &stop);

	ptrace_restore_priority();
	stopper->options.after(stopper->options.data, stop, error);
}

/* Who was borrowed for options.use has been awake for that. */
static void check_sleepers(struct stopper *stopper)
{
	size_t kept = 0;

	vec_for_each (sleeper, &stopper->sleepers) {
		bool held_too = false;

		vec_for_each (held, &stopper->held)
			held_too = held_too || held->tid == sleeper->tid;
		if (!held_too)
			stopper->sleepers.data[kept++] = *sleeper;
	}
	stopper->sleepers.size = kept;
	if (!stopper->error)
		stopper->error =
			sleepers_check(stopper->target, &stopper->sleepers, &stopper->woken);
}

static void *run_stopper(void *data)
{
	struct stopper *stopper = data;

	stopper->tracer = gettid();
	stopper->error = stopper_seize_all(stopper);
	if (!stopper->error)
		stopper->error = stopper_get_ready(stopper);
	if (stopper->error)
		goto out;
	ptrace_raise_priority();
	if (stopper->quiet)
		sleepers_await(stopper->target, &stopper->awake);
	guard_enter();
	stopper_stop_all(stopper);
	if (!stopper->cancelled && !stopper->error)
		vec_for_each (held, &stopper->held)
			if (held->hold == HOLD_STOPPED)
				stopper_copy(stopper, held);
	if (!stopper->cancelled && !stopper->error)
		lend(stopper);
	vec_for_each (held, &stopper->held)
		stopper_release(stopper, held);
	check_sleepers(stopper);
	stopper_take_late(stopper);
	guard_leave();
out:
	/* Whoever waits for a callback is told of a failure, too. */
	if (stopper->options.after)
		hand_over(stopper);
	else if (stopper->options.held && !stopper->lent)
		stopper->options.held(stopper->options.data, NULL, outcome(stopper, NULL));
	return NULL;
}

static struct error *start_stopper(struct stopper *stopper)
{
	pthread_attr_t attributes;
	pthread_t thread;
	int errnum;

	pthread_attr_init(&attributes);
	pthread_attr_setstacksize(&attributes, STOPPER_STACK);
	errnum = pthread_create(&thread, &attributes, run_stopper, stopper);
	pthread_attr_destroy(&attributes);
	if (errnum)
		return error_errno(ERROR_FAILED, errnum, "cannot start a thread");
	ptrace_join(thread, stopper->target->process);
	/* It returns a little before the kernel detaches what the thread still traces. */
	for (unsigned i = 0; i < 1000 && tgkill(getpid(), stopper->tracer, 0) == 0; i++)
		usleep(100);
	return NULL;
}

struct error *stop_threads(struct target *target, const struct stop_options *options,
			   struct stop **ret)
{
	struct stopper stopper = { .target = target };
	cleanup(stop) struct stop *stop = NULL;
	struct error *error;

	if (!target->process)
		return error_create(ERROR_UNSUPPORTED, "cannot stop %s: it is not a live process",
				    target->name);
	if (options)
		stopper.options = *options;
	if (!stopper.options.stack_max)
		stopper.options.stack_max = STOP_STACK_MAX;
	if (!stopper.options.stack_total)
		stopper.options.stack_total = STOP_STACK_TOTAL;
	if (!stopper.options.patience_us)
		stopper.options.patience_us = STOP_WAIT_US;
	ptrace_prepare();
	atomic_fetch_add(&target->busy, 1);
	error = start_stopper(&stopper);
	atomic_fetch_sub(&target->busy, 1);
	if (!error && !stopper.options.after && !stopper.options.held)
		error = outcome(&stopper, &stop);
	if (stop)
		error = stop_check(target, stop);
	if (stop && !error)
		*ret = take_pointer(stop);
	if (stopper.options.stopped_us_ret)
		*stopper.options.stopped_us_ret =
			max_u64(*stopper.options.stopped_us_ret, stopper.stopped_us);
	if (stopper.arena)
		munmap(stopper.arena, stopper.arena_size);
	vec_for_each (held, &stopper.held)
		free(held->state.regsets);
	held_vec_deinit(&stopper.held);
	pid_vec_deinit(&stopper.listing);
	map64_deinit(&stopper.known);
	sleeper_vec_deinit(&stopper.sleepers);
	pid_vec_deinit(&stopper.awake);
	pid_vec_deinit(&stopper.woken);
	mappings_deinit(&stopper.maps);
	return error;
}

struct error *stop_check(struct target *target, const struct stop *stop)
{
	pid_t tid = stop->missed.size ? stop->missed.data[0] : 0;
	char text[WAIT_TEXT_MAX], subject[64];

	if (!tid || stop->threads.size)
		return NULL;
	wait_describe_stuck(target->process, target->arch, tid, text);
	if (stop->missed.size == 1 && tid == target->pid)
		snprintf(subject, sizeof(subject), "it");
	else
		snprintf(subject, sizeof(subject), "thread %d", (int)tid);
	return error_hint(error_create(ERROR_BUSY, "cannot stop %d now: %s %s", (int)target->pid,
				       subject, text),
			  "try again when that is over");
}

void stop_destroy(struct stop *stop)
{
	if (!stop)
		return;
	thread_states_deinit(&stop->threads);
	pid_vec_deinit(&stop->missed);
	pid_vec_deinit(&stop->woken);
	free(stop);
}
