#include "session.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "memprobe/log.h"
#include "memprobe/num.h"

/*
 * Watching a thread through the stub. Whatever is done here is for the results and for a tidy
 * end: the thread would come out of the stub as well if memprobe died at any of these points.
 */

/* A thread that does not stop in this time is in an uninterruptible sleep. */
#define STOP_TIMEOUT_US 100000

/* What a call that cannot be aborted, or the way out of the stub, may take at most. */
#define GRACE_US 2000000

/* How long to let a thread run before looking whether it has left the stub. */
#define LOOK_US 100

enum watch_state {
	WATCH_ENTERING, /* committed; may still run a handler of its own first */
	WATCH_CALLING,	/* in the stub, signals blocked */
	WATCH_CLEANING, /* past the marker, or aborted */
	WATCH_LEAVING,	/* the stub's last system call is done */
	WATCH_DONE,	/* somewhere in its own code, stopped */
	WATCH_GONE,	/* exited */
	WATCH_LEFT,	/* let go while still in the stub: it will end by itself */
};

struct watch {
	struct call_session *session;
	struct engine_run *run;
	enum watch_state state;
	uint64_t frame;	   /* the stub's copy of the block; 0: not known yet */
	uint64_t deadline; /* for the present state */
	bool aborted;
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

static bool take_lingering(struct call_session *session, pid_t tid)
{
	vec_for_each (lingering, &session->lingering) {
		if (*lingering != tid)
			continue;
		*lingering = session->lingering.data[--session->lingering.size];
		return true;
	}
	return false;
}

/* Seizes and interrupts, unless an earlier try has and only the stop is still to come. */
static struct error *ask_to_stop(struct call_session *session, pid_t tid, unsigned long options)
{
	struct error *error;

	if (take_lingering(session, tid))
		return NULL;
	error = ptrace_seize(tid, options);
	return error ? error : ptrace_interrupt(tid);
}

static struct error *linger(struct call_session *session, pid_t tid)
{
	struct error *error = pid_vec_append(&session->lingering, &tid);

	return error ? error : error_create(ERROR_BUSY, "thread %d does not stop", (int)tid);
}

static struct error *wait_for_stop(struct call_session *session, pid_t tid, uint64_t timeout_us,
				   bool *stopped_ret)
{
	for (;;) {
		struct ptrace_stop stop;
		struct error *error = ptrace_wait(tid, timeout_us, &stop);

		if (error || stop.kind == PTRACE_STOP_EXITED)
			return error;
		if (stop.kind == PTRACE_STOP_TRAP || stop.kind == PTRACE_STOP_GROUP) {
			*stopped_ret = true;
			return NULL;
		}
		/* It cannot be detached before it stops. */
		if (stop.kind == PTRACE_STOP_NONE)
			return linger(session, tid);
		error = ptrace_resume(PTRACE_CONT, tid,
				      stop.kind == PTRACE_STOP_SIGNAL ? stop.signal : 0);
		if (error)
			return error;
	}
}

struct error *engine_stop(struct call_session *session, pid_t tid, unsigned long options,
			  bool *stopped_ret)
{
	struct error *error = ask_to_stop(session, tid, options);

	*stopped_ret = false;
	if (!error)
		error = wait_for_stop(session, tid, STOP_TIMEOUT_US, stopped_ret);
	/* A lingering one was seized for another purpose. */
	if (!error && *stopped_ret)
		error = ptrace_call(PTRACE_SETOPTIONS, tid, 0,
				    (void *)(options | PTRACE_O_TRACESYSGOOD),
				    "set the options of thread");
	return error;
}

void engine_release_lingering(struct call_session *session)
{
	while (session->lingering.size) {
		pid_t tid = session->lingering.data[--session->lingering.size];
		struct user_regs_struct regs;
		bool stopped = false;
		struct error *error = wait_for_stop(session, tid, STOP_TIMEOUT_US, &stopped);

		if (stopped && !error)
			error = ptrace_get_regs(tid, &regs);
		if (stopped && !error)
			engine_release(session, tid, &regs);
		if (error_is(error, ERROR_BUSY)) {
			/* In an uninterruptible sleep: the end of this thread of ours detaches it.
			 */
			session->lingering.size--;
		}
		error_destroy(error);
	}
}

void engine_release(struct call_session *session, pid_t tid, struct user_regs_struct *regs)
{
	ptrace_repair_eintr(session->target->process, session->target->arch, tid, regs);
	ptrace_detach(tid, 0);
}

static struct error *look_for_predecessor(struct call_session *session, pid_t tid)
{
	struct user_regs_struct regs;
	bool stopped;
	struct error *error = engine_stop(session, tid, 0, &stopped);

