#include "memprobe/stop.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "memprobe/clock.h"
#include "memprobe/guard.h"
#include "memprobe/log.h"
#include "memprobe/map64.h"
#include "memprobe/num.h"
#include "memprobe/pause.h"
#include "memprobe/permit.h"
#include "memprobe/ptrace.h"
#include "signal_frames.h"
#include "sleepers.h"
#include "memprobe/waits.h"

/* All threads are held for at most this long when one of them does not stop, by default. */
#define STOP_WAIT_US 100000
/* A thread that did not stop in time and is not in an uninterruptible wait gets this much more,
 * with the others released: the machine is busy, and its wait may want repair. */
#define LATE_WAIT_US 5000000
/* In so many turns at most are those stopped whose wait fails. */
#define FAILING_ROUNDS 4
/* Threads born while others are being stopped, and sleepers that are offered to options.use. */
#define ROOM_FOR_YOUNG 64
/* How often a wait looks around; for one that is late, so that the time until it stops is not taken
 * for time that it is held. */
#define LOOK_US	     10000
#define LOOK_LATE_US 500
/* Passes over /proc/PID/task; each pass finds only threads born during the one before. */
#define PASSES_MAX 64
/* Copied of a stack whose depth is not known before the stop. */
#define STACK_GUESS   (32u << 10)
#define STOPPER_STACK (256u << 10)
/* How far below its stack the pointer of an overflowed one is looked for. */
#define OVERFLOW_MAX (16ull << 20)

enum hold {
	HOLD_SEIZED,	  /* attached, running */
	HOLD_INTERRUPTED, /* asked to stop */
	HOLD_STOPPED,
	HOLD_LATE,     /* did not stop in time */
	HOLD_RELEASED, /* detached after it was stopped */
	HOLD_GONE,
};

struct held {
	pid_t tid;
	enum hold hold;
	enum wait_kind kind; /* shortly before the stop */
	uint64_t sp;	     /* likewise; 0: unknown */
	bool copied;	     /* `state` is complete; its stack points into the arena */
	uint64_t seized_us;
	uint64_t held_since_us; /* when it was last known not to be */
	struct thread_state state;
};

VEC_DEFINE(held_vec, struct held)

struct stopper {
	struct target *target;
	struct stop_options options;
	struct held_vec held; /* does not grow once threads are being stopped */
	struct pid_vec listing;
	struct map64 known;	     /* ids of those in `held`, and of the sleepers */
	struct sleeper_vec sleepers; /* who are not stopped */
	struct pid_vec awake, woken;
	bool quiet; /* those in `awake` were asleep when last seen */
	struct mapping_vec maps;
	uint8_t *arena; /* takes the stacks' bytes */
	size_t arena_size, arena_used;
	bool stopping;	/* from the first interrupt on */
	bool cancelled; /* by options.interrupted */
	bool lent;	/* options.held has been called */
	size_t late;	/* threads that were taken later than the others */
	bool overflow;	/* more threads were born than there is room for */
	uint64_t stopped_us;
	pid_t tracer; /* the stopper's own thread */
	struct error *error;
};

static bool is_gone(const struct error *error)
{
	return error->errnum == ESRCH || error->errnum == ECHILD;
}

/* ---- attaching, which stops nothing ---- */

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

static struct error *seize(struct stopper *stopper, pid_t tid)
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
static struct error *seize_new(struct stopper *stopper, size_t *count_ret)
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
		error = seize(stopper, *tid);
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
			error = seize(stopper, tid);
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
		error = seize(stopper, stopper->awake.data[i]);
	return error;
}

static struct error *seize_all(struct stopper *stopper)
{
	size_t count = 1;

	if (stopper->options.sleepers_run_on)
		return seize_awake(stopper);

	if (stopper->options.tids)
		return seize_given(stopper);
	for (unsigned pass = 0; count && pass < PASSES_MAX; pass++) {
		struct error *error = seize_new(stopper, &count);

		if (error)
			return error;
	}
	return NULL;
}

/* ---- getting ready, so that nothing needs memory, files or luck while threads are held ---- */

static void look_at_waits(struct stopper *stopper)
{
	const struct target *target = stopper->target;

	vec_for_each (held, &stopper->held) {
		struct process_syscall call;

		held->kind = wait_kind_now(target->process, target->arch, held->tid, &call);
		held->sp = call.sp;
	}
}

static size_t expected_stack(struct stopper *stopper, const struct held *held)
{
	const struct mapping *mapping = held->sp ? mappings_find(&stopper->maps, held->sp) : NULL;

	if (!mapping)
		return min_u64(STACK_GUESS, stopper->options.stack_max);
	return min_u64(mapping->end - held->sp + 2 * PAGE_SIZE, stopper->options.stack_max);
}

