#include "memprobe/snapshot.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "fork_limits.h"
#include "fork_reap.h"
#include "fork_script.h"
#include "frozen.h"
#include "memprobe/clock.h"
#include "memprobe/core.h"
#include "memprobe/guard.h"
#include "memprobe/log.h"
#include "memprobe/num.h"
#include "memprobe/pagemap.h"
#include "memprobe/pause.h"
#include "memprobe/stop.h"
#include "memprobe/waits.h"
#include "session.h"

/* To see the helper go after the fork has gone. */
#define END_WAIT_US 2000000

/* How often it is looked whether the fork may stay. */
#define LOOKS_MS 5

/* Tries in which nobody who slept was to have run. */
#define UNDISTURBED_TRIES 3

/* For the end of a transfer that nothing may interrupt, where no other thread can fork. */
#define TRANSFER_WAIT_US 1000000
#define TRANSFER_LOOK_US 2000

enum phase { PHASE_STOPPING, PHASE_READY, PHASE_ENDING };

/* One snapshot at work: made by the caller's thread, shared with the one that traces. */
struct freezer {
	struct target *target;
	struct call_session *session; /* NULL: the target is held instead of forked */
	struct snapshot_options options;
	struct snapshot *snapshot;
	struct fork_script script;
	uint64_t hugetlb; /* of the process when it was decided to fork it */
	pid_t helper, fork;
	pid_t fork_id; /* of the fork, in the target's PID namespace */
	/* Slept, and so were not stopped, but ran nonetheless: now, and in former tries. */
	struct pid_vec woken, restless;
	bool is_last_try;  /* they are stopped */
	pid_t in_transfer; /* a thread that may not be stopped, where no other can fork; or 0 */
	uint64_t stopped_us, held_since_us;
	struct error *fork_error; /* why there is no fork */
	struct error *error;
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	enum phase phase;
	bool is_released;
	atomic_int loss; /* enum fork_loss: the fork has ended early */
};

static void set_phase(struct freezer *freezer, enum phase phase)
{
	pthread_mutex_lock(&freezer->lock);
	freezer->phase = phase;
	pthread_cond_broadcast(&freezer->changed);
	pthread_mutex_unlock(&freezer->lock);
}

static void wait_phase(struct freezer *freezer, enum phase phase)
{
	pthread_mutex_lock(&freezer->lock);
	while (freezer->phase < phase)
		pthread_cond_wait(&freezer->changed, &freezer->lock);
	pthread_mutex_unlock(&freezer->lock);
}

/* False: the time was over before. */
static bool wait_phase_for(struct freezer *freezer, enum phase phase, unsigned milliseconds)
{
	struct timespec end;
	bool reached;
	int errnum = 0;

	clock_gettime(CLOCK_REALTIME, &end);
	end.tv_nsec += (long)milliseconds * 1000000;
	end.tv_sec += end.tv_nsec / 1000000000;
	end.tv_nsec %= 1000000000;
	pthread_mutex_lock(&freezer->lock);
	while (freezer->phase < phase && !errnum)
		errnum = pthread_cond_timedwait(&freezer->changed, &freezer->lock, &end);
	reached = freezer->phase >= phase;
	pthread_mutex_unlock(&freezer->lock);
	return reached;
}

/* ---- in the stop ---- */

/* Sees a thread through its script; what it clones is left stopped at its start. */
static struct error *watch(struct freezer *freezer, struct engine_run *run,
			   struct call_result *result, pid_t *child_ret)
{
	static const struct call_options options;
	struct ptrace_stop stop;
	struct error *error;

	run->options = &options;
	run->deadline = clock_us() + freezer->options.timeout_us;
	run->result = result;
	error = run->helper_frame ? engine_watch(freezer->session, run)
				  : engine_run(freezer->session, run);
	*child_ret = run->child;
	if (run->child)
		error_destroy(error);
	else
		return error ? error
			     : error_create(ERROR_UNSUPPORTED, "process %d cannot fork now",
					    (int)freezer->target->pid);
	error = ptrace_wait(run->child, END_WAIT_US, &stop);
	if (!error && stop.kind != PTRACE_STOP_TRAP && stop.kind != PTRACE_STOP_GROUP)
		error = error_create(ERROR_BUSY, "the copy of %d did not stop at its start",
				     (int)freezer->target->pid);
	return error;
}

