#include "session.h"
#include "sleepers.h"

#include <errno.h>

#include "memprobe/clock.h"
#include "memprobe/num.h"

/*
 * Stopping a thread of the target for a look or a try, and letting it go. One that does not stop in
 * time, since it sleeps uninterruptibly, lingers: it is detached when it has come to its stop.
 */

/* How often is looked whether it has stopped: one that waits for a CPU is not held yet. */
#define STOP_LOOK_US 500

/* How often is looked whether a thread has stayed in its transfer. */
#define TRANSFER_LOOKS 20

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

static struct error *take(struct call_session *session, pid_t tid, struct user_regs_struct *ret)
{
	return ptrace_take(session->target->process, session->target->arch, tid, ret);
}

/* Lets go of those of the lingering that have come to their stop. */
static void release_stopped(struct call_session *session)
{
	for (size_t i = session->lingering.size; i-- > 0;) {
		pid_t tid = session->lingering.data[i];
		struct user_regs_struct regs;
		struct ptrace_stop stop;
		struct error *error = ptrace_wait(tid, 0, &stop);

		if (!error && stop.kind == PTRACE_STOP_NONE)
			continue;
		if (!error && stop.kind == PTRACE_STOP_SIGNAL) {
			error_destroy(ptrace_resume(PTRACE_CONT, tid, stop.signal));
			continue;
		}
		if (!error && stop.kind != PTRACE_STOP_EXITED)
			error = take(session, tid, &regs);
		if (!error && stop.kind != PTRACE_STOP_EXITED)
			ptrace_detach(tid, 0);
		error_destroy(error);
		take_lingering(session, tid);
	}
}

/* *regs_ret is set with *stopped_ret. */
static struct error *wait_for_stop(struct call_session *session, pid_t tid, uint64_t timeout_us,
				   bool *stopped_ret, struct user_regs_struct *regs_ret)
{
	uint64_t deadline = clock_us() + timeout_us;

	for (;;) {
		uint64_t since = clock_us();
		struct ptrace_stop stop;
		struct error *error = ptrace_wait(
			tid, min_u64(deadline - min_u64(since, deadline), STOP_LOOK_US), &stop);

		session->held_since = since;
		if (error || stop.kind == PTRACE_STOP_EXITED)
			return error;
		if (stop.kind == PTRACE_STOP_TRAP || stop.kind == PTRACE_STOP_GROUP) {
			error = take(session, tid, regs_ret);
			*stopped_ret = !error;
			return error;
		}
		if (stop.kind == PTRACE_STOP_NONE && clock_us() < deadline) {
			release_stopped(session);
			continue;
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

struct error *seize_stop(struct call_session *session, pid_t tid, unsigned long options,
			 bool *stopped_ret, struct user_regs_struct *regs_ret)
{
	struct error *error = ask_to_stop(session, tid, options);

	*stopped_ret = false;
	if (!error)
		error = wait_for_stop(session, tid, SEIZE_TIMEOUT_US, stopped_ret, regs_ret);
	/* A lingering one was seized for another purpose. */
	if (!error && *stopped_ret)
		error = ptrace_call(PTRACE_SETOPTIONS, tid, 0,
				    (void *)(options | PTRACE_O_TRACESYSGOOD),
				    "set the options of thread");
	return error;
}

void seize_release_lingering(struct call_session *session)
{
	while (session->lingering.size) {
		pid_t tid = session->lingering.data[--session->lingering.size];
		struct user_regs_struct regs;
		bool stopped = false;
		struct error *error =
			wait_for_stop(session, tid, SEIZE_TIMEOUT_US, &stopped, &regs);

		if (stopped)
			ptrace_detach(tid, 0);
		if (error_is(error, ERROR_BUSY)) {
			/* In an uninterruptible sleep: the end of this thread of ours detaches it.
			 */
			session->lingering.size--;
		}
		error_destroy(error);
	}
}

static struct error *at_work(struct call_session *session)
{
	return error_hint(error_create(ERROR_BUSY, "another memprobe is at work on %d",
				       (int)session->target->pid),
			  "wait for it to end");
}

/*
 * Of who is in a transfer, which a stop would cut short: what can be told by what the kernel shows
 * of a sleeper. False: it is in none, or not for long enough.
 */
static bool look_at_transfer(struct call_session *session, pid_t tid, enum stub_presence *ret)
{
	const struct target *target = session->target;
	struct sleeper sleeper = { .tid = tid };
	struct sleeper_vec sleepers = { .data = &sleeper, .size = 1 };
	bool slept = false;

	for (unsigned i = 0; i < TRANSFER_LOOKS && !slept; i++) {
		struct user_regs_struct regs = { 0 };
		struct pid_vec woken = { 0 };
		struct error *error;

		sleeper.kind = wait_kind_now(target->process, target->arch, tid, &sleeper.call);
		if (sleeper.kind != WAIT_CUT)
			return false;
		/* The thread pointer is not known. */
		regs.rip = sleeper.call.pc;
		regs.rsp = sleeper.call.sp;
		*ret = stub_presence(session, &regs);
		error = sleepers_check(target, &sleepers, &woken);
		slept = !error && !woken.size;
		error_destroy(error);
		pid_vec_deinit(&woken);
	}
	return slept;
}

static struct error *judge(struct call_session *session, pid_t tid, enum stub_presence presence)
{
	if (presence == STUB_BEFORE_COPY)
		return error_hint(
			error_create(
				ERROR_BUSY,
				"thread %d of %d still has an unfinished call of an earlier memprobe",
				(int)tid, (int)session->target->pid),
			"if the process is stopped, continue it (kill -CONT %d)",
			(int)session->target->pid);
	session->place.in_use |= presence == STUB_INSIDE;
	return NULL;
}

static struct error *look_for_predecessor(struct call_session *session, pid_t tid)
{
	struct user_regs_struct regs;
	struct process_status status;
	enum stub_presence presence;
	bool stopped = false;
	struct error *error = process_read_status(session->target->process, tid, &status);

	if (!error && (status.state == 'Z' || status.state == 'X'))
		return NULL;
	/* Held through another mount of /proc, where our lock does not reach. */
	if (!error && status.tracer_pid)
		return at_work(session);
	if (!error && look_at_transfer(session, tid, &presence))
		return judge(session, tid, presence);
	if (!error)
		error = seize_stop(session, tid, 0, &stopped, &regs);
	if (!stopped) {
		/* Gone, or in an uninterruptible sleep, perhaps of the function that was called. */
		session->place.in_use |= !error || error->errnum != ESRCH;
		error_destroy(error);
		return NULL;
	}
	error = judge(session, tid, stub_presence(session, &regs));
	ptrace_detach(tid, 0);
	return error;
}

struct error *seize_check_predecessor(struct call_session *session)
{
	struct pid_vec tids = { 0 };
	struct error *error = process_list_threads(session->target->process, &tids);

	for (size_t i = 0; !error && i < tids.size; i++)
		error = look_for_predecessor(session, tids.data[i]);
	pid_vec_deinit(&tids);
	return error;
}
