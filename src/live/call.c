#include "memprobe/call.h"

#include <cpuid.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <sys/mman.h>
#include <unistd.h>

#include "memprobe/clock.h"
#include "memprobe/elf_file.h"
#include "memprobe/guard.h"
#include "memprobe/log.h"
#include "memprobe/num.h"
#include "memprobe/permit.h"
#include "memprobe/waits.h"
#include "session.h"

/* Between two rounds over all threads; grows, since a thread that is never let run stays unfit. */
#define ROUND_PAUSE_US	   200
#define ROUND_PAUSE_MAX_US 20000

/* Rounds in vain before a helper thread is tried. */
#define ROUNDS_BEFORE_HELPER 4

/* Rounds in which better threads are looked for than those in a timed wait. */
#define ROUNDS_FOR_QUIET 2

/* Stack that a script's functions get unless they ask for more. */
#define DEFAULT_STACK (16u << 10)

/* AMX: 8 KiB of tiles that no function we call touches, and that few kernels let be saved. */
#define XSAVE_LEAVE_OUT (UINT64_C(3) << 17)

/* statfs of a pidfd (linux/magic.h of 6.9 and later). */
#define PIDFS_MAGIC 0x50494446

/* ---- opening ---- */

/*
 * What the per-target lock is taken on: the process's own inode in pidfs, which is the same from
 * every namespace (Linux 6.9); before, its folder in this mount of /proc.
 */
static int open_lock(const struct target *target)
{
	struct statfs filesystem;
	int fd = (int)syscall(SYS_pidfd_open, target->pid, 0);

	if (fd >= 0 && fstatfs(fd, &filesystem) == 0 && filesystem.f_type == PIDFS_MAGIC &&
	    process_is_alive(target->process))
		return fd;
	if (fd >= 0)
		close(fd);
	return openat(target->process->dirfd, ".", O_RDONLY | O_CLOEXEC);
}

static struct error *take_lock(struct call_session *session)
{
	uint64_t deadline = clock_us() + session->timeout_us;

	session->lock = open_lock(session->target);
	if (session->lock < 0)
		return error_errno(ERROR_FAILED, errno, "cannot open /proc/%d",
				   (int)session->target->pid);
	while (flock(session->lock, LOCK_EX | LOCK_NB) < 0) {
		if (errno != EWOULDBLOCK && errno != EINTR)
			return error_errno(ERROR_FAILED, errno, "cannot lock /proc/%d",
					   (int)session->target->pid);
		if (target_is_interrupted(session->target))
			return error_create(ERROR_INTERRUPTED, "interrupted");
		if (clock_us() >= deadline)
			return error_hint(error_create(ERROR_BUSY,
						       "another memprobe is at work on %d",
						       (int)session->target->pid),
					  "wait for it, or give --timeout more time");
		usleep(1000);
	}
	return NULL;
}

/* Offsets and sizes of the standard format: Intel SDM vol. 1, 13.4.3; CPUID leaf 0xd. */
static void measure_xsave(struct call_session *session)
{
	uint32_t eax, ebx, ecx, edx, low, high;
	uint64_t enabled;

	session->xsave_used = 512;
	session->xsave_size = 576;
	if (!__get_cpuid(1, &eax, &ebx, &ecx, &edx) || !(ecx & bit_OSXSAVE))
		return;
	__asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
	enabled = low | (uint64_t)high << 32;
	session->xsave_mask = enabled & ~XSAVE_LEAVE_OUT;
	session->xsave_used = 576;
	for (unsigned i = 2; i < 63; i++) {
		if (!(session->xsave_mask >> i & 1))
			continue;
		__cpuid_count(0xd, i, eax, ebx, ecx, edx);
		session->xsave_used = max_u64(session->xsave_used, ebx + eax);
	}
	session->xsave_size = round_up(session->xsave_used + 4, 64);
}

static void measure_static_tls(struct call_session *session)
{
	struct module_vec *modules;
	struct error *error = target_modules(session->target, (const struct module_vec **)&modules);

	if (error) {
		error_destroy(error);
		return;
	}
	/* What ld.so keeps in reserve for late-comers, and then every module that is there. */
	session->static_tls = 4096;
	for (size_t i = 0; i < modules->size; i++) {
		Elf64_Phdr header;

		for (unsigned n = 0; n < 64 && module_program_header(session->target,
								     &modules->data[i], n, &header);
		     n++)
			if (header.p_type == PT_TLS)
				session->static_tls +=
					header.p_memsz + min_u64(header.p_align, 4096);
	}
}

