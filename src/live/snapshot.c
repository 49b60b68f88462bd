#include "memprobe/snapshot.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "fork_events.h"
#include "frozen.h"
#include "memprobe/core.h"
#include "memprobe/log.h"
#include "memprobe/memory_room.h"
#include "memprobe/num.h"
#include "memprobe/pause.h"
#include "memprobe/stop.h"
#include "session.h"

/* The helper's mapping: its block, the fork's block, and a stack that is hardly used. */
#define AREA_SIZE  (32u << 10)
#define AREA_CHILD (8u << 10)
#define AREA_FRAME (16u << 10)

/* To see the helper go after the fork has gone. */
#define END_WAIT_US 2000000

/*
 * What both write to is copied while the fork is there. The kernel kills the target if there is no
 * room for that: the fork has to go before.
 */
#define ROOM_MIN      (64ull << 20)
#define ROOM_LOOKS_MS 5

enum phase { PHASE_STOPPING, PHASE_READY, PHASE_ENDING };

/* One snapshot at work: made by the caller's thread, shared with the one that traces. */
struct freezer {
	struct target *target;
	struct call_session *session; /* NULL: the target is held instead of forked */
	struct snapshot_options options;
	struct snapshot *snapshot;
	uint64_t area;
	struct block outer, inner, child;
	struct call_script outer_script, inner_script;
	pid_t helper, fork;
	uint64_t stopped_us, held_since_us;
	struct error *fork_error; /* why there is no fork */
	struct error *error;
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	enum phase phase;
	atomic_bool given_up; /* the fork, for want of memory */
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

/* ---- the scripts ---- */

static struct call_step exit_step(uint64_t area)
{
	return (struct call_step){
		.op = CALL_OP_EXIT,
		.args = { CALL_ARG(area), CALL_ARG(AREA_SIZE) },
	};
}

/* The fork, should it ever run: its end. */
static struct error *encode_child(struct freezer *freezer)
{
	struct block_header header = { .stack = freezer->area + AREA_CHILD };
	struct call_step leave = exit_step(freezer->area);
	struct call_script script;

	call_begin(&script, freezer->target->arch);
	call_add_step(&script, &leave);
	return script_encode(&script, &header, &freezer->child);
}

/* The helper: forks, tells, waits for the fork's end, leaves. */
static struct error *encode_inner(struct freezer *freezer)
{
	const struct arch *arch = freezer->target->arch;
	struct call_script *script = &freezer->inner_script;
	struct block_header header = { .stack = freezer->area + AREA_CHILD };
	struct call_step leave = exit_step(freezer->area);
	struct call_step clone = {
		.op = CALL_OP_CLONE,
		.function = (uint64_t)arch->syscalls.clone,
		/* No exit signal, the same stack, and its own block. */
		.args = { CALL_ARG(CLONE_FILES | CLONE_FS), CALL_ARG(0), CALL_ARG(0), CALL_ARG(0),
			  CALL_ARG(0), CALL_ARG(freezer->area + AREA_CHILD) },
		.check = CALL_NO_ERRNO,
		.fail = CALL_FAIL_CLEANUP,
		.has_result = true,
	};
	struct call_arg wait[] = { CALL_ARG(0), CALL_ARG(0), CALL_ARG(__WALL), CALL_ARG(0) };