/* The stopped thread starts the helper, the helper the fork. Both have been let go afterwards. */
static struct error *fork_by(struct freezer *freezer, pid_t tid,
			     const struct user_regs_struct *regs)
{
	struct engine_run caller = {
		.tid = tid,
		.regs = *regs,
		.script = &freezer->script.outer_script,
		.block = &freezer->script.outer,
	};
	struct engine_run helper = {
		.script = &freezer->script.inner_script,
		.block = &freezer->script.inner,
		.helper_frame = freezer->script.helper_frame,
		.detach_at_marker = true,
	};
	struct call_result result = { 0 };
	struct error *error =
		ptrace_call(PTRACE_SETOPTIONS, tid, 0,
			    (void *)(uintptr_t)(PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACECLONE),
			    "set the options of thread");

	if (error) {
		ptrace_detach(tid, 0);
		return error;
	}
	error = watch(freezer, &caller, &result, &freezer->helper);
	if (error)
		return error;
	helper.tid = freezer->helper;
	error = watch(freezer, &helper, &result, &freezer->fork);
	freezer->fork_id = (pid_t)call_result_word(&result, &freezer->script.inner_script,
						   freezer->script.fork_id);
	return error;
}

static bool use_thread(void *data, pid_t tid, struct user_regs_struct *regs)
{
	struct freezer *freezer = data;
	struct call_session *session = freezer->session;
	const struct call_script *const scripts[] = { &freezer->script.outer_script,
						      &freezer->script.inner_script };
	struct process_status status;
	struct error *error = process_read_status(session->target->process, tid, &status);

	if (!error && status.hugetlb > freezer->hugetlb)
		error = error_create(ERROR_BUSY, "it has just taken more huge pages of the pool");
	if (!error && status.seccomp > 0)
		error = foreseen_check(session, tid, status.seccomp, scripts, 2,
				       &(struct call_options){ 0 });
	if (error) {
		error_destroy(freezer->fork_error);
		freezer->fork_error = error;
		return false;
	}
	if (!victim_fits(session, tid, regs, FIT_FOR_SYSCALLS, 0))
		return false;
	error = fork_by(freezer, tid, regs);
	error_destroy(freezer->fork_error);
	freezer->fork_error = error;
	return true;
}

static void take_states(struct freezer *freezer, struct stop *stop, struct error *error)
{
	struct snapshot *snapshot = freezer->snapshot;

	freezer->error = stop ? stop_check(freezer->target, stop) : error;
	if (!stop)
		return;
	snapshot->threads = stop->threads;
	stop->threads = (struct thread_state_vec){ 0 };
	snapshot->missed = stop->missed;
	stop->missed = (struct pid_vec){ 0 };
	freezer->in_transfer = stop->in_transfer;
	freezer->woken = stop->woken;
	stop->woken = (struct pid_vec){ 0 };
	freezer->stopped_us = max_u64(freezer->stopped_us, stop->stopped_us);
	stop_destroy(stop);
}

static void end_fork(struct freezer *freezer)
{
	uint64_t deadline = clock_us() + END_WAIT_US;
	struct ptrace_stop stop = { 0 };

	kill(freezer->fork, SIGKILL);
	while (clock_us() < deadline && stop.kind != PTRACE_STOP_EXITED)
		error_destroy(ptrace_wait(freezer->fork, 10000, &stop));
}

/* ---- the tracing thread ---- */

/* Whether the target has exited or begun to run another program: it is bound to the old one. */
static bool has_lost_memory(const struct freezer *freezer)
{
	char byte;

	return pread(freezer->session->memory, &byte, 1, 0) == 0;
}

static enum fork_loss look_for_loss(const struct freezer *freezer)
{
	if (has_lost_memory(freezer))
		return FORK_LOST_TARGET;
	return fork_leaves_room(freezer->target->process) ? FORK_KEPT : FORK_LOST_ROOM;
}

static void after_stop(void *data, struct stop *stop, struct error *error)
{
	struct freezer *freezer = data;

	take_states(freezer, stop, error);
	set_phase(freezer, PHASE_READY);
	while (!wait_phase_for(freezer, PHASE_ENDING, LOOKS_MS)) {
		enum fork_loss loss;

		if (!freezer->fork || atomic_load(&freezer->loss))
			continue;
		loss = look_for_loss(freezer);
		if (!loss)
			continue;
		atomic_store(&freezer->loss, loss);
		end_fork(freezer);
	}
	if (freezer->fork && !atomic_load(&freezer->loss))
		end_fork(freezer);
}

