#include "tracer.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "memprobe/clock.h"
#include "memprobe/guard.h"
#include "memprobe/log.h"
#include "memprobe/num.h"
#include "memprobe/pause.h"
#include "memprobe/permit.h"

#define STACK_MOST   65536u
#define TRACER_STACK (256u << 10)
#define PASSES_MAX   64
#define WAIT_US	     50000
/* For the first stop of each thread; one in an uninterruptible wait makes it when that is over. */
#define FIRST_STOPS_US 2000000
/* -ERESTART_RESTARTBLOCK: a sleep or a poll was interrupted. */
#define RESTART_BLOCK (-516)

/* ---- threads ---- */

/* What by_tid says of one that is gone may have become the place of another, and its id, too, may
 * come again. */
static struct tracee *find_tracee(struct syscall_tracer *tracer, pid_t tid)
{
	uint64_t at = map64_get(&tracer->by_tid, (uint64_t)tid);
	struct tracee *tracee = at == MAP64_NONE ? NULL : &tracer->tracees.data[at];

	return tracee && tracee->tid == tid && !tracee->gone ? tracee : NULL;
}

/* In the place of one that is gone, where there is one. */
static struct error *add_tracee(struct syscall_tracer *tracer, pid_t tid, struct tracee **ret)
{
	const struct tracee fresh = { .tid = tid, .call = -1, .running_us = clock_us() };
	struct tracee_vec *tracees = &tracer->tracees;
	size_t at = 0;
	struct error *error = NULL;

	while (at < tracees->size && !tracees->data[at].gone)
		at++;
	if (at == tracees->size)
		error = tracee_vec_append(tracees, &fresh);
	else
		tracees->data[at] = fresh;
	if (!error)
		error = map64_put(&tracer->by_tid, (uint64_t)tid, at);
	if (error)
		return error;
	tracer->living++;
	tracer->untraced++;
	*ret = &tracees->data[at];
	return NULL;
}

void tracer_forget(struct syscall_tracer *tracer, struct tracee *tracee)
{
	if (!tracee)
		return;
	tracee->gone = true;
	tracer->living--;
	tracer->untraced -= !tracee->traced;
	tracer->parked -= tracee->parked;
}

/* ---- attaching ---- */

/* It is gone, or its maker was traced already, so that it is, too: then its first stop is to come.
 */
static bool needs_no_seizing(struct syscall_tracer *tracer, pid_t tid, const struct error *why)
{
	struct process_status status;
	struct error *error = process_read_status(tracer->target->process, tid, &status);
	bool gone = error || status.state == 'Z' || status.state == 'X' || why->errnum == ESRCH ||
		    status.tracer_pid == gettid();

	error_destroy(error);
	return gone;
}

static struct error *seize(struct syscall_tracer *tracer, pid_t tid)
{
	struct tracee *unused;
	struct error *error = ptrace_seize(tid, PTRACE_O_TRACECLONE | PTRACE_O_TRACEEXEC);
	int errnum;

	if (!error)
		return add_tracee(tracer, tid, &unused);
	if (needs_no_seizing(tracer, tid, error)) {
		error_destroy(error);
		return NULL;
	}
	if (error->code != ERROR_PERMISSION)
		return error;
	errnum = error->errnum;
	error_destroy(error);
	return permit_explain(tracer->target->process, PERMIT_ATTACH, errnum);
}

/*
 * Until a pass finds no thread that is new. The first thread is the last one: a signal to the
 * process that it ignores is dropped unless just that thread is traced, else it wakes any of them.
 */
static struct error *seize_all(struct syscall_tracer *tracer)
{
	bool found = true;

	for (unsigned pass = 0; found && pass < PASSES_MAX; pass++) {
		struct pid_vec tids = { 0 };
		size_t before = tracer->living;
		struct error *error = process_list_threads(tracer->target->process, &tids);

		for (size_t i = 0; !error && i < tids.size; i++)
			if (!find_tracee(tracer, tids.data[(i + 1) % tids.size]))
				error = seize(tracer, tids.data[(i + 1) % tids.size]);
		found = tracer->living > before;
		pid_vec_deinit(&tids);
		if (error)
			return error;
	}
	return tracer->living ? NULL
			      : error_create(ERROR_NO_TARGET, "no thread of %d is left",
					     tracer->target->pid);
}

static struct error *check_pause(struct syscall_tracer *tracer)
{
	struct process_status status;
	struct error *error = process_read_status(tracer->target->process, 0, &status);

	if (error || status.state == 'T')
		return error;
	return pause_check(tracer->target->pid, "attaching to its threads",
			   pause_of_stop(status.threads, 0), tracer->max_pause_us);
}