static struct error *check_process(struct target *target, struct process_status *ret)
{
	struct process_status status;
	struct error *error;

	if (!target->process)
		return error_create(ERROR_UNSUPPORTED, "only a live process can be called");
	error = process_read_status(target->process, 0, &status);
	if (error)
		return error;
	if (target->pid == getpid())
		return error_create(ERROR_UNSUPPORTED, "memprobe cannot call into itself");
	*ret = status;
	if (status.kernel_thread || (status.state == 'Z' && status.threads < 2) ||
	    status.tracer_pid)
		return permit_explain(target->process, PERMIT_ATTACH, EPERM);
	if (status.shadow_stack)
		return error_create(ERROR_UNSUPPORTED,
				    "%d runs with a shadow stack, which a detour would break",
				    (int)target->pid);
	if (wait_is_frozen(target->process, target->pid))
		return error_hint(error_create(ERROR_BUSY,
					       "cannot run code in %d: it is frozen by its control "
					       "group",
					       (int)target->pid),
				  "thaw the group first");
	if (status.seccomp == 1)
		return error_create(ERROR_PERMISSION,
				    "%d is in seccomp strict mode: a call would kill it",
				    (int)target->pid);
	return NULL;
}

/* Any thread has the memory; the main one not after it has ended before the others. */
static int open_thread_memory(const struct target *target)
{
	struct pid_vec tids = { 0 };
	struct error *error = process_list_threads(target->process, &tids);
	int fd = -1;

	for (size_t i = 0; !error && fd < 0 && i < tids.size; i++) {
		struct process_status status;
		char path[32];

		error = process_read_status(target->process, tids.data[i], &status);
		if (error || status.state == 'Z')
			continue;
		snprintf(path, sizeof(path), "task/%d/mem", (int)tids.data[i]);
		fd = openat(target->process->dirfd, path, O_RDWR | O_CLOEXEC);
	}
	error_destroy(error);
	pid_vec_deinit(&tids);
	return fd;
}

static struct error *open_memory(struct call_session *session)
{
	int errnum;

	session->memory = openat(session->target->process->dirfd, "mem", O_RDWR | O_CLOEXEC);
	errnum = errno;
	if (session->memory < 0 && session->status.state == 'Z')
		session->memory = open_thread_memory(session->target);
	if (session->memory < 0)
		return permit_explain(session->target->process, PERMIT_ATTACH, errnum);
	return NULL;
}

static struct error *prepare(struct call_session *session)
{
	struct elf_symbol symbol;
	struct error *error = check_process(session->target, &session->status);

	if (!error)
		error = take_lock(session);
	if (!error)
		error = open_memory(session);
	if (!error)
		error = target_read_maps(session->target, MAPS_PLAIN, &session->maps);
	if (!error)
		error = unsafe_code_find(session->target, &session->maps, &session->unsafe);
	if (error)
		return error;
	if (target_symbol(session->target, "__errno_location", &symbol, NULL))
		session->errno_function = symbol.address;
	measure_xsave(session);
	measure_static_tls(session);
	return NULL;
}

struct error *call_open(struct target *target, uint64_t timeout_us, struct call_session **ret)
{
	struct call_session *session = calloc(1, sizeof(*session));
	struct error *error;

	if (!session)
		return &error_no_memory;
	session->target = target;
	atomic_fetch_add(&target->calls, 1);
	atomic_fetch_add(&target->busy, 1);
	session->timeout_us = timeout_us;
	session->lock = session->memory = -1;
	ptrace_prepare();
	if (detour_find(target->arch, &session->place.detour))
		error = prepare(session);
	else
		error = error_create(ERROR_UNSUPPORTED, "calls into %s processes are not supported",
				     target->arch->name);
	if (error)
		call_close(session);
	else
		*ret = session;
	return error;
}

