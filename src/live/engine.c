#include "session.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "memprobe/clock.h"
#include "memprobe/log.h"
#include "memprobe/num.h"

/*
 * Watching a thread through the stub. Whatever is done here is for the results and for a tidy
 * end: the thread would come out of the stub as well if memprobe died at any of these points.
 */

/* -ERESTART_RESTARTBLOCK: the kernel goes on with what it has noted for the thread. */
#define RESTART_BLOCK (-516)

/* What a call that cannot be aborted, or the way out of the stub, may take at most. */
#define GRACE_US 2000000

enum watch_state {
	WATCH_ENTERING, /* committed; may still run a handler of its own first */
	WATCH_CALLING,	/* in the stub, signals blocked */
	WATCH_CLEANING, /* past the marker, or aborted */
	WATCH_DONE,	/* back where it was first stopped */
	WATCH_GONE,	/* exited */
	WATCH_LEFT,	/* let go while still in the stub: it will end by itself */
};

struct watch {
	struct call_session *session;
	struct engine_run *run;
	enum watch_state state;
	uint64_t frame;	   /* the stub's copy of the block; 0: not known yet */
	uint64_t deadline; /* for the present state */
	/* A timed wait of the function was interrupted: what the kernel had noted for the thread's
	 * own one is overwritten. */
	bool restart_lost;
	int crash_signal;
	struct error *error; /* the outcome; the first one counts */
};

static void fail(struct watch *watch, struct error *error)
{
	if (watch->error)
		error_destroy(error);
	else
		watch->error = error;
}

/* ---- reading the stub's frame ---- */

static struct error *read_result(struct watch *watch)
{
	const struct engine_run *run = watch->run;

	return target_read(watch->session->target, watch->frame + run->block->data,
			   run->result->data, run->script->data_size);
}

static uint64_t syscall_argument(const struct arch *arch, const struct user_regs_struct *regs,
				 unsigned index)
{
	uint64_t args[6];

	ptrace_call_args(arch, regs, args);
	return args[index];
}

/* In a system call stop: before the call, not after it. */
static bool at_entry(const struct user_regs_struct *regs)
{
	return (int32_t)regs->rax == -ENOSYS;
}

static bool is_marker(const struct watch *watch, const struct user_regs_struct *regs)
{
	const struct arch *arch = watch->session->target->arch;

	return (long)regs->orig_rax == arch->syscalls.rt_sigprocmask && at_entry(regs) &&
	       syscall_argument(arch, regs, 5) == DETOUR_MAGIC &&
	       placement_holds(&watch->session->place, arch->pc(regs));
}

static void at_marker(struct watch *watch, const struct user_regs_struct *regs)
{
	struct engine_run *run = watch->run;
	struct error *error;

	watch->frame = syscall_argument(watch->session->target->arch, regs, 4) - run->block->data;
	error = read_result(watch);
	if (!error) {
		run->result->completed = true;
		run->result->tid = run->tid;
		run->result->thread_pointer = watch->session->target->arch->thread_pointer(regs);
		if (run->options->at_marker)
			error = run->options->at_marker(watch->session->target, run->result,
							run->options->at_marker_data);
	}
	if (error)
		fail(watch, error);
}

/* ---- abort ---- */

static bool in_lock_wait(const struct arch *arch, const struct user_regs_struct *regs)
{
	long orig = arch->bits == 32 ? (int32_t)regs->orig_rax : (long)regs->orig_rax;

	return orig >= 0 && orig == arch->syscalls.futex;
}

/* Interrupted in a wait that nobody makes while holding a lock that matters. */
static bool in_pure_wait(const struct arch *arch, const struct user_regs_struct *regs)
{
	enum {
		RESTARTSYS = -512,
		RESTARTNOINTR = -513,
		RESTARTNOHAND = -514,
		RESTARTBLOCK = RESTART_BLOCK
	};
	long orig = arch->bits == 32 ? (int32_t)regs->orig_rax : (long)regs->orig_rax;
	int32_t result = (int32_t)regs->rax;

	return arch_list_has(arch->pure_waits, orig) &&
	       (result == RESTARTSYS || result == RESTARTNOINTR || result == RESTARTNOHAND ||
		result == RESTARTBLOCK || result == -EINTR);
}

