#include "memprobe/ptrace.h"

#include <elf.h>
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "memprobe/arch.h"
#include "memprobe/clock.h"
#include "memprobe/log.h"
#include "memprobe/num.h"
#include "memprobe/process.h"
#include "memprobe/thread_state.h"
#include "memprobe/waits.h"
#include "cut_receive.h"
#include "xsave.h"

#define PTRACE_GET_SYSCALL_USER_DISPATCH 0x4211

struct error *ptrace_call_result(enum __ptrace_request request, pid_t tid, uintptr_t address,
				 void *data, const char *what, long *ret)
{
	long result;

	errno = 0;
	result = ptrace(request, tid, (void *)address, data);
	if (result == -1 && errno)
		return error_errno(errno == EPERM ? ERROR_PERMISSION : ERROR_FAILED, errno,
				   "cannot %s %d", what, (int)tid);
	*ret = result;
	return NULL;
}

struct error *ptrace_call(enum __ptrace_request request, pid_t tid, uintptr_t address, void *data,
			  const char *what)
{
	long unused;

	return ptrace_call_result(request, tid, address, data, what, &unused);
}

struct error *ptrace_seize(pid_t tid, unsigned long options)
{
	return ptrace_call(PTRACE_SEIZE, tid, 0, (void *)(options | PTRACE_O_TRACESYSGOOD),
			   "attach to");
}

struct error *ptrace_interrupt(pid_t tid)
{
	return ptrace_call(PTRACE_INTERRUPT, tid, 0, NULL, "interrupt thread");
}

void ptrace_detach(pid_t tid, int signal)
{
	struct error *error =
		ptrace_call(PTRACE_DETACH, tid, 0, (void *)(uintptr_t)signal, "detach from thread");

	/* A thread that is gone needs no detaching. */
	if (error && error->errnum != ESRCH)
		log_warn("%s", error->message);
	error_destroy(error);
}

struct error *ptrace_resume(enum __ptrace_request request, pid_t tid, int signal)
{
	return ptrace_call(request, tid, 0, (void *)(uintptr_t)signal, "resume thread");
}

struct error *ptrace_get_regs(pid_t tid, struct user_regs_struct *ret)
{
	return ptrace_call(PTRACE_GETREGS, tid, 0, ret, "read the registers of thread");
}

/* In the order of the kernel's cores. What an architecture lacks is refused and left out. */
static const uint32_t regset_types[] = {
	NT_PRFPREG, NT_PRXFPREG, NT_X86_XSTATE,	  NT_386_TLS,
	NT_ARM_TLS, NT_ARM_SVE,	 NT_ARM_HW_BREAK, NT_ARM_PAC_MASK,
};

void ptrace_get_all(pid_t tid, struct thread_state *state)
{
	/* The largest XSAVE area, that of AMX, has 11 KiB. */
	_Alignas(16) uint8_t bytes[32 << 10];
	size_t used = 0;
	struct error *error;

	for (size_t i = 0; i < sizeof(regset_types) / sizeof(*regset_types); i++) {
		struct thread_regset *set = (struct thread_regset *)(bytes + used);
		struct iovec area = { set->bytes, sizeof(bytes) - used - sizeof(*set) };

		error = ptrace_call(PTRACE_GETREGSET, tid, regset_types[i], &area,
				    "read the registers of thread");
		if (!error && area.iov_len) {
			set->type = regset_types[i];
			set->size = (uint32_t)area.iov_len;
			if (set->type == NT_X86_XSTATE)
				set->size = (uint32_t)xsave_to_usual(
					set->bytes, set->size, sizeof(bytes) - used - sizeof(*set));
			used = round_up(used + sizeof(*set) + set->size, 8);
		}
		error_destroy(error);
	}
	error = ptrace_call(PTRACE_GETSIGMASK, tid, sizeof(state->sig_blocked), &state->sig_blocked,
			    "read the signal mask of thread");
	error_destroy(error);
	state->regsets = malloc(used + 1);
	state->regsets_size = state->regsets ? used : 0;
	if (state->regsets)
		memcpy(state->regsets, bytes, used);
}

struct error *ptrace_get_call(pid_t tid, struct __ptrace_syscall_info *ret)
{
	struct error *error = ptrace_call(PTRACE_GET_SYSCALL_INFO, tid, sizeof(*ret), ret,
					  "read the system call of thread");

	if (!error || error->errnum != EIO)
		return error;
	error_destroy(error);
	return error_create(ERROR_UNSUPPORTED, "cannot trace system calls: that takes Linux 5.3");
}

struct error *ptrace_set_regs(pid_t tid, const struct user_regs_struct *regs)
{
	return ptrace_call(PTRACE_SETREGS, tid, 0, (void *)regs, "write the registers of thread");
}

struct error *ptrace_set_pc(pid_t tid, uint64_t pc)
{
	return ptrace_call(PTRACE_POKEUSER, tid, offsetof(struct user_regs_struct, rip), (void *)pc,
			   "write the registers of thread");
}

static void sigchld_set(sigset_t *set)
{
	sigemptyset(set);
	sigaddset(set, SIGCHLD);
}