void call_close(struct call_session *session)
{
	if (!session)
		return;
	placement_erase(session);
	if (session->unwind_destroy)
		session->unwind_destroy(session->unwind_data);
	opinion_forget(session);
	opinion_vec_deinit(&session->opinions);
	pid_vec_deinit(&session->lingering);
	if (session->memory >= 0)
		close(session->memory);
	if (session->lock >= 0)
		close(session->lock);
	mappings_deinit(&session->maps);
	unsafe_code_deinit(&session->unsafe);
	atomic_fetch_sub(&session->target->busy, 1);
	atomic_fetch_sub(&session->target->calls, 1);
	free(session);
}

void call_set_unwind(struct call_session *session, call_unwind *unwind, void (*destroy)(void *data),
		     void *data)
{
	session->unwind = unwind;
	session->unwind_destroy = destroy;
	session->unwind_data = data;
}

struct target *call_target(const struct call_session *session)
{
	return session->target;
}

uint64_t call_stopped_us(const struct call_session *session)
{
	return session->stopped_us;
}

/* ---- running ---- */

/* One try at running a script. */
struct attempt {
	const struct call_script *script;
	const struct call_options *options;
	struct call_result *result;
	uint64_t deadline;
	bool as_helper;
	unsigned round;
	/* Of this round: threads that their filters keep from it, and what was said of the first.
	 */
	size_t refusals;
	struct error *refusal;
};

static enum fitness_power power_needed(const struct attempt *attempt)
{
	if (attempt->as_helper)
		return FIT_FOR_SYSCALLS;
	if (attempt->options->uses_malloc)
		return FIT_FOR_MALLOC;
	for (unsigned i = 0; i < attempt->script->step_count; i++)
		if (attempt->script->steps[i].op == CALL_OP_FUNCTION)
			return FIT_FOR_FUNCTIONS;
	return FIT_FOR_SYSCALLS;
}

static uint64_t stack_needed(const struct attempt *attempt)
{
	if (power_needed(attempt) == FIT_FOR_SYSCALLS)
		return 0;
	return attempt->options->stack_needed ? attempt->options->stack_needed : DEFAULT_STACK;
}

/* Sees the stopped thread through the script. It is detached afterwards. */
static struct error *run_directly(struct call_session *session, pid_t tid,
				  const struct user_regs_struct *regs, struct attempt *attempt)
{
	struct block block;
	struct engine_run run = {
		.tid = tid,
		.regs = *regs,
		.script = attempt->script,
		.block = &block,
		.options = attempt->options,
		.deadline = attempt->deadline,
		.result = attempt->result,
	};

	return engine_run(session, &run);
}

/*
 * The kernel notes for one interrupted timed wait per thread how it is to go on. A function that
 * has to be aborted in a timed wait of its own would overwrite that.
 */
static bool may_disturb(struct call_session *session, pid_t tid,
			const struct user_regs_struct *regs, const struct attempt *attempt)
{
	enum { RESTART_BLOCK = -516 };

	if (!attempt->options->unforeseen_syscalls || attempt->round >= ROUNDS_FOR_QUIET ||
	    (int32_t)regs->rax != RESTART_BLOCK)
		return true;
	snprintf(session->reason, sizeof(session->reason), "thread %d is in a timed wait",
		 (int)tid);
	return false;
}

/* Another thread may be under other filters. */
static void note_refusal(struct call_session *session, struct attempt *attempt, struct error *error)
{
	snprintf(session->reason, sizeof(session->reason), "%s", error->message);
	if (attempt->refusals++)
		error_destroy(error);
	else
		attempt->refusal = error;
}

static struct error *ask_filters(struct call_session *session, pid_t tid, int mode,
				 const struct attempt *attempt)
{
	struct call_script helper;
	const struct call_script *const scripts[] = { attempt->script, &helper };

	if (attempt->as_helper)
		helper_outline(session, attempt->options, &helper);
	return foreseen_check(session, tid, mode, scripts, attempt->as_helper ? 2 : 1,
			      attempt->options);
}

/* The stopped thread runs the script if it is fit to. It is detached afterwards. */
static struct error *use_stopped(struct call_session *session, pid_t tid,
				 const struct user_regs_struct *regs, bool strict,
				 struct attempt *attempt, bool *done_ret)
{
	struct error *error = NULL;