static struct error *interrupt(struct tracee *tracee)
{
	tracee->interrupted = true;
	return ptrace_interrupt(tracee->tid);
}

void tracer_interrupt_all(struct syscall_tracer *tracer)
{
	vec_for_each (tracee, &tracer->tracees) {
		if (tracee->gone)
			continue;
		/* Whoever ends meanwhile tells so. */
		error_destroy(interrupt(tracee));
		tracee->running_us = clock_us();
	}
}

/* ---- system calls ---- */

static void read_indirect(struct syscall_tracer *tracer, uint64_t args[6])
{
	unsigned word = tracer->target->arch->word_size;
	uint8_t bytes[6 * 8] = { 0 };
	struct error *error = target_read(tracer->target, args[0], bytes, (size_t)6 * word);

	for (unsigned i = 0; i < 6; i++) {
		args[i] = 0;
		memcpy(&args[i], bytes + (size_t)i * word, word);
	}
	error_destroy(error);
}

static void note_entry(struct syscall_tracer *tracer, struct tracee *tracee,
		       const struct __ptrace_syscall_info *info)
{
	tracee->call = -1;
	/* A 64-bit program may make 32-bit calls, by other numbers. */
	if (info->arch != tracer->target->arch->audit_arch)
		return;
	for (unsigned i = 0; i < tracer->call_count; i++) {
		if (tracer->calls[i].nr < 0 || info->entry.nr != (uint64_t)tracer->calls[i].nr)
			continue;
		tracee->call = (int)i;
		memcpy(tracee->args, info->entry.args, sizeof(tracee->args));
		if (tracer->calls[i].indirect)
			read_indirect(tracer, tracee->args);
		return;
	}
}

/* As much as there is of it. */
static size_t read_stack(struct syscall_tracer *tracer, uint64_t sp)
{
	size_t size = min_u64(tracer->stack_bytes, UINT64_MAX - sp);
	struct error *error = target_read(tracer->target, sp, tracer->stack, size);

	if (error_is(error, ERROR_FAULT) && error->address > sp && error->address - sp < size) {
		size = error->address - sp;
		error_destroy(error);
		error = target_read(tracer->target, sp, tracer->stack, size);
	}
	if (error)
		size = 0;
	error_destroy(error);
	return size;
}

static struct error *note_exit(struct syscall_tracer *tracer, struct tracee *tracee,
			       const struct __ptrace_syscall_info *info)
{
	const struct arch *arch = tracer->target->arch;
	struct traced_call call = { .call = (unsigned)tracee->call, .tid = tracee->tid };
	struct error *error;

	if (tracee->call < 0)
		return NULL;
	tracee->call = -1;
	error = ptrace_get_regs(tracee->tid, &call.regs);
	if (error)
		return error;
	call.time = clock_us() * 1000;
	memcpy(call.args, tracee->args, sizeof(call.args));
	call.failed = info->exit.is_error;
	call.result = (uint64_t)info->exit.rval;
	if (arch->bits == 32 && !call.failed)
		call.result = (uint32_t)call.result;
	call.stack = tracer->stack;
	call.stack_size = read_stack(tracer, arch->sp(&call.regs));
	call_queue_put(&tracer->queue, &call);
	return NULL;
}

static struct error *at_call(struct syscall_tracer *tracer, struct tracee *tracee)
{
	struct __ptrace_syscall_info info = { 0 };
	struct error *error = ptrace_get_call(tracee->tid, &info);

	if (!error && info.op == PTRACE_SYSCALL_INFO_ENTRY)
		note_entry(tracer, tracee, &info);
	if (error || info.op != PTRACE_SYSCALL_INFO_EXIT)
		return error;
	error = note_exit(tracer, tracee, &info);
	/*
	 * A signal that the target ignores would not have woken it but for us, and one to the
	 * process that finds a thread held is taken by another one after it has woken more of
	 * them. What comes next undoes it.
	 */
	if (!error && info.exit.rval == RESTART_BLOCK)
		ptrace_avoid_restart(tracer->target->process, tracer->target->arch, tracee->tid);
	return !error && info.exit.rval == -EINTR ? interrupt(tracee) : error;
}

/* ---- stops ---- */

static struct error *undo_interrupt(struct syscall_tracer *tracer, struct tracee *tracee)
{
	const struct target *target = tracer->target;
	struct __ptrace_syscall_info info;
	struct user_regs_struct regs;
	struct error *error;

	tracee->interrupted = false;
	/* Whether this kernel can tell. */
	error = ptrace_get_call(tracee->tid, &info);
	if (!error)
		error = ptrace_get_regs(tracee->tid, &regs);
	if (!error)
		ptrace_leave_wait(target->process, target->arch, tracee->tid, &regs);
	return error;
}