/*
 * Without the right to lock we only lose the guarantee against a page fault of ours. Under a limit,
 * later memory stays unlocked: with MCL_FUTURE, malloc() itself would fail beyond the limit.
 */
static void lock_memory(void)
{
	struct rlimit limit = { RLIM_INFINITY, RLIM_INFINITY };
	int future = MCL_FUTURE;

	if (setrlimit(RLIMIT_MEMLOCK, &limit) < 0)
		future = 0;
	if (mlockall(MCL_CURRENT | MCL_ONFAULT | future) < 0)
		log_debug("memory is not locked: mlockall is not permitted");
}

void ptrace_prepare(void)
{
	sigset_t set;

	sigchld_set(&set);
	signal(SIGCHLD, SIG_DFL);
	sigprocmask(SIG_BLOCK, &set, NULL);
	lock_memory();
}

void ptrace_raise_priority(void)
{
	struct sched_param param = { .sched_priority = 50 };

	if (sched_setscheduler(0, SCHED_FIFO | SCHED_RESET_ON_FORK, &param) < 0)
		setpriority(PRIO_PROCESS, (id_t)gettid(), -20);
}

void ptrace_restore_priority(void)
{
	struct sched_param param = { 0 };

	if (sched_setscheduler(0, SCHED_OTHER, &param) < 0 ||
	    setpriority(PRIO_PROCESS, (id_t)gettid(), 0) < 0)
		log_debug("the priority could not be set back");
}

static void decode_stop(const siginfo_t *info, struct ptrace_stop *ret)
{
	int event = info->si_status >> 8;

	*ret = (struct ptrace_stop){ .signal = info->si_status & 0x7f };
	if (info->si_status == (SIGTRAP | 0x80)) {
		ret->kind = PTRACE_STOP_SYSCALL;
	} else if (event == PTRACE_EVENT_STOP) {
		ret->kind = ret->signal == SIGTRAP ? PTRACE_STOP_TRAP : PTRACE_STOP_GROUP;
	} else if (event) {
		ret->kind = PTRACE_STOP_EVENT;
		ret->event = event;
	} else {
		ret->kind = PTRACE_STOP_SIGNAL;
	}
}

/* PTRACE_STOP_NONE: there is nothing to tell about @tid yet. @tid 0: about any of the calling
 * thread's tracees; *tid_ret is the one that it is about. */
static struct error *poll_stop(pid_t tid, pid_t *tid_ret, struct ptrace_stop *ret)
{
	const int whose = tid ? 0 : __WNOTHREAD;
	siginfo_t info = { 0 };

	*ret = (struct ptrace_stop){ .kind = PTRACE_STOP_NONE };
	*tid_ret = tid;
	if (waitid(tid ? P_PID : P_ALL, tid, &info,
		   WSTOPPED | WEXITED | WNOHANG | WNOWAIT | __WALL | whose) < 0) {
		/* ECHILD: an execve() elsewhere made the thread vanish without a report. */
		if (errno == ECHILD)
			ret->kind = PTRACE_STOP_EXITED;
		else if (errno != EINTR)
			return error_errno(ERROR_FAILED, errno, "cannot wait for thread %d",
					   (int)tid);
		return NULL;
	}
	if (info.si_pid)
		*tid_ret = info.si_pid;
	if (info.si_code == CLD_TRAPPED || info.si_code == CLD_STOPPED) {
		decode_stop(&info, ret);
	} else if (info.si_pid) {
		/* Reaps a thread; hands the zombie of a process on to its parent. */
		waitid(P_PID, info.si_pid, &info, WEXITED | WNOHANG | __WALL);
		ret->kind = PTRACE_STOP_EXITED;
	}
	return NULL;
}

/* A sleeping thread comes to its stop sooner than a sleeping tracer would wake for it; until then a
 * wait that the stop has ended is without repair. */
#define SPIN_US 40

struct error *ptrace_wait(pid_t tid, uint64_t timeout_us, struct ptrace_stop *ret)
{
	uint64_t start = clock_us(), deadline = start + timeout_us;
	sigset_t set;
	pid_t same;

	sigchld_set(&set);
	for (;;) {
		struct error *error = poll_stop(tid, &same, ret);
		uint64_t now = clock_us();
		struct timespec wait = { 0 };

		if (error || ret->kind != PTRACE_STOP_NONE || now >= deadline)
			return error;
		if (now - start < SPIN_US)
			continue;
		/* Another tracee's signal can swallow ours: look again at least this often. */
		wait.tv_nsec = 1000 * (long)min_u64(deadline - now, 50000);
		if (sigtimedwait(&set, NULL, &wait) < 0 && errno == EINTR)
			return poll_stop(tid, &same, ret);
	}
}

struct error *ptrace_wait_any(uint64_t timeout_us, pid_t *tid_ret, struct ptrace_stop *ret)
{
	struct timespec wait = { 0, 1000 * (long)min_u64(timeout_us, 50000) };
	struct error *error = poll_stop(0, tid_ret, ret);
	sigset_t set;

