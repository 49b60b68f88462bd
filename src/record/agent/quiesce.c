/*
 * Changes to code that others may be running need a moment when all threads are held and none is
 * in the middle of it, be it by its program counter or by where it will return to.
 */
#include "agent_recorder.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "memprobe/clock.h"
#include "memprobe/log.h"
#include "memprobe/num.h"
#include "memprobe/waits.h"
#include "sharers.h"

/* Stacks are looked at from end to end. */
#define STACK_MAX   (16u << 20)
#define STACK_TOTAL (1u << 30)

#define PAUSE_US     500
#define PAUSE_MAX_US 20000

/* For how long threads are held while others are still to stop: at first hardly longer than a stop
 * takes, and given up to be tried again; on a machine so busy that this never does, longer. */
#define PATIENCE_US	2000
#define PATIENCE_TRIES	8
#define PATIENCE_MAX_US 100000
/* When half of the time is over: threads of low priority may get a CPU as seldom as that. */
#define PATIENCE_LAST_US 500000

/* Copied of the stack of a thread that does not stop. */
#define MISSED_MAX (1u << 20)

static bool holds(const struct hold *hold, uint64_t address)
{
	for (size_t i = 0; i < hold->range_count; i++)
		if (address >= hold->ranges[i].start && address < hold->ranges[i].end)
			return true;
	return false;
}

static bool any_word(const struct hold *hold, const uint8_t *bytes, size_t size)
{
	uint64_t low = UINT64_MAX, high = 0;

	for (size_t i = 0; i < hold->range_count; i++) {
		low = min_u64(low, hold->ranges[i].start);
		high = max_u64(high, hold->ranges[i].end);
	}
	for (size_t at = 0; at + 8 <= size; at += 8) {
		uint64_t word = load_word(bytes + at, 8);

		if (word >= low && word < high && holds(hold, word))
			return true;
	}
	return false;
}

/* Where the kernel has functions return to that have a return probe, which alone knows where they
 * would have returned to. */
static bool is_return_probe(struct hold *hold, uint64_t address)
{
	struct mapping_vec maps = { 0 };
	struct error *error;
	bool found = false;

	if (!address)
		return false;
	error = target_read_maps(hold->target, MAPS_PLAIN, &maps);
	vec_for_each (mapping, &maps)
		found = found || (address >= mapping->start && address < mapping->end &&
				  !strcmp(mapping->path, "[uprobes]"));
	/* What cannot be told is taken to be so. */
	found = found || error;
	error_destroy(error);
	mappings_deinit(&maps);
	return found;
}

/* What the agent has noted of a thread, in the first of @slots whose count is returned. */
static unsigned read_slots(struct hold *hold, uint64_t key, struct agent_thread *slots)
{
	uint32_t index = agent_thread_index(key);
	struct error *error;
	unsigned count = 0;

	if (!hold->ctl || !key || index + AGENT_THREAD_PROBES > AGENT_THREADS)
		return 0;
	error = target_read(hold->target,
			    hold->ctl + offsetof(struct agent_ctl, threads) +
				    index * sizeof(struct agent_thread),
			    slots, AGENT_THREAD_PROBES * sizeof(*slots));
	while (!error && count < AGENT_THREAD_PROBES && slots[count].key)
		count++;
	error_destroy(error);
	return count;
}

enum inside {
	INSIDE_NOT,
	INSIDE_FOUND,
	INSIDE_HIDDEN, /* no walk of the stack shows it */
};

/*
 * A thread whose stack does not tell that it is to return from an original, by what the agent has
 * noted of where that will be: it left the stack meanwhile (a handler on a stack of its own), or
 * the original ended in a jump to a function with a return probe.
 */
static enum inside inside_original(struct hold *hold, const struct thread_state *state)
{
	struct agent_thread slots[AGENT_THREAD_PROBES];
	unsigned count = read_slots(hold, state->regs.fs_base, slots);
	struct error *error = NULL;
	uint64_t word;