static size_t expected_stacks(struct stopper *stopper)
{
	size_t expected = 0;

	if (stopper->options.no_stacks)
		return 0;
	vec_for_each (held, &stopper->held)
		expected += expected_stack(stopper, held);
	return min_u64(expected, stopper->options.stack_total);
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

static struct error *make_arena(struct stopper *stopper, size_t expected)
{
	if (stopper->options.no_stacks)
		return NULL;
	stopper->arena_size = min_u64((stopper->held.capacity + 1) * stopper->options.stack_max,
				      stopper->options.stack_total);
	stopper->arena = mmap(NULL, stopper->arena_size, PROT_READ | PROT_WRITE,
			      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (stopper->arena == MAP_FAILED) {
		stopper->arena = NULL;
		return &error_no_memory;
	}
	memset(stopper->arena, 0, expected);
	return NULL;
}

static void read_names(struct stopper *stopper)
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

static struct error *get_ready(struct stopper *stopper)
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
	read_names(stopper);
	expected = expected_stacks(stopper);
	error = check_pause(stopper, expected);
	return error ? error : make_arena(stopper, expected);
}

/* ---- stopping ---- */

static void interrupt(struct held *held)
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
	interrupt(held);
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

static void wait_for(struct stopper *stopper, struct held *held, uint64_t deadline_us)
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

/* A stack that overflowed: its pointer stands below it, in the guard or in nothing. */
static const struct mapping *stack_above(const struct stopper *stopper, uint64_t sp)
{
	vec_for_each (mapping, &stopper->maps) {
		if (mapping->start > sp + OVERFLOW_MAX)
			return NULL;
		if (mapping->start > sp && (mapping->perms & PERM_READ))
			return mapping;
	}
	return NULL;
}

/* Behind a guard at @start that is no mapping of its own (MADV_GUARD_INSTALL); @end: not found. */
static uint64_t behind_guard(struct stopper *stopper, uint64_t start, uint64_t end)
{
	uint64_t at = round_down(start, PAGE_SIZE) + PAGE_SIZE;

	end = min_u64(end, start + OVERFLOW_MAX);
	for (uint8_t byte; at < end; at += PAGE_SIZE) {
		struct error *error = target_read(stopper->target, at, &byte, 1);

		if (!error)
			return at;
		error_destroy(error);
	}
	return end;
}

/* Reads [start, start + *size), or as much of its beginning as can be read. */
static struct error *read_beginning(struct stopper *stopper, uint64_t start, uint8_t *place,
				    size_t *size)
{
	struct error *error = target_read(stopper->target, start, place, *size);

	if (!error_is(error, ERROR_FAULT) || error->address <= start ||
	    error->address - start >= *size)
		return error;
	*size = error->address - start;
	error_destroy(error);
	return target_read(stopper->target, start, place, *size);
}

/* The stack from @start up, or from behind a guard there. Where the mapping is not known (it is
 * younger than our look at the maps), as far as it can be read. */
static void copy_from(struct stopper *stopper, uint64_t start, const struct mapping *mapping,
		      struct stack_copy *ret)
{
	uint64_t end = mapping ? mapping->end : UINT64_MAX;
	uint8_t *place = stopper->arena + stopper->arena_used;
	size_t space =
		min_u64(stopper->options.stack_max, stopper->arena_size - stopper->arena_used);
	size_t room = min_u64(space, end - start);
	struct error *error = room ? read_beginning(stopper, start, place, &room) : NULL;

	if (mapping && error_is(error, ERROR_FAULT) && error->address == start) {
		start = behind_guard(stopper, start, end);
		room = min_u64(space, end - start);
		error_destroy(error);
		error = room ? read_beginning(stopper, start, place, &room) : NULL;
	}
	if (!error && room) {
		*ret = (struct stack_copy){ start, room, place };
		stopper->arena_used += room;
	}
	error_destroy(error);
}

/* From the red zone below @sp up. */
static void copy_stack(struct stopper *stopper, uint64_t sp, struct stack_copy *ret)
{
	const struct arch *arch = stopper->target->arch;
	const struct mapping *mapping = mappings_find(&stopper->maps, sp);

	if (!mapping)
		copy_from(stopper, sp, NULL, ret);
	else if (mapping->perms & PERM_READ)
		copy_from(stopper, max_u64(sp - min_u64(sp, arch->red_zone), mapping->start),
			  mapping, ret);
	if (ret->bytes)
		return;
	mapping = stack_above(stopper, sp);
	if (mapping)
		copy_from(stopper, mapping->start, mapping, ret);
}

static bool is_copied(const struct thread_state *state, uint64_t address)
{
	if (address - state->stack_start < state->stack_size)
		return true;
	for (size_t i = 0; i < THREAD_INTERRUPTED_MAX; i++)
		if (address - state->interrupted[i].start < state->interrupted[i].size)
			return true;
	return false;
}

/* Appends the stacks that were interrupted by signals whose handlers run on @stack. */
static void copy_interrupted(struct stopper *stopper, struct thread_state *state,
			     const struct stack_copy *stack, size_t *count)
{
	size_t offset = 0;
	uint64_t sp;

	while (*count < THREAD_INTERRUPTED_MAX &&
	       signal_frame_next(stopper->target, stack, &offset, &sp)) {
		struct stack_copy *copied = &state->interrupted[*count];

		/* A handler on the stack that it interrupted. */
		if (is_copied(state, sp))
			continue;
		copy_stack(stopper, sp, copied);
		*count += copied->bytes != NULL;
	}
}

static void copy_stacks(struct stopper *stopper, struct thread_state *state)
{
	struct stack_copy stack = { 0 };
	size_t count = 0;

	copy_stack(stopper, stopper->target->arch->sp(&state->regs), &stack);
	state->stack_start = stack.start;
	state->stack_size = stack.size;
	state->stack = stack.bytes;
	copy_interrupted(stopper, state, &stack, &count);
	for (size_t i = 0; i < count; i++)
		copy_interrupted(stopper, state, &state->interrupted[i], &count);
}

static void copy(struct stopper *stopper, struct held *held)
{
	held->copied = true;
	if (stopper->arena)
		copy_stacks(stopper, &held->state);
	if (stopper->options.all_registers)
		ptrace_get_all(held->tid, &held->state);
}

static void release(struct stopper *stopper, struct held *held)
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
			interrupt(&stopper->held.data[i]);
			end = i + 1;
			i = next_failing(stopper, end);
		}
		for (size_t k = begin; k < end; k++)
			wait_for(stopper, &stopper->held.data[k], deadline_us);
	}
}