	if (error || ret->kind != PTRACE_STOP_NONE || !timeout_us)
		return error;
	sigchld_set(&set);
	sigtimedwait(&set, NULL, &wait);
	return NULL;
}

/* How long a tracer's dead tracees are left to itself. */
#define REAP_AFTER_NS 20000000

/* One by one: waiting for any of them would take the signals of those that are stopped. */
void ptrace_reap(const struct process *process)
{
	struct pid_vec tids = { 0 };
	struct error *error = process_list_threads(process, &tids);

	for (size_t i = 0; !error && i < tids.size; i++) {
		struct ptrace_stop unused;
		pid_t same;

		error_destroy(poll_stop(tids.data[i], &same, &unused));
	}
	error_destroy(error);
	pid_vec_deinit(&tids);
}

void ptrace_join(pthread_t tracer, const struct process *process)
{
	for (;;) {
		struct timespec until;

		clock_gettime(CLOCK_REALTIME, &until);
		until.tv_nsec += REAP_AFTER_NS;
		until.tv_sec += until.tv_nsec / 1000000000;
		until.tv_nsec %= 1000000000;
		if (pthread_timedjoin_np(tracer, NULL, &until) != ETIMEDOUT)
			return;
		ptrace_reap(process);
	}
}

void ptrace_call_args(const struct arch *arch, const struct user_regs_struct *regs,
		      uint64_t args[6])
{
	const uint64_t wide[6] = { regs->rdi, regs->rsi, regs->rdx, regs->r10, regs->r8, regs->r9 };
	const uint64_t narrow[6] = {
		(uint32_t)regs->rbx, (uint32_t)regs->rcx, (uint32_t)regs->rdx,
		(uint32_t)regs->rsi, (uint32_t)regs->rdi, (uint32_t)regs->rbp
	};

	memcpy(args, arch->bits == 32 ? narrow : wide, sizeof(wide));
}

/*
 * In this stop -EINTR with orig_rax still set is the work of our interrupt: a handler would have
 * run and left orig_rax at -1.
 */
static bool ended_by_interrupt(const struct process *process, const struct arch *arch,
			       const struct user_regs_struct *regs)
{
	long orig = arch->bits == 32 ? (int32_t)regs->orig_rax : (long)regs->orig_rax;
	long result = arch->bits == 32 ? (int32_t)regs->rax : (long)regs->rax;
	uint64_t args[6];

	if (orig < 0 || result != -EINTR)
		return false;
	ptrace_call_args(arch, regs, args);
	return wait_is_repairable(process, arch, orig, args);
}

/* The kernel's own (include/linux/errno.h): to be made again, but after a handler has run. */
#define RESTART_IF_NO_HANDLER (-514)

static bool mark_wait(const struct process *process, const struct arch *arch,
		      struct user_regs_struct *regs)
{
	if (!ended_by_interrupt(process, arch, regs))
		return false;
	regs->rax = (unsigned long long)RESTART_IF_NO_HANDLER;
	return true;
}

void ptrace_leave_wait(const struct process *process, const struct arch *arch, pid_t tid,
		       struct user_regs_struct *regs)
{
	struct user_regs_struct repaired = *regs;
	struct error *error;

	if (ptrace_avoid_restart_syscall(process, arch, tid, regs))
		return;
	if (!mark_wait(process, arch, &repaired)) {
		cut_receive_mend(process, arch, tid, regs);
		return;
	}
	error = ptrace_set_regs(tid, &repaired);
	if (!error)
		*regs = repaired;
	else if (error->errnum != ESRCH)
		log_warn("%s", error->message);
	error_destroy(error);
}

struct error *ptrace_take(const struct process *process, const struct arch *arch, pid_t tid,
			  struct user_regs_struct *ret)
{
	struct error *error = ptrace_get_regs(tid, ret);

	if (!error)
		ptrace_leave_wait(process, arch, tid, ret);
	return error;
}

struct error *ptrace_get_mask(pid_t tid, uint64_t *ret)
{
	return ptrace_call(PTRACE_GETSIGMASK, tid, sizeof(*ret), ret,
			   "read the signal mask of thread");
}

struct error *ptrace_set_mask(pid_t tid, uint64_t mask)
{
	return ptrace_call(PTRACE_SETSIGMASK, tid, sizeof(mask), &mask,
			   "write the signal mask of thread");
}

bool ptrace_is_fault(pid_t tid, const struct process_status *process)
{
	siginfo_t info = { 0 };
	struct error *error =
		ptrace_call(PTRACE_GETSIGINFO, tid, 0, &info, "ask for the signal of thread");

	if (error) {
		error_destroy(error);
		return false;
	}
	return info.si_code > 0 || (info.si_code == SI_TKILL && (info.si_pid == process->tgid ||
								 info.si_pid == process->ns_tid));
}

bool ptrace_has_dispatch(pid_t tid)
{
	struct {
		uint64_t mode, selector, offset, length;
	} configuration = { 0 };
	struct error *error =
		ptrace_call(PTRACE_GET_SYSCALL_USER_DISPATCH, tid, sizeof(configuration),
			    &configuration, "read the system call dispatch of thread");

	error_destroy(error);
	return !error && configuration.mode != 0;
}