	for (unsigned i = 0; !error && i < count; i++) {
		uint64_t sp = slots[i].inside_sp;
		bool elsewhere =
			sp < state->stack_start || sp >= state->stack_start + state->stack_size;

		if (slots[i].key != state->regs.fs_base || !sp)
			continue;
		for (unsigned n = 0; !error && n < 2; n++) {
			error = target_read_word(hold->target, sp - 8 * n, &word);
			if (!error && word == hold->return_point && elsewhere)
				return INSIDE_FOUND;
			if (!error && n && word != hold->return_point &&
			    is_return_probe(hold, word))
				return INSIDE_HIDDEN;
		}
	}
	error_destroy(error);
	return INSIDE_NOT;
}

/* Words on stacks may be stale: whether unwinding sees them, too. */
static bool unwinding_clears(struct hold *hold, const struct thread_state *state)
{
	struct frame_vec frames = { 0 };
	struct error *error;
	bool clear;

	if (!hold->unwind)
		return false;
	error = unwind_table_walk(hold->unwind, state, &frames);
	clear = !error && frames.size && !frames.data[frames.size - 1].is_cut;
	vec_for_each (frame, &frames)
		clear = clear && !holds(hold, frame->pc);
	error_destroy(error);
	frame_vec_deinit(&frames);
	return clear;
}

static bool is_clear(struct hold *hold, const struct thread_state *state)
{
	enum inside inside = INSIDE_NOT;
	const char *what = NULL;

	if (holds(hold, state->regs.rip))
		what = "is in a hooked function";
	else
		inside = inside_original(hold, state);
	if (!what && (!state->stack || state->stack_size >= STACK_MAX))
		what = "has a stack that cannot be read to its end";
	if (!what && (inside != INSIDE_NOT || any_word(hold, state->stack, state->stack_size)))
		what = "is to return to a hooked function";
	if (!what || (inside != INSIDE_HIDDEN && !holds(hold, state->regs.rip) &&
		      unwinding_clears(hold, state)))
		return true;
	snprintf(hold->reason, sizeof(hold->reason), "thread %d (%s) %s", (int)state->tid,
		 state->name, what);
	return false;
}

/* In an uninterruptible wait of the kernel: it stays where it is. */
static bool missed_is_clear(struct hold *hold, pid_t tid)
{
	enum { PART = 64 << 10 };
	static const long sharing[] = { 56 /* clone */, 58 /* vfork */, 435 /* clone3 */ };
	cleanup(free) uint8_t *bytes = malloc(PART);
	struct process_syscall call;
	struct error *error = process_read_syscall(hold->target->process, tid, &call);
	bool clear = !error && bytes && !call.running && !holds(hold, call.pc);

	/* Its child runs in the same memory, and nobody holds it. */
	for (size_t i = 0; clear && i < sizeof(sharing) / sizeof(sharing[0]); i++)
		clear = call.nr != sharing[i];
	for (uint64_t at = 0; clear && at < MISSED_MAX; at += PART) {
		uint64_t start = round_down(call.sp, 8) + at;

		error = target_read(hold->target, start, bytes, PART);
		if (error_is(error, ERROR_FAULT) && error->address > start)
			clear = !any_word(hold, bytes, error->address - start);
		else
			clear = !error && !any_word(hold, bytes, PART);
		if (error)
			break;
	}
	error_destroy(error);
	if (!clear)
		snprintf(hold->reason, sizeof(hold->reason), "thread %d does not stop", (int)tid);
	return clear;
}

/* No stop holds a process that merely shares the memory. */
static bool is_shared(struct hold *hold, pid_t tid, pid_t since)
{
	pid_t sharer = sharers_find(hold->target, tid, since);

	if (sharer)
		snprintf(hold->reason, sizeof(hold->reason),
			 "process %d runs in the same memory (vfork, or clone with CLONE_VM)",
			 (int)sharer);
	return sharer != 0;
}

static void while_held(void *data, struct stop *stop, struct error *error)
{
	struct hold *hold = data;
	bool clear = !error && !stop->incomplete;

	/* Who is only slow to stop ends the try at once: the others wait. */
	for (size_t i = 0; clear && i < stop->missed.size; i++)
		clear = missed_is_clear(hold, stop->missed.data[i]);
	if (clear && stop->threads.size)
		clear = !is_shared(hold, stop->threads.data[0].tid, hold->last_pid);
	for (size_t i = 0; clear && i < stop->threads.size; i++)
		clear = is_clear(hold, &stop->threads.data[i]);
	if (clear) {
		error = hold->work(hold->data);
		hold->done = true;
	}
	hold->error = error;
	stop_destroy(stop);
}