static void stop_from(struct stopper *stopper, size_t first, uint64_t deadline_us)
{
	stop_failing(stopper, first, deadline_us);
	for (size_t i = first; i < stopper->held.size; i++)
		if (stopper->held.data[i].hold == HOLD_SEIZED)
			interrupt(&stopper->held.data[i]);
	for (size_t i = first; i < stopper->held.size; i++)
		wait_for(stopper, &stopper->held.data[i], deadline_us);
}

/* Stops what is attached, then what was born meanwhile, until nothing runs but the late ones. */
static void stop_all(struct stopper *stopper)
{
	uint64_t deadline_us = clock_us() + stopper->options.patience_us;
	size_t count = 1, done = 0;

	stopper->stopping = true;
	for (unsigned pass = 0; count && pass < PASSES_MAX && !stopper->cancelled; pass++) {
		stop_from(stopper, done, deadline_us);
		done = stopper->held.size;
		if (stopper->options.tids)
			return;
		stopper->error = seize_new(stopper, &count);
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

	wait_for(stopper, held, clock_us());
	if (held->hold == HOLD_LATE) {
		error = process_read_status(stopper->target->process, held->tid, &status);
		waits = !error && status.state != 'D';
		error_destroy(error);
		return waits;
	}
	if (held->hold == HOLD_STOPPED && !stopper->cancelled && !stopper->error) {
		copy(stopper, held);
		stopper->late++;
	}
	release(stopper, held);
	return false;
}

/* With everything else running again, each as it stops. What is in an uninterruptible wait does not
 * come to its stop, and is detached by the kernel as this thread ends. */
static void take_late(struct stopper *stopper)
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
	read_names(stopper); /* of threads born while the others were being stopped */
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
	stopper->error = seize(stopper, sleeper->tid);
	if (stopper->error)
		return false;
	held = &stopper->held.data[stopper->held.size - 1];
	held->kind = sleeper->kind;
	if (held->hold != HOLD_SEIZED)
		return false;
	interrupt(held);
	wait_for(stopper, held, clock_us() + stopper->options.patience_us);
	if (held->hold == HOLD_STOPPED)
		copy(stopper, held);
	if (offer(stopper, held))
		return true;
	release(stopper, held);
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
	stopper->error = seize_all(stopper);
	if (!stopper->error)
		stopper->error = get_ready(stopper);
	if (stopper->error)
		goto out;
	ptrace_raise_priority();
	if (stopper->quiet)
		sleepers_await(stopper->target, &stopper->awake);
	guard_enter();
	stop_all(stopper);
	if (!stopper->cancelled && !stopper->error)
		vec_for_each (held, &stopper->held)
			if (held->hold == HOLD_STOPPED)
				copy(stopper, held);
	if (!stopper->cancelled && !stopper->error)
		lend(stopper);
	vec_for_each (held, &stopper->held)
		release(stopper, held);
	check_sleepers(stopper);
	take_late(stopper);
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
