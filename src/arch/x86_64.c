#include "memprobe/arch.h"

#include <elf.h>
#include <linux/audit.h>
#include <string.h>

#include "x86.h"

/* System V ABI for x86-64, figure 3.36. */
static const struct arch_register registers[] = {
	{ 0, AT(rax) },	 { 1, AT(rdx) },  { 2, AT(rcx) },  { 3, AT(rbx) },  { 4, AT(rsi) },
	{ 5, AT(rdi) },	 { 6, AT(rbp) },  { 7, AT(rsp) },  { 8, AT(r8) },   { 9, AT(r9) },
	{ 10, AT(r10) }, { 11, AT(r11) }, { 12, AT(r12) }, { 13, AT(r13) }, { 14, AT(r14) },
	{ 15, AT(r15) }, { 16, AT(rip) }, { -1, 0 },
};

/* The order of struct x86_registers. */
static const char *const register_names[] = { "r15",	"r14", "r13", "r12",	  "rbp",    "rbx",
					      "r11",	"r10", "r9",  "r8",	  "rax",    "rcx",
					      "rdx",	"rsi", "rdi", "orig_rax", "rip",    "cs",
					      "eflags", "rsp", "ss",  "fs_base",  "gs_base" };

static uint64_t x86_64_pc(const struct user_regs_struct *regs)
{
	return ((const struct x86_registers *)regs)->rip;
}

static uint64_t x86_64_sp(const struct user_regs_struct *regs)
{
	return ((const struct x86_registers *)regs)->rsp;
}

static uint64_t x86_64_thread_pointer(const struct user_regs_struct *regs)
{
	return ((const struct x86_registers *)regs)->fs_base;
}

static void take_regs(const void *bytes, struct user_regs_struct *ret)
{
	memcpy(ret, bytes, sizeof(struct x86_registers));
}

static void give_regs(const struct user_regs_struct *regs, void *bytes)
{
	memcpy(bytes, regs, sizeof(struct x86_registers));
}

/* rt_sigsuspend, ppoll, pselect6, epoll_pwait, epoll_pwait2, io_pgetevents. */
static const int masked_waits[] = { 130, 271, 270, 281, 441, 333, -1 };

/* nanosleep, clock_nanosleep, pause, poll, ppoll, select, pselect6, epoll_wait, epoll_pwait,
 * rt_sigtimedwait, rt_sigsuspend. */
static const int pure_waits[] = { 35, 230, 34, 7, 271, 23, 270, 232, 281, 128, 130, -1 };

/* struct rt_sigframe: the return address, then struct ucontext, whose sigcontext_64 is 40 bytes
 * into it. */
static const struct arch_signal_frame signal_frames[] = {
	/* mov $15,%rax; syscall */
	{ { 0x48, 0xc7, 0xc0, 0x0f, 0, 0, 0, 0x0f, 0x05 }, 9, 168, 184, 192, 0x33 },
	/* mov $15,%eax; syscall */
	{ { 0xb8, 0x0f, 0, 0, 0, 0x0f, 0x05 }, 7, 168, 184, 192, 0x33 },
	{ .code_size = 0 },
};

/* struct sigcontext_64 begins with r8 to r15, di, si, bp, bx, dx, ax, cx, sp, ip. */
static const uint8_t signal_registers[] = {
	8, 9, 10, 11, 12, 13, 14, 15, 5, 4, 6, 3, 1, 0, 2, 7, 16
};