/* The wait that the signal has ended is made again, unless it has a handler to run. */
static struct error *repair_wait(struct syscall_tracer *tracer, struct tracee *tracee)
{
	const struct target *target = tracer->target;
	struct user_regs_struct regs;

	return ptrace_take(target->process, target->arch, tracee->tid, &regs);
}

/* A stop of one of our threads; which request it goes on by, and with which signal. */
static struct error *at_stop(struct syscall_tracer *tracer, struct tracee *tracee,
			     const struct ptrace_stop *stop, enum __ptrace_request *request,
			     int *signal)
{
	struct error *error = NULL;

	*request = PTRACE_SYSCALL;
	*signal = 0;
	switch (stop->kind) {
	case PTRACE_STOP_GROUP:
	case PTRACE_STOP_TRAP:
		if (stop->kind == PTRACE_STOP_GROUP)
			*request = PTRACE_LISTEN;
		if (tracer->letting_go)
			*request = PTRACE_DETACH;
		tracee->parked = tracer->leaving && !tracer->letting_go;
		tracer->parked += tracee->parked;
		return tracee->interrupted ? undo_interrupt(tracer, tracee) : NULL;
	case PTRACE_STOP_SIGNAL:
		*signal = stop->signal;
		error = repair_wait(tracer, tracee);
		break;
	case PTRACE_STOP_SYSCALL:
		error = at_call(tracer, tracee);
		break;
	default:
		break;
	}
	/* Any stop takes back the interrupt that is to come (Linux kernel/signal.c ptrace_stop()).
	 */
	return error || !tracer->leaving ? error : interrupt(tracee);
}

void tracer_note_held(struct syscall_tracer *tracer, struct tracee *tracee)
{
	uint64_t now = clock_us();

	atomic_store(&tracer->stopped_us,
		     max_u64(atomic_load(&tracer->stopped_us),
			     now - max_u64(tracee->running_us, tracer->woken_us)));
	tracee->running_us = now;
}

static struct error *go_on(struct syscall_tracer *tracer, struct tracee *tracee,
			   const struct ptrace_stop *stop)
{
	enum __ptrace_request request;
	int signal;
	struct error *error = at_stop(tracer, tracee, stop, &request, &signal);

	if (!error && !tracee->parked)
		error = ptrace_resume(request, tracee->tid, signal);
	/* One that is stopped by a signal is not held by us. */
	if (request == PTRACE_LISTEN)
		tracee->running_us = clock_us();
	else if (!tracee->parked)
		tracer_note_held(tracer, tracee);
	tracer->untraced -= !tracee->traced;
	tracee->traced = true;
	if (!error && request == PTRACE_DETACH)
		tracer_forget(tracer, tracee);
	/* It was killed meanwhile, and tells so itself. */
	if (error && error->errnum == ESRCH) {
		error_destroy(error);
		return NULL;
	}
	return error;
}

static bool is_thread_of_target(struct syscall_tracer *tracer, pid_t tid)
{
	struct process_status status;
	struct error *error = process_read_status(tracer->target->process, tid, &status);
	bool is = !error;

	error_destroy(error);
	return is;
}

/* Whatever happens to be reported. */
struct error *tracer_handle(struct syscall_tracer *tracer, pid_t tid,
			    const struct ptrace_stop *stop)
{
	struct tracee *tracee = find_tracee(tracer, tid);
	struct error *error;

	if (stop->kind == PTRACE_STOP_EXITED) {
		tracer_forget(tracer, tracee);
		if (!tid)
			tracer->living = 0;
		return NULL;
	}
	if (stop->kind == PTRACE_STOP_EVENT && stop->event == PTRACE_EVENT_EXEC) {
		atomic_store(&tracer->execed, true);
		return NULL;
	}
	if (tracee)
		return go_on(tracer, tracee, stop);
	/* clone() may also make another process of which the kernel takes us for the tracer. */
	if (!is_thread_of_target(tracer, tid)) {
		ptrace_detach(tid, stop->kind == PTRACE_STOP_SIGNAL ? stop->signal : 0);
		return NULL;
	}
	error = add_tracee(tracer, tid, &tracee);
	return error ? error : go_on(tracer, tracee, stop);
}

/* ---- the tracing thread ---- */

static struct error *trace(struct syscall_tracer *tracer)
{
	uint64_t deadline_us = clock_us() + FIRST_STOPS_US;
	bool announced = false;

