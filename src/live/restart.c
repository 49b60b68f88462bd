#include "memprobe/ptrace.h"

#include <errno.h>
#include <linux/futex.h>
#include <stddef.h>
#include <unistd.h>

#include "memprobe/arch.h"
#include "memprobe/log.h"
#include "memprobe/process.h"
#include "memprobe/seccomp.h"

/*
 * Sleeps and polls that a stop interrupts go on by restart_syscall(2), for the rest of their time
 * (Linux kernel/time/hrtimer.c, fs/select.c, kernel/futex/waitwake.c). No program calls that
 * itself, so many a seccomp filter does not allow it.
 */

/* What the kernel shows as the result of an interrupted call (include/linux/errno.h). */
#define RESTART_IF_NO_HANDLER (-514) /* the call itself is made again */
#define RESTART_BLOCK	      (-516) /* restart_syscall(2) is made */

#define SECCOMP_FILTERED 2
#define X32_CALL	 0x40000000

/* Exists in kernels that show filters to a tracer (CONFIG_CHECKPOINT_RESTORE). */
#define SIGN_OF_SHOWN_FILTERS "/proc/sys/kernel/ns_last_pid"

static long call_number(const struct arch *arch, const struct user_regs_struct *regs)
{
	return arch->bits == 32 ? (int32_t)regs->orig_rax : (long)regs->orig_rax;
}

static uint64_t argument(const struct arch *arch, const struct user_regs_struct *regs,
			 unsigned index)
{
	uint64_t args[6];

	ptrace_call_args(arch, regs, args);
	return args[index];
}

/* Whether a filter is in force. */
enum filtered { FILTERED_NO, FILTERED_YES, FILTERED_UNREADABLE };

static enum filtered by_status(const struct process *process, pid_t tid)
{
	struct process_status status;
	struct error *error = process_read_status(process, tid, &status);
	bool filtered = error || status.seccomp == SECCOMP_FILTERED;

	error_destroy(error);
	return filtered ? FILTERED_UNREADABLE : FILTERED_NO;
}

/* EINVAL is the answer of a kernel that shows no filters, too. */
static enum filtered ask_filtered(const struct process *process, pid_t tid)
{
	long length;
	struct error *error = ptrace_call_result(PTRACE_SECCOMP_GET_FILTER, tid, 0, NULL,
						 "read the seccomp filters of", &length);
	int errnum = error ? error->errnum : 0;

	error_destroy(error);
	if (!errnum)
		return FILTERED_YES;
	if (errnum == EINVAL && access(SIGN_OF_SHOWN_FILTERS, F_OK) == 0)
		return FILTERED_NO;
	return by_status(process, tid);
}

bool ptrace_is_filtered(const struct process *process, pid_t tid)
{
	return ask_filtered(process, tid) != FILTERED_NO;
}

/* A call made again sleeps as long as the rest would have been: it has no time limit or an absolute
 * one, or the kernel has written the rest to where it is read from. */
static bool keeps_its_time(const struct arch *arch, const struct user_regs_struct *regs)
{
	const struct arch_syscalls *nr = &arch->syscalls;
	long call = call_number(arch, regs);

	if (call == nr->futex || call == nr->futex_time64)
		return (argument(arch, regs, 1) & FUTEX_CMD_MASK) == FUTEX_WAIT_BITSET;
	if (call == nr->poll)
		return (int32_t)argument(arch, regs, 2) < 0;
	if (call == nr->nanosleep)
		return argument(arch, regs, 0) == argument(arch, regs, 1);
	if (call == nr->clock_nanosleep || call == nr->clock_nanosleep_time64)
		return argument(arch, regs, 2) == argument(arch, regs, 3);
	return false;
}

static bool is_let_through(uint32_t action)
{
	action &= SECCOMP_RET_ACTION_FULL;
	return action == SECCOMP_RET_ALLOW || action == SECCOMP_RET_LOG;
}

/* By the filters of the stopped thread; false also if they cannot be read. */
static bool may_restart(const struct arch *arch, pid_t tid, const struct user_regs_struct *regs)
{
	struct __ptrace_syscall_info info = { .arch = arch->audit_arch };
	struct seccomp_filters filters = { 0 };
	struct error *error;
	uint64_t args[6];
	int nr;
	bool may;

	/* The call may be one of another ABI than the program's. */
	error_destroy(ptrace_get_call(tid, &info));
	arch = info.arch == arch_i386.audit_arch ? &arch_i386 : arch;
	if (info.arch != arch->audit_arch)
		return false;
	nr = arch->syscalls.restart_syscall;
	if (arch->bits == 64)
		nr |= (int)(regs->orig_rax & X32_CALL);
	ptrace_call_args(arch, regs, args);
	error = seccomp_load(tid, SECCOMP_FILTERED, &filters);
	may = !error && is_let_through(seccomp_action(&filters, info.arch, nr, args, regs->rip));
	error_destroy(error);
	seccomp_deinit(&filters);
	return may;
}

static bool set_result(pid_t tid, struct user_regs_struct *regs, unsigned long long result)
{
	struct error *error =
		ptrace_call(PTRACE_POKEUSER, tid, offsetof(struct user_regs_struct, rax),
			    (void *)result, "write the registers of thread");

	if (!error) {
		regs->rax = result;
		return true;
	}
	if (error->errnum != ESRCH)
		log_warn("%s", error->message);
	error_destroy(error);
	return false;
}

bool ptrace_avoid_restart_syscall(const struct process *process, const struct arch *arch, pid_t tid,
				  struct user_regs_struct *regs)
{
	const unsigned long long before = regs->rax;
	enum filtered filtered;

	if (call_number(arch, regs) < 0 || (int32_t)regs->rax != RESTART_BLOCK)
		return false;
	filtered = ask_filtered(process, tid);
	/* The safe state first: memprobe may be killed while it reads the filters. */
	if (filtered == FILTERED_NO ||
	    !set_result(tid, regs, (unsigned long long)RESTART_IF_NO_HANDLER))
		return false;
	if (filtered == FILTERED_YES && !keeps_its_time(arch, regs) && may_restart(arch, tid, regs))
		set_result(tid, regs, before);
	return regs->rax != before;
}

void ptrace_avoid_restart(const struct process *process, const struct arch *arch, pid_t tid)
{
	struct user_regs_struct regs;
	struct error *error = ptrace_get_regs(tid, &regs);

	if (!error)
		ptrace_avoid_restart_syscall(process, arch, tid, &regs);
	error_destroy(error);
}