	call_begin(script, arch);
	clone.result = call_add_data(script, NULL, arch->word_size);
	wait[0] = CALL_WORD(clone.result);
	call_add_step(script, &clone);
	call_add_marker(script);
	call_add_syscall(script, arch->syscalls.wait4, 4, wait, CALL_ANY, 0);
	call_add_step(script, &leave);
	/* A fork that failed leaves nothing to wait for. */
	script->steps[0].fail = (int)script->step_count - 1;
	return script_encode(script, &header, &freezer->inner);
}

static void add_copy(struct call_script *script, uint64_t to, const struct block *block)
{
	size_t data = call_add_data(script, block->bytes, block->size);
	struct call_step copy = {
		.op = CALL_OP_COPY,
		.args = { CALL_ARG(to), CALL_ADDR(data), CALL_ARG(block->size) },
	};

	call_add_step(script, &copy);
}

/* The thread of the target: maps, and starts the helper. */
static void write_outer(struct freezer *freezer)
{
	const struct arch *arch = freezer->target->arch;
	struct call_script *script = &freezer->outer_script;
	const struct call_arg map[] = {
		CALL_ARG(freezer->area),
		CALL_ARG(AREA_SIZE),
		CALL_ARG(PROT_READ | PROT_WRITE),
		CALL_ARG(MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE),
		CALL_ARG(-1),
		CALL_ARG(0),
	};
	struct call_arg unmap[] = { CALL_ARG(0), CALL_ARG(AREA_SIZE) };
	struct call_step clone = {
		.op = CALL_OP_CLONE,
		.function = (uint64_t)arch->syscalls.clone,
		.args = { CALL_ARG(CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND |
				   CLONE_THREAD | CLONE_SYSVSEM),
			  CALL_ARG(freezer->area + AREA_CHILD - 64), CALL_ARG(0), CALL_ARG(0),
			  CALL_ARG(0), CALL_ARG(freezer->area + AREA_FRAME) },
		.check = CALL_NO_ERRNO,
	};
	struct call_step end = { .op = CALL_OP_END };

	call_begin(script, arch);
	/* A kernel before 4.17 takes the address for a wish: what it gave instead is given back. */
	unmap[0] = CALL_WORD(
		call_add_syscall(script, arch->syscalls.mmap, 6, map, CALL_EXPECT, freezer->area));
	add_copy(script, freezer->area + AREA_CHILD, &freezer->child);
	add_copy(script, freezer->area + AREA_FRAME, &freezer->inner);
	clone.fail = call_add_step(script, &clone) + 3;
	script->steps[script->step_count - 1].fail = clone.fail;
	call_add_marker(script);
	call_add_step(script, &end);
	call_add_syscall(script, arch->syscalls.munmap, 2, unmap, CALL_ANY, 0);
	script->steps[0].fail = clone.fail;
}

static struct error *write_scripts(struct freezer *freezer)
{
	struct error *error = call_find_gap(freezer->target, AREA_SIZE,
					    2048 + (unsigned)(clock_us() % 64), &freezer->area);

	if (!error)
		error = encode_child(freezer);
	if (!error)
		error = encode_inner(freezer);
	if (!error)
		write_outer(freezer);
	return error;
}

/* ---- in the stop ---- */

/* Sees a thread through its script; what it clones is left stopped at its start. */
static struct error *watch(struct freezer *freezer, struct engine_run *run, pid_t *child_ret)
{
	static const struct call_options options;
	struct call_result result = { 0 };
	struct ptrace_stop stop;
	struct error *error;

	run->options = &options;
	run->deadline = clock_us() + freezer->options.timeout_us;
	run->result = &result;
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
		.script = &freezer->outer_script,
		.block = &freezer->outer,
	};
	struct engine_run helper = {
		.script = &freezer->inner_script,
		.block = &freezer->inner,
		.helper_frame = freezer->area + AREA_FRAME,
		.detach_at_marker = true,
	};
	struct error *error =
		ptrace_call(PTRACE_SETOPTIONS, tid, 0,
			    (void *)(uintptr_t)(PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACECLONE),
			    "set the options of thread");

	if (error) {
		ptrace_detach(tid, 0);
		return error;
	}
	error = watch(freezer, &caller, &freezer->helper);
	if (error)
		return error;
	helper.tid = freezer->helper;
	return watch(freezer, &helper, &freezer->fork);
}