	while (tracer->living && !atomic_load(&tracer->ending) && !atomic_load(&tracer->execed) &&
	       !guard_is_orphan()) {
		struct error *error = NULL;
		struct ptrace_stop stop;
		bool found = false;
		pid_t tid;

		if (!announced)
			error = tracer_look_at_each(tracer, &found);
		if (!error && !found) {
			error = ptrace_wait_any(WAIT_US, &tid, &stop);
			if (!error && stop.kind == PTRACE_STOP_NONE)
				tracer->woken_us = clock_us();
			else if (!error)
				error = tracer_handle(tracer, tid, &stop);
		}
		if (error)
			return error;
		if (!announced && (!tracer->untraced || clock_us() > deadline_us)) {
			announced = true;
			call_queue_begin(&tracer->queue);
		}
	}
	return NULL;
}

static void *run_tracer(void *data)
{
	struct syscall_tracer *tracer = data;
	struct error *error;

	atomic_store(&tracer->tracer, gettid());
	error = check_pause(tracer);
	if (!error)
		error = seize_all(tracer);
	if (!error) {
		ptrace_raise_priority();
		guard_enter();
		tracer_interrupt_all(tracer);
		error = trace(tracer);
		if (!atomic_load(&tracer->execed))
			tracer_leave(tracer);
		guard_leave();
	}
	atomic_store(&tracer->ended, true);
	call_queue_end(&tracer->queue, error);
	return NULL;
}

static struct error *start_thread(struct syscall_tracer *tracer)
{
	pthread_attr_t attributes;
	int errnum;

	pthread_attr_init(&attributes);
	pthread_attr_setstacksize(&attributes, TRACER_STACK);
	errnum = pthread_create(&tracer->thread, &attributes, run_tracer, tracer);
	pthread_attr_destroy(&attributes);
	if (errnum)
		return error_errno(ERROR_FAILED, errnum, "cannot start a thread");
	tracer->joined = false;
	return NULL;
}

struct error *syscall_tracer_start(struct target *target,
				   const struct syscall_tracer_options *options,
				   struct syscall_tracer **ret)
{
	cleanup(syscall_tracer) struct syscall_tracer *tracer = calloc(1, sizeof(*tracer));
	struct error *error;

	if (!tracer)
		return &error_no_memory;
	tracer->joined = true;
	if (!target->process)
		return error_create(ERROR_UNSUPPORTED, "cannot trace %s: it is not a live process",
				    target->name);
	tracer->target = target;
	tracer->call_count = min_u64(options->call_count, CALLS_MAX);
	memcpy(tracer->calls, options->calls, tracer->call_count * sizeof(*tracer->calls));
	tracer->stack_bytes = min_u64(options->stack_bytes, STACK_MOST);
	tracer->max_pause_us = options->max_pause_us;
	tracer->stack = malloc(tracer->stack_bytes + 1);
	error = tracer->stack ? call_queue_init(&tracer->queue) : &error_no_memory;
	if (error)
		return error;
	ptrace_prepare();
	error = start_thread(tracer);
	/* An execve() in the target could wait for what the tracing thread, waiting for the
	 * execve(), does not do. */
	while (!error && !call_queue_await_begin(&tracer->queue, 20))
		ptrace_reap(target->process);
	if (!error)
		error = call_queue_take_error(&tracer->queue);
	if (!error)
		*ret = take_pointer(tracer);
	return error;
}

struct error *syscall_tracer_poll(struct syscall_tracer *tracer, int timeout_ms,
				  syscall_visit *visit, void *data)
{
	struct error *error = call_queue_drain(&tracer->queue, timeout_ms, visit, data);

	return error ? error : call_queue_take_error(&tracer->queue);
}

void syscall_tracer_stop(struct syscall_tracer *tracer)
{
	if (tracer->joined)
		return;
	atomic_store(&tracer->ending, true);
	pthread_kill(tracer->thread, SIGCHLD);
	ptrace_join(tracer->thread, tracer->target->process);
	tracer->joined = true;
	/* It returns a little before the kernel detaches what the thread still traces. */
	for (unsigned i = 0; i < 1000 && !tgkill(getpid(), atomic_load(&tracer->tracer), 0); i++)
		usleep(100);
}

bool syscall_tracer_ended(const struct syscall_tracer *tracer)
{
	return atomic_load(&tracer->ended);
}

bool syscall_tracer_execed(const struct syscall_tracer *tracer)
{
	return atomic_load(&tracer->execed);
}

uint64_t syscall_tracer_lost(struct syscall_tracer *tracer)
{
	return call_queue_lost(&tracer->queue);
}

uint64_t syscall_tracer_stopped_us(struct syscall_tracer *tracer)
{
	return atomic_load(&tracer->stopped_us);
}

void syscall_tracer_destroy(struct syscall_tracer *tracer)
{
	if (!tracer)
		return;
	syscall_tracer_stop(tracer);
	call_queue_deinit(&tracer->queue);
	tracee_vec_deinit(&tracer->tracees);
	map64_deinit(&tracer->by_tid);
	free(tracer->stack);
	free(tracer);
}