static bool is_computing(const struct arch *arch, const struct user_regs_struct *regs)
{
	return (arch->bits == 32 ? (int32_t)regs->orig_rax : (long)regs->orig_rax) < 0;
}

/* Whether the call can be given up at this stop with nothing half done. */
static bool may_abort(struct watch *watch, const struct user_regs_struct *regs)
{
	struct call_session *session = watch->session;
	const struct arch *arch = session->target->arch;

	if (!watch->frame)
		return false;
	if (watch->run->options->abort_in_lock_wait)
		return in_lock_wait(arch, regs);
	if (in_pure_wait(arch, regs))
		return true;
	/* Computing, with nothing of libc below it: only the function's own part of the stack
	 * counts. */
	return is_computing(arch, regs) &&
	       !thread_inside_below(session, regs, &session->unsafe.system,
				    watch->frame - session->xsave_size);
}

static struct error *abort_call(struct watch *watch)
{
	struct call_session *session = watch->session;
	const struct placement *place = &session->place;
	pid_t tid = watch->run->tid;
	struct error *error = placement_set_word(session, tid, DETOUR_ABORT_FRAME, watch->frame);

	/* Two bytes in: a system call that the kernel restarts lands on the first. */
	if (!error)
		error = ptrace_set_pc(tid, place->code + place->detour.abort + 2);
	if (error)
		return error;
	watch->state = WATCH_CLEANING;
	watch->deadline = clock_us() + GRACE_US;
	return NULL;
}

/*
 * Puts the thread back to where it was first stopped, with the kernel left to decide what becomes
 * of an interrupted system call: it looks at the signals that came meanwhile. All registers go in
 * one call; until then the stub's own way out would have done.
 */
static struct error *put_back(struct watch *watch)
{
	const struct engine_run *run = watch->run;
	struct user_regs_struct regs = run->regs;
	/* Makes the kernel look for signals, and so at the restart, before the thread runs on. */
	struct error *error = ptrace_interrupt(run->tid);

	if (error)
		return error;
	if (watch->restart_lost && (int32_t)regs.rax == RESTART_BLOCK)
		regs.rax = -EINTR;
	error = ptrace_set_regs(run->tid, &regs);
	if (!error)
		watch->state = WATCH_DONE;
	return error;
}

/* A thread that never got to its first instruction in the stub goes back at once. */
static bool call_off(struct watch *watch, const struct user_regs_struct *regs)
{
	const struct engine_run *run = watch->run;
	const struct placement *place = &watch->session->place;
	uint64_t entry = place->code + place->detour.entry;
	uint64_t pc = watch->session->target->arch->pc(regs);
	struct error *error = NULL;

	if (watch->state != WATCH_ENTERING || (pc != entry && pc != entry + 2))
		return false;
	if (run->mask_blocked)
		error = ptrace_set_mask(run->tid, run->mask);
	if (!error)
		error = put_back(watch);
	if (error)
		fail(watch, error);
	return !error;
}

static void say_timeout(struct watch *watch, const char *what)
{
	fail(watch, error_create(ERROR_BUSY, "the call in thread %d of %d did not finish in time%s",
				 (int)watch->run->tid, (int)watch->session->target->pid, what));
}

/* Stopped while the time is up. */
static struct error *on_timeout_stop(struct watch *watch, const struct user_regs_struct *regs)
{
	if (call_off(watch, regs)) {
		say_timeout(watch, "; it was called off");
		return NULL;
	}
	if (watch->state == WATCH_CALLING && may_abort(watch, regs)) {
		say_timeout(watch, " and was aborted");
		return abort_call(watch);
	}
	return NULL;
}