static bool use_thread(void *data, pid_t tid, struct user_regs_struct *regs)
{
	struct freezer *freezer = data;
	struct call_session *session = freezer->session;
	const struct call_script *const scripts[] = { &freezer->outer_script,
						      &freezer->inner_script };
	struct process_status status;
	struct error *error = process_read_status(session->target->process, tid, &status);

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

static void take_states(struct freezer *freezer, struct stop *stop)
{
	struct snapshot *snapshot = freezer->snapshot;

	snapshot->threads = stop->threads;
	stop->threads = (struct thread_state_vec){ 0 };
	snapshot->missed = stop->missed;
	stop->missed = (struct pid_vec){ 0 };
	freezer->stopped_us = stop->stopped_us;
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

static void after_stop(void *data, struct stop *stop, struct error *error)
{
	struct freezer *freezer = data;

	freezer->error = error;
	if (stop)
		take_states(freezer, stop);
	set_phase(freezer, PHASE_READY);
	while (!wait_phase_for(freezer, PHASE_ENDING, ROOM_LOOKS_MS)) {
		if (!freezer->fork || atomic_load(&freezer->given_up) ||
		    memory_room(freezer->target->process) >= ROOM_MIN)
			continue;
		atomic_store(&freezer->given_up, true);
		end_fork(freezer);
	}
	if (freezer->fork && !atomic_load(&freezer->given_up))
		end_fork(freezer);
}

/* The target itself is the snapshot. */
static void while_held(void *data, struct stop *stop, struct error *error)
{
	struct freezer *freezer = data;

	ptrace_restore_priority();
	freezer->error = error;
	if (stop)
		take_states(freezer, stop);
	set_phase(freezer, PHASE_READY);
	wait_phase(freezer, PHASE_ENDING);
}

static void *freeze(void *data)
{
	struct freezer *freezer = data;
	struct stop_options options = {
		.all_registers = freezer->options.all_registers,
		.max_pause_us = freezer->options.max_pause_us,
		.interrupted = freezer->options.interrupted,
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

	placing->error = call_place(freezer->session, script_size(&freezer->outer_script));
	seize_release_lingering(freezer->session);
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

static struct error *try_fork(struct freezer *freezer)
{
	struct error *error =
		call_open(freezer->target, freezer->options.timeout_us, &freezer->session);

	if (!error)
		error = write_scripts(freezer);
	if (!error)
		error = place_stub(freezer);
	if (!error)
		error = start(freezer);
	if (error)
		return error;
	if (freezer->fork) {
		freezer->snapshot->kind = SNAPSHOT_FORK;
		freezer->snapshot->own_start = freezer->area;
		freezer->snapshot->own_end = freezer->area + AREA_SIZE;
		return frozen_target_create(freezer->target, freezer->fork,
					    &freezer->snapshot->threads, &freezer->given_up,
					    &freezer->snapshot->target,
					    &freezer->snapshot->live_bytes);
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
	freezer->phase = PHASE_STOPPING;
	freezer->fork = freezer->helper = 0;
}

/* Asked before anything is stopped. Who stands still anyway loses nothing. */
static struct error *check_pause(const struct freezer *freezer, bool by_fork)
{
	const struct target *target = freezer->target;
	struct process_status status;
	struct error *error = process_read_status(target->process, 0, &status);

	if (error || status.state == 'T')
		return error;
	if (by_fork)
		return pause_check(target->pid, "copying its page tables", pause_of_fork(&status),
				   freezer->options.max_pause_us);
	return pause_check(target->pid, "reading its memory", pause_of_reading(&status),
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
static bool is_final(const struct error *error)
{
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

/* The fork's page tables, and time to see how fast its copies come. */
static bool has_room(const struct target *target)
{
	struct process_status status = { 0 };

	error_destroy(process_read_status(target->process, 0, &status));
	return memory_room(target->process) >= 2 * ROOM_MIN + status.vm_rss / 256;
}

static struct error *take(struct freezer *freezer)
{
	struct error *error, *held;

	if (!freezer->options.no_fork && !has_room(freezer->target)) {
		log_warn("process %d is held while it is read: there is no memory left for a copy",
			 (int)freezer->target->pid);
		return hold(freezer);
	}
	if (!freezer->options.no_fork && process_tells_of_forks(freezer->target->process)) {
		log_warn("process %d is held while it is read: it has asked to be told of forks "
			 "(userfaultfd)",
			 (int)freezer->target->pid);
		return hold(freezer);
	}
	if (freezer->options.no_fork || is_stopped(freezer->target))
		return hold(freezer);
	error = check_pause(freezer, true);
	if (error)
		return error;
	error = try_fork(freezer);
	if (!error)
		return NULL;
	undo_fork(freezer);
	if (is_final(error))
		return error;
	held = hold(freezer);
	if (!held)
		log_warn("process %d is held while it is read: %s", (int)freezer->target->pid,
			 error->message);
	else
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

	if (snapshot->kind == SNAPSHOT_STOPPED)
		return clock_us() - freezer->held_since_us;
	return freezer->stopped_us;
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
	pthread_mutex_destroy(&freezer->lock);
	pthread_cond_destroy(&freezer->changed);
	free(freezer);
	free(snapshot);
}