/* The target itself is the snapshot. */
static void while_held(void *data, struct stop *stop, struct error *error)
{
	struct freezer *freezer = data;

	ptrace_restore_priority();
	take_states(freezer, stop, error);
	set_phase(freezer, PHASE_READY);
	while (!wait_phase_for(freezer, PHASE_ENDING, LOOKS_MS) && !guard_is_orphan())
		;
}

static void *freeze(void *data)
{
	struct freezer *freezer = data;
	struct stop_options options = {
		.all_registers = freezer->options.all_registers,
		.max_pause_us = freezer->options.max_pause_us,
		.interrupted = freezer->options.interrupted,
		.sleepers_run_on = freezer->session && freezer->options.memory_only,
		.unless = freezer->is_last_try ? &freezer->restless : NULL,
		.use = freezer->session ? use_thread : NULL,
		.held = freezer->session ? NULL : while_held,
		.after = freezer->session ? after_stop : NULL,
		.data = freezer,
	};
	struct error *error = stop_threads(freezer->target, &options, NULL);

	/* Neither callback has been reached. */
	if (error && freezer->phase == PHASE_STOPPING) {
		freezer->error = error;
		set_phase(freezer, PHASE_READY);
	} else {
		error_destroy(error);
	}
	return NULL;
}

static struct error *start(struct freezer *freezer)
{
	int errnum;

	freezer->phase = PHASE_STOPPING;
	errnum = pthread_create(&freezer->thread, NULL, freeze, freezer);
	if (errnum)
		return error_errno(ERROR_FAILED, errnum, "cannot start a thread");
	wait_phase(freezer, PHASE_READY);
	return take_pointer(freezer->error);
}

static void end(struct freezer *freezer)
{
	set_phase(freezer, PHASE_ENDING);
	pthread_join(freezer->thread, NULL);
}

/* ---- taking and ending ---- */

struct placing {
	struct freezer *freezer;
	struct error *error;
};

static void *place(void *data)
{
	struct placing *placing = data;
	struct freezer *freezer = placing->freezer;

	guard_enter();
	placing->error = call_place(freezer->session, script_size(&freezer->script.outer_script));
	seize_release_lingering(freezer->session);
	guard_leave();
	return NULL;
}

/*
 * Looking for what a killed predecessor has left stops threads. One that is late to stop stays
 * attached to whoever asked it to: to a thread of ours that ends, not to one that goes on for as
 * long as the target is read.
 */
static struct error *place_stub(struct freezer *freezer)
{
	struct placing placing = { .freezer = freezer };
	pthread_t thread;

	if (pthread_create(&thread, NULL, place, &placing))
		return &error_no_memory;
	ptrace_join(thread, freezer->target->process);
	return placing.error;
}

/* The helper runs in the stub: only when it has gone may that be taken out. */
static void wait_for_helper(struct freezer *freezer)
{
	uint64_t deadline = clock_us() + END_WAIT_US;
	struct process_status status;

	while (freezer->helper && clock_us() < deadline) {
		struct error *error =
			process_read_status(freezer->target->process, freezer->helper, &status);

		if (error) {
			error_destroy(error);
			return;
		}
		usleep(200);
	}
	if (freezer->helper)
		freezer->session->place.in_use = true;
}

static void reset_states(struct snapshot *snapshot)
{
	thread_states_deinit(&snapshot->threads);
	pid_vec_deinit(&snapshot->missed);
}

/* Who was taken to sleep has run: they are stopped in the next try. */
static struct error *forget_fork(struct freezer *freezer)
{
	struct error *error = NULL;

	if (freezer->woken.size)
		log_debug("%zu sleeping threads woke while the process was copied",
			  freezer->woken.size);
	end(freezer);
	wait_for_helper(freezer);
	freezer->phase = PHASE_STOPPING;
	freezer->fork = freezer->helper = 0;
	reset_states(freezer->snapshot);
	for (size_t i = 0; !error && i < freezer->woken.size; i++)
		error = pid_vec_append(&freezer->restless, &freezer->woken.data[i]);
	pid_vec_deinit(&freezer->woken);
	return error;
}