	if (!stopped) {
		/* In an uninterruptible sleep, or gone: not in the stub, which does not sleep so.
		 */
		error_destroy(error);
		return NULL;
	}
	error = ptrace_get_regs(tid, &regs);
	if (error)
		return error;
	if (thread_before_copy(session, &regs))
		error = error_hint(
			error_create(ERROR_BUSY,
				     "thread %d of %d has a call of an earlier memprobe before it",
				     (int)tid, (int)session->target->pid),
			"if the process is stopped, continue it (kill -CONT %d)",
			(int)session->target->pid);
	else if (thread_inside_stub(session, &regs))
		session->place.in_use = true;
	engine_release(session, tid, &regs);
	return error;
}

struct error *engine_check_predecessor(struct call_session *session)
{
	struct pid_vec tids = { 0 };
	struct error *error = process_list_threads(session->target->process, &tids);

	for (size_t i = 0; !error && i < tids.size; i++)
		error = look_for_predecessor(session, tids.data[i]);
	pid_vec_deinit(&tids);
	return error;
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
	const uint64_t wide[] = { regs->rdi, regs->rsi, regs->rdx, regs->r10, regs->r8, regs->r9 };
	const uint64_t narrow[] = {
		regs->rbx, regs->rcx, regs->rdx, regs->rsi, regs->rdi, regs->rbp
	};