	if (strict || ptrace_is_filtered(session->target->process, tid))
		error = ask_filters(session, tid, strict ? 1 : 2, attempt);
	if (error_is(error, ERROR_PERMISSION)) {
		ptrace_detach(tid, 0);
		note_refusal(session, attempt, error);
		return NULL;
	}
	if (error ||
	    !victim_fits(session, tid, regs, power_needed(attempt), stack_needed(attempt)) ||
	    !may_disturb(session, tid, regs, attempt)) {
		ptrace_detach(tid, 0);
		return error;
	}
	*done_ret = true;
	if (attempt->as_helper)
		return helper_run(session, tid, regs, attempt->script, attempt->options,
				  attempt->deadline, attempt->result);
	return run_directly(session, tid, regs, attempt);
}

/*
 * The tracer and its tracee take turns: on one CPU that is a context switch, on two it is an
 * interrupt and an idle CPU's waking up each time.
 */
static void follow(struct call_session *session, pid_t tid)
{
	int cpu = process_last_cpu(session->target->process, tid);
	cpu_set_t set;

	if (cpu < 0 || cpu >= CPU_SETSIZE)
		return;
	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	sched_setaffinity(0, sizeof(set), &set);
}

/* *done_ret false without an error: this thread would not do; session->reason says why. */
static struct error *try_thread(struct call_session *session, pid_t tid, struct attempt *attempt,
				bool *done_ret)
{
	struct process_status status;
	struct error *error = process_read_status(session->target->process, tid, &status);
	struct user_regs_struct regs;
	char text[WAIT_TEXT_MAX];
	bool stopped = false;

	*done_ret = false;
	/* A main thread that has ended, say, while others go on. */
	if (!error && (status.state == 'Z' || status.state == 'X')) {
		snprintf(session->reason, sizeof(session->reason), "thread %d has exited",
			 (int)tid);
		return NULL;
	}
	if (!error && status.state == 'D') {
		snprintf(session->reason, sizeof(session->reason), "thread %d %s", (int)tid,
			 wait_describe_stuck(session->target->process, session->target->arch, tid,
					     text));
		return NULL;
	}
	follow(session, tid);
	if (!error)
		error = seize_stop(session, tid, attempt->as_helper ? PTRACE_O_TRACECLONE : 0,
				   &stopped, &regs);
	if (stopped)
		error = use_stopped(session, tid, &regs, status.seccomp == 1, attempt, done_ret);
	else
		snprintf(session->reason, sizeof(session->reason), "thread %d %s", (int)tid,
			 error ? "did not stop" : "exited");
	if (stopped)
		session->stopped_us =
			max_u64(session->stopped_us, clock_us() - session->held_since);
	opinion_form(session);
	if (error_is(error, ERROR_PERMISSION) && !stopped) {
		error_destroy(error);
		error = permit_explain(session->target->process, PERMIT_ATTACH, EPERM);
	}
	return error;
}

/* A thread that vanished, or would not stop, is no reason to give up on the others. */
static bool is_passing(const struct error *error)
{
	return error->errnum == ESRCH || error->code == ERROR_BUSY;
}

static void keep_first_thread(struct call_session *session, struct pid_vec *tids)
{
	pid_t pid = session->target->pid;
	bool has_first = false;

	vec_for_each (tid, tids)
		has_first |= *tid == pid;
	tids->size = has_first;
	if (has_first)
		tids->data[0] = pid;
	else if (!session->reason[0])
		snprintf(session->reason, sizeof(session->reason), "thread %d has ended", (int)pid);
}

static struct error *try_round(struct call_session *session, struct attempt *attempt,
			       bool *done_ret)
{
	struct pid_vec tids = { 0 };
	struct error *error = victims_list(session, &tids);

	*done_ret = false;
	attempt->refusals = 0;
	if (!error && attempt->options->first_thread_only)
		keep_first_thread(session, &tids);
	for (size_t i = 0; !error && !*done_ret && i < tids.size; i++) {
		error = try_thread(session, tids.data[i], attempt, done_ret);
		if (error && !*done_ret && is_passing(error)) {
			error_destroy(error);
			error = NULL;
		}
		if (target_is_interrupted(session->target) || clock_us() >= attempt->deadline)
			break;
	}
	if (!error && !*done_ret && tids.size && attempt->refusals == tids.size)
		error = take_pointer(attempt->refusal);
	error_destroy(take_pointer(attempt->refusal));
	pid_vec_deinit(&tids);
	return error;
}