/* Nobody was fit to fork, and who is in a transfer may be soon. */
static struct error *await_transfer(struct freezer *freezer)
{
	const struct target *target = freezer->target;
	uint64_t deadline_us = clock_us() + min_u64(freezer->options.timeout_us, TRANSFER_WAIT_US);
	char text[WAIT_TEXT_MAX];

	while (!freezer->fork && !freezer->fork_error && freezer->in_transfer) {
		struct error *error;

		if (clock_us() >= deadline_us)
			return error_hint(
				error_create(ERROR_BUSY,
					     "cannot copy %d now: thread %d is%s, which a stop "
					     "would cut short, and no other can fork",
					     (int)target->pid, (int)freezer->in_transfer,
					     wait_describe(target->process, target->arch,
							   freezer->in_transfer, text)),
				"try again, or let --no-fork cut it short");
		error = forget_fork(freezer);
		usleep(TRANSFER_LOOK_US);
		if (!error)
			error = start(freezer);
		if (error)
			return error;
	}
	return NULL;
}

static struct error *start_undisturbed(struct freezer *freezer)
{
	for (unsigned i = 0;; i++) {
		struct error *error;

		freezer->is_last_try = i == UNDISTURBED_TRIES;
		error = start(freezer);
		if (!error)
			error = await_transfer(freezer);
		if (error || !freezer->woken.size || !freezer->fork || freezer->is_last_try)
			return error;
		error = forget_fork(freezer);
		if (error)
			return error;
	}
}

static struct error *try_fork(struct freezer *freezer)
{
	struct error *error =
		call_open(freezer->target, freezer->options.timeout_us, &freezer->session);

	if (!error)
		error = fork_script_write(freezer->target, &freezer->script);
	if (!error)
		error = place_stub(freezer);
	if (!error)
		error = start_undisturbed(freezer);
	if (error)
		return error;
	if (freezer->fork) {
		freezer->snapshot->kind = SNAPSHOT_FORK;
		freezer->snapshot->own_start = freezer->script.area;
		freezer->snapshot->own_end = freezer->script.area + freezer->script.area_size;
		return frozen_target_create(
			freezer->target, freezer->fork, &freezer->snapshot->threads, &freezer->loss,
			&freezer->snapshot->target, &freezer->snapshot->live_bytes);
	}
	error = take_pointer(freezer->fork_error);
	if (!error)
		error = error_create(ERROR_BUSY, "no thread of %d can fork: %s",
				     (int)freezer->target->pid, freezer->session->reason);
	return error;
}

static void undo_fork(struct freezer *freezer)
{
	if (freezer->phase == PHASE_READY)
		end(freezer);
	if (freezer->session)
		wait_for_helper(freezer);
	call_close(freezer->session);
	freezer->session = NULL;
	if (freezer->fork && atomic_load(&freezer->loss) == FORK_LOST_TARGET)
		fork_reap(freezer->target, freezer->fork, freezer->fork_id);
	freezer->phase = PHASE_STOPPING;
	freezer->fork = freezer->helper = 0;
}

/* Of a thread that has the memory: the first one may have ended before the others. */
static struct error *read_status(const struct freezer *freezer, struct process_status *ret)
{
	const struct process *process = freezer->target->process;
	struct error *error = process_read_status(process, 0, ret);
	struct pid_vec tids = { 0 };

	if (error || ret->state != 'Z' || ret->threads < 2)
		return error;
	error = process_list_threads(process, &tids);
	for (size_t i = 0; !error && i < tids.size && ret->state == 'Z'; i++)
		error = process_read_status(process, tids.data[i], ret);
	pid_vec_deinit(&tids);
	return error;
}

/* Asked before anything is stopped. Who stands still anyway loses nothing. */
static struct error *check_pause(const struct freezer *freezer, bool by_fork)
{
	const struct target *target = freezer->target;
	struct process_status status;
	struct error *error = read_status(freezer, &status);

	if (error || status.state == 'T')
		return error;
	if (by_fork)
		return pause_check(target->pid, "copying its page tables", pause_of_fork(&status),
				   freezer->options.max_pause_us);
	return pause_check(target->pid, "reading its memory",
			   pause_of_reading(&status, pagemap_can_scan()),
			   freezer->options.max_pause_us);
}

static struct error *hold(struct freezer *freezer)
{
	struct error *error = check_pause(freezer, false);

	if (error)
		return error;
	freezer->held_since_us = clock_us();
	reset_states(freezer->snapshot);
	error = start(freezer);
	if (error)
		return error;
	freezer->snapshot->kind = SNAPSHOT_STOPPED;
	freezer->snapshot->target = freezer->target;
	return NULL;
}