	return arch->bits == 64 ? wide[index] : (uint32_t)narrow[index];
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

/* Interrupted in a wait: what malloc asks of the kernel beside futex() ends or fails, never so. */
static bool in_wait(const struct arch *arch, const struct user_regs_struct *regs)
{
	enum { RESTARTSYS = -512, RESTARTNOINTR = -513, RESTARTNOHAND = -514, RESTARTBLOCK = -516 };
	long orig = arch->bits == 32 ? (int32_t)regs->orig_rax : (long)regs->orig_rax;
	int32_t result = (int32_t)regs->rax;

	return orig >= 0 && (result == RESTARTSYS || result == RESTARTNOINTR ||
			     result == RESTARTNOHAND || result == RESTARTBLOCK || result == -EINTR);
}

/* Whether the call can be given up at this stop with nothing half done. */
static bool may_abort(struct watch *watch, const struct user_regs_struct *regs)
{
	struct call_session *session = watch->session;
	const struct arch *arch = session->target->arch;

	if (!watch->frame)
		return false;
	if (in_lock_wait(arch, regs))
		return true;
	if (watch->run->options->abort_in_lock_wait)
		return false;
	/* Computing: only what the function itself has put on the stack counts. */
	return in_wait(arch, regs) || !thread_inside_below(session, regs, &session->unsafe.malloc,
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
	watch->aborted = true;
	watch->state = WATCH_CLEANING;
	watch->deadline = clock_us() + GRACE_US;
	return NULL;
}

/* A thread that never got to its first instruction in the stub goes back to where it was. */
static bool call_off(struct watch *watch, const struct user_regs_struct *regs)
{
	const struct placement *place = &watch->session->place;
	const struct arch *arch = watch->session->target->arch;
	uint64_t entry = place->code + place->detour.entry;
	uint64_t pc = arch->pc(regs);
	unsigned index = pc == entry ? DETOUR_RESTART : DETOUR_PLAIN;
	struct error *error;

	if (watch->state != WATCH_ENTERING || watch->run->helper_frame ||
	    (pc != entry && pc != entry + 2))
		return false;
	error = ptrace_set_pc(
		watch->run->tid,
		load_word(watch->run->block->bytes + index * arch->word_size, arch->word_size));
	if (error) {
		fail(watch, error);
		return false;
	}
	watch->state = WATCH_DONE;
	return true;
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

/* ---- the way out ---- */

/* Out of the stub: neither in it, nor in a handler that will return to it. */
static bool has_left(struct watch *watch, const struct user_regs_struct *regs)
{
	return !thread_inside_stub(watch->session, regs);
}

/* The stub's system calls that tell how far a thread is. */
static void note_progress(struct watch *watch, const struct user_regs_struct *regs)
{
	const struct call_session *session = watch->session;
	const struct arch *arch = session->target->arch;
	uint64_t first = syscall_argument(arch, regs, 0);

	if (!placement_holds(&session->place, arch->pc(regs)))
		return;
	if ((long)regs->orig_rax == arch->syscalls.rt_sigreturn) {
		watch->state = WATCH_LEAVING;
	} else if ((long)regs->orig_rax != arch->syscalls.rt_sigprocmask) {
		return;
	} else if (watch->state == WATCH_ENTERING && first == SIG_BLOCK) {
		watch->frame =
			syscall_argument(arch, regs, 1) - (uint64_t)DETOUR_BLOCK * arch->word_size;
		watch->state = WATCH_CALLING;
	} else if (first == SIG_SETMASK) {
		watch->state = WATCH_LEAVING;
	}
}

static void on_syscall_stop(struct watch *watch, const struct user_regs_struct *regs)
{
	if (watch->state <= WATCH_CALLING && is_marker(watch, regs)) {
		at_marker(watch, regs);
		watch->state = watch->run->detach_at_marker ? WATCH_DONE : WATCH_CLEANING;
		watch->deadline = max_u64(watch->deadline, clock_us() + GRACE_US);
	} else if (watch->state < WATCH_LEAVING) {
		/* Should a step fail, this is the last we see of its results. */
		if (watch->state == WATCH_CALLING &&
		    placement_holds(&watch->session->place, watch->session->target->arch->pc(regs)))
			error_destroy(read_result(watch));
		note_progress(watch, regs);
	}
}

static bool is_crash(int signal)
{
	return signal == SIGSEGV || signal == SIGBUS || signal == SIGILL || signal == SIGFPE ||
	       signal == SIGABRT || signal == SIGSYS || signal == SIGTRAP;
}

/* True: the signal has been dealt with and is not to be delivered. */
static bool on_signal_stop(struct watch *watch, int signal)
{
	/* While the stub has them blocked, only the function's own faults come through. */
	if (watch->state != WATCH_CALLING || !is_crash(signal) || !watch->frame)
		return false;
	watch->crash_signal = signal;
	fail(watch, error_create(ERROR_FAILED,
				 "the called function raised signal %d (%s) in thread %d: undone",
				 signal, strsignal(signal), (int)watch->run->tid));
	fail(watch, abort_call(watch));
	return true;
}

/* ---- the loop ---- */

static struct error *on_event(struct watch *watch, const struct ptrace_stop *stop)
{
	unsigned long message = 0;
	struct error *error;

	if (stop->event != PTRACE_EVENT_CLONE)
		return NULL;
	error = ptrace_call(PTRACE_GETEVENTMSG, watch->run->tid, 0, &message,
			    "ask for the clone of thread");
	if (!error)
		watch->run->child = (pid_t)message;
	return error;
}

/* Time for the state is up (or memprobe has been asked to end). True: interrupted, wait again. */
static bool on_no_stop(struct watch *watch)
{
	uint64_t now = clock_us();
	struct error *error;

	if (watch->state != WATCH_LEAVING && now < watch->deadline)
		return true;
	if (watch->state != WATCH_LEAVING && now >= watch->deadline + GRACE_US) {
		watch->state = WATCH_LEFT;
		return true;
	}
	error = ptrace_interrupt(watch->run->tid);
	if (error)
		fail(watch, error);
	return !error;
}

static uint64_t wait_time(const struct watch *watch)
{
	uint64_t now = clock_us();

	if (watch->state == WATCH_LEAVING)
		return LOOK_US;
	/* Past the deadline: looked at every now and then until it may be aborted. */
	return now < watch->deadline ? watch->deadline - now : 1000;
}

static bool is_over(const struct watch *watch)
{
	return watch->state >= WATCH_DONE;
}

/* A stopped thread: decides, and resumes it unless that was the end. */
static struct error *on_stop(struct watch *watch, const struct ptrace_stop *stop)
{
	struct user_regs_struct regs;
	struct error *error = ptrace_get_regs(watch->run->tid, &regs);
	int signal = 0;

	if (error)
		return error;
	if (stop->kind == PTRACE_STOP_SYSCALL)
		on_syscall_stop(watch, &regs);
	else if (stop->kind == PTRACE_STOP_SIGNAL)
		signal = on_signal_stop(watch, stop->signal) ? 0 : stop->signal;
	else if (stop->kind == PTRACE_STOP_EVENT)
		error = on_event(watch, stop);
	/* The end of an interrupted system call takes the place of the stop we asked for. */
	if (!error && (stop->kind == PTRACE_STOP_TRAP || stop->kind == PTRACE_STOP_SYSCALL) &&
	    clock_us() >= watch->deadline && !at_entry(&regs))
		error = on_timeout_stop(watch, &regs);
	if (error)
		return error;
	if (watch->state == WATCH_LEAVING && stop->kind != PTRACE_STOP_SIGNAL &&
	    has_left(watch, &regs)) {
		if (stop->kind == PTRACE_STOP_TRAP || stop->kind == PTRACE_STOP_GROUP)
			ptrace_repair_eintr(watch->session->target->process,
					    watch->session->target->arch, watch->run->tid, &regs);
		watch->state = WATCH_DONE;
	}
	if (is_over(watch))
		return NULL;
	return ptrace_resume(PTRACE_SYSCALL, watch->run->tid, signal);
}

static struct error *watch_loop(struct watch *watch)
{
	uint64_t leaving_since = 0;

	while (!is_over(watch)) {
		struct ptrace_stop stop;
		struct error *error = ptrace_wait(watch->run->tid, wait_time(watch), &stop);

		if (error)
			return error;
		if (watch->state == WATCH_LEAVING && !leaving_since)
			leaving_since = clock_us();
		/* In a handler on top of the stub, for as long as that takes: not ours to hold. */
		if (leaving_since && clock_us() - leaving_since > GRACE_US)
			watch->state = WATCH_LEFT;
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
	struct ptrace_stop stop;
	struct error *error = ptrace_interrupt(watch->run->tid);

	if (!error)
		error = ptrace_wait(watch->run->tid, STOP_TIMEOUT_US, &stop);
	if (!error && stop.kind != PTRACE_STOP_EXITED && stop.kind != PTRACE_STOP_NONE)
		ptrace_detach(watch->run->tid, stop.kind == PTRACE_STOP_SIGNAL ? stop.signal : 0);
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