/* What would not stop would hold up the others; *alive_ret: a thread that has not ended. */
static bool somebody_waits(struct hold *hold, pid_t *alive_ret)
{
	struct pid_vec tids = { 0 };
	struct error *error = process_list_threads(hold->target->process, &tids);
	bool waits = false;

	*alive_ret = 0;
	for (size_t i = 0; !error && !waits && i < tids.size; i++) {
		struct process_status status = { 0 };

		/* One that has ended waits for nothing. */
		error_destroy(process_read_status(hold->target->process, tids.data[i], &status));
		waits = status.state == 'D';
		if (status.state && status.state != 'Z' && status.state != 'X')
			*alive_ret = tids.data[i];
	}
	error_destroy(error);
	pid_vec_deinit(&tids);
	return waits;
}

/* One that a stop would make return short from what it has half done. */
static bool somebody_transfers(struct hold *hold)
{
	const struct target *target = hold->target;
	struct pid_vec tids = { 0 };
	struct error *error = process_list_threads(target->process, &tids);
	char text[WAIT_TEXT_MAX];
	bool found = false;

	for (size_t i = 0; !error && !found && i < tids.size; i++) {
		struct process_syscall call;

		found = wait_kind_now(target->process, target->arch, tids.data[i], &call) ==
			WAIT_CUT;
		if (found)
			snprintf(hold->reason, sizeof(hold->reason),
				 "thread %d is%s, which a stop would cut short", (int)tids.data[i],
				 wait_describe(target->process, target->arch, tids.data[i], text));
	}
	error_destroy(error);
	pid_vec_deinit(&tids);
	return found;
}

/* Whether a stop is worth its while. Of processes that share the memory, only those that are made
 * from now on need then be looked for. */
static bool is_promising(struct hold *hold, bool in_any_case)
{
	pid_t alive;
	bool waits = somebody_waits(hold, &alive);

	hold->last_pid = sharers_last_pid();
	if (alive && is_shared(hold, alive, 0))
		return false;
	if ((!hold->may_cut || !in_any_case) && somebody_transfers(hold))
		return false;
	return in_any_case || !waits;
}

static uint64_t patience(const struct hold *hold)
{
	uint64_t us = PATIENCE_US;

	if (hold->is_late)
		return PATIENCE_LAST_US;
	for (unsigned i = PATIENCE_TRIES; i <= hold->tries && us < PATIENCE_MAX_US; i++)
		us *= 2;
	return min_u64(us, PATIENCE_MAX_US);
}

static struct error *try(struct hold *hold)
{
	struct stop_options options = {
		.stack_max = STACK_MAX,
		.stack_total = STACK_TOTAL,
		.patience_us = patience(hold),
		.interrupted = hold->interrupted,
		.held = while_held,
		.stopped_us_ret = &hold->stopped_us,
		.data = hold,
	};
	struct error *error = stop_threads(hold->target, &options, NULL);

	hold->tries++;
	hold->stops++;
	if (error)
		error_destroy(take_pointer(hold->error));
	else
		error = take_pointer(hold->error);
	return error;
}

struct error *hold_run(struct hold *hold)
{
	uint64_t begin = clock_us(), half = (hold->deadline - min_u64(begin, hold->deadline)) / 2;
	useconds_t pause = PAUSE_US;

	hold->done = false;
	hold->tries = 0;
	for (;;) {
		struct error *error = NULL;

		hold->is_late = clock_us() >= begin + half;
		if (is_promising(hold, hold->once || hold->is_late))
			error = try(hold);
		if (error || hold->done)
			return error;
		if (hold->interrupted && hold->interrupted())
			return error_create(ERROR_FAILED, "interrupted");
		if (*hold->reason)
			log_debug("%s", hold->reason);
		if (hold->once || clock_us() + pause >= hold->deadline)
			return error_create(ERROR_BUSY, "%s", hold->reason);
		if (!hold->unwind) {
			error = unwind_table_create(hold->target, &hold->unwind);
			if (error)
				return error;
			hold->owns_unwind = true;
		}
		usleep(pause);
		pause = min_u64(pause * 2, PAUSE_MAX_US);
	}
}

void hold_deinit(struct hold *hold)
{
	if (hold->owns_unwind)
		unwind_table_destroy(hold->unwind);
	hold->unwind = NULL;
}