static struct error *no_safe_point(struct call_session *session)
{
	return error_hint(error_create(ERROR_BUSY,
				       "no thread of %d came to a safe point in time: %s",
				       (int)session->target->pid, session->reason),
			  "try again, or give --timeout more time");
}

/* Block sizes: a helper's caller carries the script as data beside steps of its own. */
static size_t block_size(const struct attempt *attempt)
{
	size_t size = script_size(attempt->script);

	return attempt->as_helper ? size + 1500 : size;
}

struct error *call_place(struct call_session *session, size_t size)
{
	struct error *error = placement_find(session, size);

	if (!error && session->place.installed && !session->place.checked) {
		error = seize_check_predecessor(session);
		session->place.checked = !error;
	}
	if (!error)
		error = placement_install(session, 0);
	/* Where text can only be poked, it is installed in the stop. */
	if (error_is(error, ERROR_PERMISSION)) {
		error_destroy(error);
		error = NULL;
	}
	return error;
}

/* Nothing is in our hands but what lingers. */
static void pause_between(const struct call_session *session, useconds_t pause)
{
	if (!session->lingering.size)
		guard_leave();
	usleep(pause);
	if (!session->lingering.size)
		guard_enter();
}

static struct error *search_thread(struct call_session *session, struct attempt *attempt,
				   bool helper_possible)
{
	bool helper_only = attempt->options->helper_private_files;
	useconds_t pause = ROUND_PAUSE_US;

	for (unsigned round = 0;; round++) {
		struct error *error;
		bool done;

		attempt->round = round;
		attempt->as_helper =
			helper_possible && (helper_only || round >= ROUNDS_BEFORE_HELPER);
		error = call_place(session, block_size(attempt));
		if (!error)
			error = try_round(session, attempt, &done);
		if (error || done)
			return error;
		if (target_is_interrupted(session->target) ||
		    clock_us() + pause >= attempt->deadline)
			return no_safe_point(session);
		pause_between(session, pause);
		pause = min_u64(pause * 2, ROUND_PAUSE_MAX_US);
		/* Stacks come and go. */
		mappings_deinit(&session->maps);
		error = target_read_maps(session->target, MAPS_PLAIN, &session->maps);
		if (error)
			return error;
	}
}

static struct error *run(struct call_session *session, struct attempt *attempt)
{
	bool helper = attempt->options->helper_allowed || attempt->options->helper_private_files;
	struct error *error;

	if (attempt->options->uses_malloc && session->unsafe.hidden)
		return error_create(
			ERROR_UNSUPPORTED,
			"the allocator of %d is hidden in a stripped executable: no thread "
			"can be told to be outside of it",
			(int)session->target->pid);
	helper = helper && helper_possible(session);
	if (attempt->options->helper_private_files && !helper)
		return error_create(ERROR_UNSUPPORTED, "no helper thread can run in %d",
				    (int)session->target->pid);
	error = search_thread(session, attempt, helper);
	seize_release_lingering(session);
	return error;
}

/* The thread of memprobe's own that a run takes place in. */
struct worker {
	struct call_session *session;
	struct attempt *attempt;
	struct error *error;
};

static void *work(void *data)
{
	struct worker *worker = data;

	ptrace_raise_priority();
	guard_enter();
	worker->error = run(worker->session, worker->attempt);
	guard_leave();
	return NULL;
}

struct error *call_run(struct call_session *session, const struct call_script *script,
		       const struct call_options *options, struct call_result *ret)
{
	static const struct call_options none;
	struct attempt attempt = {
		.script = script,
		.options = options ? options : &none,
		.result = ret,
		.deadline = clock_us() + session->timeout_us,
	};
	struct worker worker = { .session = session, .attempt = &attempt };
	pthread_t thread;

	*ret = (struct call_result){ 0 };
	if (pthread_create(&thread, NULL, work, &worker))
		return &error_no_memory;
	ptrace_join(thread, session->target->process);
	return worker.error;
}