/* ---- the way through the stub ---- */

/* The thread's own signals must not choose another way out than the one we see it through. */
static struct error *forget_pending(struct watch *watch)
{
	const struct call_session *session = watch->session;
	uint64_t address =
		watch->frame + (uint64_t)DETOUR_PENDING * session->target->arch->word_size;
	uint64_t none = 0;

	if (pwrite(session->memory, &none, sizeof(none), (off_t)address) != sizeof(none))
		return error_errno(ERROR_FAILED, errno, "cannot write the stack of thread %d",
				   (int)watch->run->tid);
	return NULL;
}

/* The stub's own system calls tell how far the thread is. */
static struct error *note_progress(struct watch *watch, const struct user_regs_struct *regs)
{
	const struct arch *arch = watch->session->target->arch;
	uint64_t first = syscall_argument(arch, regs, 0);
	long nr = (int32_t)regs->orig_rax;

	if (nr == arch->syscalls.rt_sigpending && !at_entry(regs) && watch->frame &&
	    !watch->run->helper_frame)
		return forget_pending(watch);
	if (nr != arch->syscalls.rt_sigprocmask)
		return NULL;
	if (watch->state == WATCH_ENTERING && first == SIG_BLOCK) {
		watch->frame =
			syscall_argument(arch, regs, 1) - (uint64_t)DETOUR_BLOCK * arch->word_size;
		watch->state = WATCH_CALLING;
	} else if (first == SIG_SETMASK && !at_entry(regs)) {
		return put_back(watch);
	}
	return NULL;
}

static struct error *on_syscall_stop(struct watch *watch, const struct user_regs_struct *regs)
{
	if (!placement_holds(&watch->session->place, watch->session->target->arch->pc(regs)))
		return NULL;
	if (watch->state <= WATCH_CALLING && is_marker(watch, regs)) {
		at_marker(watch, regs);
		watch->state = watch->run->detach_at_marker ? WATCH_DONE : WATCH_CLEANING;
		watch->deadline = max_u64(watch->deadline, clock_us() + GRACE_US);
		return NULL;
	}
	/* Should a step fail, this is the last we see of its results. */
	if (watch->state == WATCH_CALLING)
		error_destroy(read_result(watch));
	return note_progress(watch, regs);
}

static bool is_crash(int signal)
{
	return signal == SIGSEGV || signal == SIGBUS || signal == SIGILL || signal == SIGFPE ||
	       signal == SIGABRT || signal == SIGSYS || signal == SIGTRAP;
}

/* True: the signal has been dealt with and is not to be delivered. */
static bool on_signal_stop(struct watch *watch, int signal)
{
	/* While the stub has them blocked, few come through: the function's own faults are ours. */
	if (watch->state != WATCH_CALLING || !is_crash(signal) || !watch->frame ||
	    !ptrace_is_fault(watch->run->tid, &watch->session->status))
		return false;
	watch->crash_signal = signal;
	fail(watch, error_create(ERROR_FAILED,
				 "the called function raised signal %d (%s) in thread %d: undone",
				 signal, strsignal(signal), (int)watch->run->tid));
	fail(watch, abort_call(watch));
	return true;
}

/* ---- the loop ---- */

/* What a handler of the target's own clones on our watch goes its way. */
static void let_go_of_stranger(pid_t tid)
{
	struct ptrace_stop stop;
	struct error *error = ptrace_wait(tid, SEIZE_TIMEOUT_US, &stop);

	if (!error && stop.kind != PTRACE_STOP_EXITED && stop.kind != PTRACE_STOP_NONE)
		ptrace_detach(tid, 0);
	error_destroy(error);
}