/* What a thread may sleep in: arch/x86/entry/syscalls/syscall_64.tbl. */
static const struct arch_call calls[] = {
	{ 0, "read" },
	{ 1, "write" },
	{ 2, "open" },
	{ 3, "close" },
	{ 7, "poll" },
	{ 17, "pread64" },
	{ 18, "pwrite64" },
	{ 19, "readv" },
	{ 20, "writev" },
	{ 23, "select" },
	{ 34, "pause" },
	{ 35, "nanosleep" },
	{ 40, "sendfile" },
	{ 42, "connect" },
	{ 43, "accept" },
	{ 44, "sendto" },
	{ 45, "recvfrom" },
	{ 46, "sendmsg" },
	{ 47, "recvmsg" },
	{ 56, "clone" },
	{ 57, "fork" },
	{ 58, "vfork" },
	{ 59, "execve" },
	{ 61, "wait4" },
	{ 65, "semop" },
	{ 69, "msgsnd" },
	{ 70, "msgrcv" },
	{ 72, "fcntl" },
	{ 73, "flock" },
	{ 74, "fsync" },
	{ 75, "fdatasync" },
	{ 128, "rt_sigtimedwait" },
	{ 130, "rt_sigsuspend" },
	{ 202, "futex" },
	{ 208, "io_getevents" },
	{ 219, "restart_syscall" },
	{ 220, "semtimedop" },
	{ 230, "clock_nanosleep" },
	{ 232, "epoll_wait" },
	{ 242, "mq_timedsend" },
	{ 243, "mq_timedreceive" },
	{ 247, "waitid" },
	{ 257, "openat" },
	{ 270, "pselect6" },
	{ 271, "ppoll" },
	{ 275, "splice" },
	{ 276, "tee" },
	{ 278, "vmsplice" },
	{ 281, "epoll_pwait" },
	{ 285, "fallocate" },
	{ 288, "accept4" },
	{ 295, "preadv" },
	{ 296, "pwritev" },
	{ 299, "recvmmsg" },
	{ 307, "sendmmsg" },
	{ 310, "process_vm_readv" },
	{ 311, "process_vm_writev" },
	{ 318, "getrandom" },
	{ 326, "copy_file_range" },
	{ 327, "preadv2" },
	{ 328, "pwritev2" },
	{ 333, "io_pgetevents" },
	{ 426, "io_uring_enter" },
	{ 435, "clone3" },
	{ 441, "epoll_pwait2" },
	{ -1, NULL },
};

const struct arch arch_x86_64 = {
	.name = "x86_64",
	.bits = 64,
	.word_size = 8,
	.elf_machine = EM_X86_64,
	.elf_class = ELFCLASS64,
	.red_zone = 128,
	.audit_arch = AUDIT_ARCH_X86_64,
	/* With five-level page tables; with four nothing is mapped above 1 << 47. */
	.address_max = (1ULL << 56) - PAGE_SIZE,
	/* arch/x86/entry/syscalls/syscall_64.tbl */
	.syscalls = {
		.rt_sigprocmask = 14, .rt_sigpending = 127, .rt_sigreturn = 15,
		.mmap = 9, .munmap = 11, .mprotect = 10, .mremap = 25, .brk = 12, .madvise = 28,
		.futex = 202, .clone = 56, .exit = 60, .memfd_create = 319, .dup3 = 292,
		.close = 3, .write = 1, .wait4 = 61, .ftruncate = 77, .fcntl = 72, .gettid = 186,
		.vfork = 58, .clone3 = 435, .close_range = 436, .chdir = 80, .old_mmap = -1,
		.restart_syscall = 219, .poll = 7, .nanosleep = 35, .clock_nanosleep = 230,
		.clock_nanosleep_time64 = -1, .futex_time64 = -1,
	},
	.calls = calls,
	.masked_waits = masked_waits,
	.pure_waits = pure_waits,
	.places = {
		.pc = AT(rip), .sp = AT(rsp), .thread_pointer = AT(fs_base),
		.number = AT(orig_rax), .result = AT(rax),
		.arguments = { AT(rdi), AT(rsi), AT(rdx), AT(r10), AT(r8), AT(r9) },
		.mode = AT(cs), .mode_value = 0x33, /* __USER_CS */
	},
	.syscall_size = 2,
	.other_abi = 0x40000000, /* __X32_SYSCALL_BIT */
	.registers = registers,
	.perf_registers = x86_perf_registers,
	.register_names = register_names,
	.register_count = sizeof(register_names) / sizeof(register_names[0]),
	.signal_frames = signal_frames,
	.signal_registers = signal_registers,
	.signal_sp_index = 15,
	.core = {
		.prstatus_size = 336, .sigpend = 16, .sighold = 24, .pid = 32,
		.regs = 112, .regs_size = sizeof(struct x86_registers), .fpvalid = 328,
		.prpsinfo_size = 136, .uid = 16, .gid = 20, .id_size = 4, .ps_pid = 24,
		.fname = 40, .take_regs = take_regs, .give_regs = give_regs,
	},
	.pthread = { .self = 0x10, .list = 0x2c0, .cancelhandling = 0x28, .result = 0x68,
		     .result_size = 0x10 },
	.pc = x86_64_pc,
	.sp = x86_64_sp,
	.thread_pointer = x86_64_thread_pointer,
};
