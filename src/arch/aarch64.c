#include "memprobe/arch.h"

#include <elf.h>
#include <linux/audit.h>
#include <string.h>

/* struct user_regs_struct of that architecture: Linux arch/arm64, user_pt_regs. */
struct aarch64_registers {
	uint64_t x[31], sp, pc, pstate;
};

#define X(number)                                                                           \
	{                                                                                   \
		number, offsetof(struct aarch64_registers, x) + (number) * sizeof(uint64_t) \
	}

static const struct arch_register registers[] = {
	X(0),
	X(1),
	X(2),
	X(3),
	X(4),
	X(5),
	X(6),
	X(7),
	X(8),
	X(9),
	X(10),
	X(11),
	X(12),
	X(13),
	X(14),
	X(15),
	X(16),
	X(17),
	X(18),
	X(19),
	X(20),
	X(21),
	X(22),
	X(23),
	X(24),
	X(25),
	X(26),
	X(27),
	X(28),
	X(29),
	X(30),
	{ 31, offsetof(struct aarch64_registers, sp) },
	{ 32, offsetof(struct aarch64_registers, pc) },
	{ -1, 0 },
};

static uint64_t aarch64_pc(const struct user_regs_struct *regs)
{
	return ((const struct aarch64_registers *)regs)->pc;
}

static uint64_t aarch64_sp(const struct user_regs_struct *regs)
{
	return ((const struct aarch64_registers *)regs)->sp;
}

/* tpidr_el0 is in a register set of its own (NT_ARM_TLS). */
static uint64_t aarch64_thread_pointer(const struct user_regs_struct *regs)
{
	return 0;
}

static void take_regs(const void *bytes, struct user_regs_struct *ret)
{
	memcpy(ret, bytes, sizeof(struct aarch64_registers));
}

static void give_regs(const struct user_regs_struct *regs, void *bytes)
{
	memcpy(bytes, regs, sizeof(struct aarch64_registers));
}

/* On another machine the registers of a tracee do not hold these. */
#define IS_NATIVE (sizeof(struct user_regs_struct) >= sizeof(struct aarch64_registers))

/* rt_sigsuspend, ppoll, pselect6, epoll_pwait, epoll_pwait2, io_pgetevents. */
static const int masked_waits[] = { 133, 73, 72, 22, 441, 292, -1 };

/* nanosleep, clock_nanosleep, ppoll, pselect6, epoll_pwait, rt_sigtimedwait, rt_sigsuspend. */
static const int pure_waits[] = { 101, 115, 73, 72, 22, 137, 133, -1 };

/* What a thread may sleep in: asm-generic/unistd.h. */
static const struct arch_call calls[] = {
	{ 4, "io_getevents" },
	{ 22, "epoll_pwait" },
	{ 25, "fcntl" },
	{ 32, "flock" },
	{ 47, "fallocate" },
	{ 56, "openat" },
	{ 57, "close" },
	{ 63, "read" },
	{ 64, "write" },
	{ 65, "readv" },
	{ 66, "writev" },
	{ 67, "pread64" },
	{ 68, "pwrite64" },
	{ 69, "preadv" },
	{ 70, "pwritev" },
	{ 71, "sendfile" },
	{ 72, "pselect6" },
	{ 73, "ppoll" },
	{ 75, "vmsplice" },
	{ 76, "splice" },
	{ 77, "tee" },
	{ 82, "fsync" },
	{ 83, "fdatasync" },
	{ 95, "waitid" },
	{ 98, "futex" },
	{ 101, "nanosleep" },
	{ 115, "clock_nanosleep" },
	{ 128, "restart_syscall" },
	{ 133, "rt_sigsuspend" },
	{ 137, "rt_sigtimedwait" },
	{ 182, "mq_timedsend" },
	{ 183, "mq_timedreceive" },
	{ 188, "msgrcv" },
	{ 189, "msgsnd" },
	{ 192, "semtimedop" },
	{ 193, "semop" },
	{ 202, "accept" },
	{ 203, "connect" },
	{ 206, "sendto" },
	{ 207, "recvfrom" },
	{ 211, "sendmsg" },
	{ 212, "recvmsg" },
	{ 220, "clone" },
	{ 221, "execve" },
	{ 242, "accept4" },
	{ 243, "recvmmsg" },
	{ 260, "wait4" },
	{ 269, "sendmmsg" },
	{ 270, "process_vm_readv" },
	{ 271, "process_vm_writev" },
	{ 278, "getrandom" },
	{ 285, "copy_file_range" },
	{ 286, "preadv2" },
	{ 287, "pwritev2" },
	{ 292, "io_pgetevents" },
	{ 426, "io_uring_enter" },
	{ 435, "clone3" },
	{ 441, "epoll_pwait2" },
	{ -1, NULL },
};

const struct arch arch_aarch64 = {
	.name = "aarch64",
	.bits = 64,
	.word_size = 8,
	.elf_machine = EM_AARCH64,
	.elf_class = ELFCLASS64,
	.red_zone = 0,
	.audit_arch = AUDIT_ARCH_AARCH64,
	.address_max = 1ULL << 52,
	/* include/uapi/asm-generic/unistd.h */
	.syscalls = {
		.rt_sigprocmask = 135, .rt_sigpending = 136, .rt_sigreturn = 139,
		.mmap = 222, .munmap = 215, .mprotect = 226, .mremap = 216, .brk = 214,
		.madvise = 233, .futex = 98, .clone = 220, .exit = 93, .memfd_create = 279,
		.dup3 = 24, .close = 57, .write = 64, .wait4 = 260, .ftruncate = 46, .fcntl = 25,
		.gettid = 178,
		.vfork = -1, .clone3 = 435, .close_range = 436, .chdir = 49, .old_mmap = -1,
		.restart_syscall = 128, .poll = -1, .nanosleep = 101, .clock_nanosleep = 115,
		.clock_nanosleep_time64 = -1, .futex_time64 = -1,
	},
	.calls = calls,
	.masked_waits = masked_waits,
	.pure_waits = pure_waits,
	.places = {
		.pc = offsetof(struct aarch64_registers, pc),
		.sp = offsetof(struct aarch64_registers, sp),
		.thread_pointer = ARCH_NONE,
		/* In a register set of its own (NT_ARM_SYSTEM_CALL). */
		.number = ARCH_NONE,
		.result = 0, .arguments = { 0, 8, 16, 24, 32, 40 },
		.mode = ARCH_NONE,
	},
	.syscall_size = 4,
	.registers = registers,
	.core = {
		.prstatus_size = 392, .sigpend = 16, .sighold = 24, .pid = 32,
		.regs = 112, .regs_size = sizeof(struct aarch64_registers), .fpvalid = 384,
		.prpsinfo_size = 136, .uid = 16, .gid = 20, .id_size = 4, .ps_pid = 24,
		.fname = 40,
		.take_regs = IS_NATIVE ? take_regs : NULL,
		.give_regs = IS_NATIVE ? give_regs : NULL,
	},
	/* tcbhead_t has no pointer to itself. */
	.pc = aarch64_pc,
	.sp = aarch64_sp,
	.thread_pointer = aarch64_thread_pointer,
};