static struct error *on_event(struct watch *watch, const struct ptrace_stop *stop,
			      const struct user_regs_struct *regs)
{
	unsigned long message = 0;
	struct error *error;

	if (stop->event != PTRACE_EVENT_CLONE)
		return NULL;
	error = ptrace_call(PTRACE_GETEVENTMSG, watch->run->tid, 0, &message,
			    "ask for the clone of thread");
	if (error)
		return error;
	if (placement_holds(&watch->session->place, watch->session->target->arch->pc(regs)))
		watch->run->child = (pid_t)message;
	else
		let_go_of_stranger((pid_t)message);
	return NULL;
}

/* Time for the state is up (or memprobe has been asked to end). True: interrupted, wait again. */
static bool on_no_stop(struct watch *watch)
{
	uint64_t now = clock_us();
	struct error *error;

	if (now < watch->deadline)
		return true;
	if (now >= watch->deadline + GRACE_US) {
		watch->state = WATCH_LEFT;
		return true;
	}
	error = ptrace_interrupt(watch->run->tid);
	if (error)
		fail(watch, error);
	return !error;
}

/* How often it is looked whether memprobe has been asked to end. */
#define INTERRUPT_LOOKS_US 20000

static uint64_t wait_time(const struct watch *watch)
{
	uint64_t now = clock_us();

	/* Past the deadline: looked at every now and then until it may be aborted. */
	return now < watch->deadline ? min_u64(watch->deadline - now, INTERRUPT_LOOKS_US) : 1000;
}

/* Then the time for the call is up. */
static void heed_interrupt(struct watch *watch)
{
	const struct target *target = watch->session->target;

	if (watch->state <= WATCH_CALLING && target_is_interrupted(target))
		watch->deadline = min_u64(watch->deadline, clock_us());
}

static bool is_over(const struct watch *watch)
{
	return watch->state >= WATCH_DONE;
}

/* A stopped thread: decides, and resumes it unless that was the end. */
static struct error *on_stop(struct watch *watch, const struct ptrace_stop *stop)
{
	const struct target *target = watch->session->target;
	struct user_regs_struct regs;
	struct error *error = ptrace_get_regs(watch->run->tid, &regs);
	int signal = 0;

	if (error)
		return error;
	if (watch->state == WATCH_CALLING && (int32_t)regs.rax == RESTART_BLOCK)
		watch->restart_lost = true;
	ptrace_avoid_restart_syscall(target->process, target->arch, watch->run->tid, &regs);
	if (stop->kind == PTRACE_STOP_SYSCALL)
		error = on_syscall_stop(watch, &regs);
	else if (stop->kind == PTRACE_STOP_SIGNAL)
		signal = on_signal_stop(watch, stop->signal) ? 0 : stop->signal;
	else if (stop->kind == PTRACE_STOP_EVENT)
		error = on_event(watch, stop, &regs);
	/* The end of an interrupted system call takes the place of the stop we asked for. */
	if (!error && !is_over(watch) &&
	    (stop->kind == PTRACE_STOP_TRAP || stop->kind == PTRACE_STOP_SYSCALL) &&
	    clock_us() >= watch->deadline && !at_entry(&regs))
		error = on_timeout_stop(watch, &regs);
	if (error)
		return error;
	if (is_over(watch))
		return NULL;
	return ptrace_resume(PTRACE_SYSCALL, watch->run->tid, signal);
}

static struct error *watch_loop(struct watch *watch)
{
	while (!is_over(watch)) {
		struct ptrace_stop stop;
		struct error *error = ptrace_wait(watch->run->tid, wait_time(watch), &stop);

		heed_interrupt(watch);
		if (error)
			return error;
		if (stop.kind == PTRACE_STOP_EXITED) {
			watch->state = WATCH_GONE;
			return NULL;
		}
		if (stop.kind == PTRACE_STOP_NONE) {
			if (!on_no_stop(watch))
				return NULL;
			continue;
		}
		if (watch->state == WATCH_LEFT)
			return NULL;
		error = on_stop(watch, &stop);
		if (error)
			return error;
	}
	return NULL;
}