/* What no other way of stopping would change. */
static bool is_final(const struct freezer *freezer, const struct error *error)
{
	if (freezer->in_transfer && error_is(error, ERROR_BUSY))
		return true;
	return error->code == ERROR_NO_TARGET || error->code == ERROR_NO_MEMORY;
}

/* By a signal. A helper would stop, too, and leave the fork a zombie until somebody lets it go on;
 * and who stands still loses nothing by being held. */
static bool is_stopped(const struct target *target)
{
	struct process_status status;
	struct error *error = process_read_status(target->process, 0, &status);

	if (!error)
		return status.state == 'T';
	error_destroy(error);
	return false;
}

static struct error *fork_target(struct freezer *freezer)
{
	struct process_status status;
	struct error *error = read_status(freezer, &status);

	if (!error)
		error = fork_check(freezer->target->process, &status);
	if (error)
		return error;
	freezer->hugetlb = status.hugetlb;
	error = try_fork(freezer);
	if (error)
		undo_fork(freezer);
	return error;
}

static struct error *take(struct freezer *freezer)
{
	struct error *error, *held;

	if (freezer->options.no_fork || is_stopped(freezer->target))
		return hold(freezer);
	error = check_pause(freezer, true);
	if (error)
		return error;
	error = fork_target(freezer);
	if (!error || is_final(freezer, error))
		return error;
	held = hold(freezer);
	if (!held)
		log_warn("%d is stopped while its memory is read (%s); --max-pause limits that",
			 (int)freezer->target->pid, error->message);
	else if (strcmp(held->message, error->message))
		held = error_prefix(held, "%s", error->message);
	error_destroy(error);
	return held;
}

/* A core knows its registers; where they cannot be had, the caller does without. */
static struct error *take_recorded(struct snapshot *snapshot)
{
	struct error *error = core_thread_states(snapshot->target, &snapshot->threads);

	if (!error_is(error, ERROR_UNSUPPORTED))
		return error;
	error_destroy(error);
	return NULL;
}

struct error *snapshot_take(struct target *target, const struct snapshot_options *options,
			    struct snapshot **ret)
{
	struct snapshot *snapshot = calloc(1, sizeof(*snapshot));
	struct freezer *freezer = calloc(1, sizeof(*freezer));
	struct error *error = NULL;

	if (!snapshot || !freezer) {
		free(snapshot);
		free(freezer);
		return &error_no_memory;
	}
	freezer->target = target;
	freezer->snapshot = snapshot;
	freezer->options = *options;
	pthread_mutex_init(&freezer->lock, NULL);
	pthread_cond_init(&freezer->changed, NULL);
	snapshot->backend = freezer;
	snapshot->target = target;
	snapshot->kind = SNAPSHOT_STILL;
	if (target->process)
		error = take(freezer);
	else
		error = take_recorded(snapshot);
	if (error)
		snapshot_destroy(snapshot);
	else
		*ret = snapshot;
	return error;
}

uint64_t snapshot_stopped_us(const struct snapshot *snapshot)
{
	const struct freezer *freezer = snapshot->backend;

	if (snapshot->kind == SNAPSHOT_STOPPED && !freezer->is_released)
		return clock_us() - freezer->held_since_us;
	return freezer->stopped_us;
}

void snapshot_release(struct snapshot *snapshot)
{
	struct freezer *freezer = snapshot->backend;

	if (snapshot->kind == SNAPSHOT_STOPPED && freezer->phase == PHASE_READY)
		freezer->stopped_us = clock_us() - freezer->held_since_us;
	freezer->is_released = true;
	undo_fork(freezer);
}

void snapshot_destroy(struct snapshot *snapshot)
{
	struct freezer *freezer;

	if (!snapshot)
		return;
	freezer = snapshot->backend;
	if (snapshot->target != freezer->target)
		target_destroy(snapshot->target);
	undo_fork(freezer);
	error_destroy(freezer->error);
	error_destroy(freezer->fork_error);
	reset_states(snapshot);
	pid_vec_deinit(&freezer->woken);
	pid_vec_deinit(&freezer->restless);
	pthread_mutex_destroy(&freezer->lock);
	pthread_cond_destroy(&freezer->changed);
	free(freezer);
	free(snapshot);
}