/* Lets go of a thread that may still be on its way through the stub; it needs us for nothing. */
static void let_go(struct watch *watch)
{
	const struct target *target = watch->session->target;
	struct ptrace_stop stop;
	struct error *error = ptrace_interrupt(watch->run->tid);

	if (!error)
		error = ptrace_wait(watch->run->tid, SEIZE_TIMEOUT_US, &stop);
	if (!error && stop.kind != PTRACE_STOP_EXITED && stop.kind != PTRACE_STOP_NONE) {
		ptrace_avoid_restart(target->process, target->arch, watch->run->tid);
		ptrace_detach(watch->run->tid, stop.kind == PTRACE_STOP_SIGNAL ? stop.signal : 0);
	}
	error_destroy(error);
	watch->session->place.in_use = true;
}

struct error *engine_watch(struct call_session *session, struct engine_run *run)
{
	struct watch watch = {
		.session = session,
		.run = run,
		.deadline = run->deadline,
	};
	struct error *error;

	if (run->helper_frame) {
		watch.frame = run->helper_frame;
		watch.state = WATCH_CALLING;
	}
	error = ptrace_resume(PTRACE_SYSCALL, run->tid, 0);
	if (!error)
		error = watch_loop(&watch);
	if (error)
		fail(&watch, error);
	if (watch.state == WATCH_DONE) {
		ptrace_detach(run->tid, 0);
	} else if (watch.state != WATCH_GONE) {
		say_timeout(&watch, "; it was left to finish by itself");
		let_go(&watch);
	} else if (!run->helper_frame) {
		fail(&watch, error_create(ERROR_FAILED, "thread %d of %d exited during the call",
					  (int)run->tid, (int)session->target->pid));
	}
	return watch.error;
}

/* ---- committing ---- */

static bool calls_functions(const struct call_script *script)
{
	for (unsigned i = 0; i < script->step_count; i++)
		if (script->steps[i].op == CALL_OP_FUNCTION)
			return true;
	return false;
}

/* Everything but what a fault of the called function raises. */
static uint64_t blocked_signals(void)
{
	const int faults[] = { SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP, SIGSYS, SIGABRT };
	uint64_t mask = UINT64_MAX;

	for (size_t i = 0; i < sizeof(faults) / sizeof(faults[0]); i++)
		mask &= ~(UINT64_C(1) << (faults[i] - 1));
	return mask;
}

static struct error *encode(struct call_session *session, struct engine_run *run)
{
	const struct arch *arch = session->target->arch;
	long nr = arch->bits == 32 ? (int32_t)run->regs.orig_rax : (long)run->regs.orig_rax;
	struct block_header header = {
		.plain = arch->pc(&run->regs),
		.restart = arch->pc(&run->regs) - 2,
		.xsave_mask = session->xsave_mask,
		.xsave_size = session->xsave_size,
		.xsave_used = session->xsave_used,
		.errno_function = calls_functions(run->script) ? session->errno_function : 0,
		.block_mask = blocked_signals(),
		.tid = (uint64_t)run->tid,
		.mask_known = !arch_list_has(arch->masked_waits, nr),
	};

	if (header.mask_known) {
		struct error *error = ptrace_get_mask(run->tid, &header.old_mask);

		if (error)
			return error;
	}
	run->mask = header.old_mask;
	run->mask_blocked = header.mask_known;
	return script_encode(run->script, &header, run->block);
}

struct error *engine_run(struct call_session *session, struct engine_run *run)
{
	const struct placement *place = &session->place;
	struct error *error = encode(session, run);

	if (!error)
		error = placement_install(session, run->tid);
	if (!error)
		error = placement_write_block(session, run->tid, run->block);
	if (!error)
		error = ptrace_set_pc(run->tid, place->code + place->detour.entry + 2);
	if (error) {
		ptrace_detach(run->tid, 0);
		return error;
	}
	/* No handler is to begin on top of the stub's first instructions. */
	if (run->mask_blocked)
		error_destroy(ptrace_set_mask(run->tid, run->mask | blocked_signals()));
	return engine_watch(session, run);
}
