#include "memprobe/arch.h"

#include <elf.h>
#include <linux/audit.h>

#include "x86.h"

/* System V ABI for i386, table 2.14. */
static const struct arch_register registers[] = {
	{ 0, AT(rax) }, { 1, AT(rcx) }, { 2, AT(rdx) }, { 3, AT(rbx) }, { 4, AT(rsp) },
	{ 5, AT(rbp) }, { 6, AT(rsi) }, { 7, AT(rdi) }, { 8, AT(rip) }, { -1, 0 },
};

/* The order of struct x86_registers. */
static const char *const register_names[] = { NULL,	NULL,  NULL,  NULL,	  "ebp", "ebx",
					      NULL,	NULL,  NULL,  NULL,	  "eax", "ecx",
					      "edx",	"esi", "edi", "orig_eax", "eip", "cs",
					      "eflags", "esp", "ss" };

static uint64_t i386_pc(const struct user_regs_struct *regs)
{
	return (uint32_t)((const struct x86_registers *)regs)->rip;
}

static uint64_t i386_sp(const struct user_regs_struct *regs)
{
	return (uint32_t)((const struct x86_registers *)regs)->rsp;
}

/* It is the base of a GDT entry, which the registers do not show. */
static uint64_t i386_thread_pointer(const struct user_regs_struct *regs)
{
	return 0;
}

/* The order of elf_gregset_t: Linux arch/x86/include/asm/user_32.h. */
struct i386_registers {
	uint32_t ebx, ecx, edx, esi, edi, ebp, eax, ds, es, fs, gs;
	uint32_t orig_eax, eip, cs, eflags, esp, ss;
};

static void take_regs(const void *bytes, struct user_regs_struct *ret)
{
	const struct i386_registers *from = bytes;
	struct x86_registers *to = (struct x86_registers *)ret;

	*to = (struct x86_registers){
		.rbx = from->ebx,
		.rcx = from->ecx,
		.rdx = from->edx,
		.rsi = from->esi,
		.rdi = from->edi,
		.rbp = from->ebp,
		.rax = from->eax,
		.ds = from->ds,
		.es = from->es,
		.fs = from->fs,
		.gs = from->gs,
		.orig_rax = (uint64_t)(int32_t)from->orig_eax,
		.rip = from->eip,
		.cs = from->cs,
		.eflags = from->eflags,
		.rsp = from->esp,
		.ss = from->ss,
	};
}

static void give_regs(const struct user_regs_struct *regs, void *bytes)
{
	const struct x86_registers *from = (const struct x86_registers *)regs;
	struct i386_registers *to = bytes;

	*to = (struct i386_registers){
		.ebx = from->rbx,
		.ecx = from->rcx,
		.edx = from->rdx,
		.esi = from->rsi,
		.edi = from->rdi,
		.ebp = from->rbp,
		.eax = from->rax,
		.ds = from->ds,
		.es = from->es,
		.fs = from->fs,
		.gs = from->gs,
		.orig_eax = from->orig_rax,
		.eip = from->rip,
		.cs = from->cs,
		.eflags = from->eflags,
		.esp = from->rsp,
		.ss = from->ss,
	};
}

/* sigsuspend, rt_sigsuspend, ppoll and _time64, pselect6 and _time64, epoll_pwait, epoll_pwait2,
 * io_pgetevents and _time64. */
static const int masked_waits[] = { 72, 179, 309, 414, 308, 413, 319, 441, 385, 416, -1 };

/* nanosleep, clock_nanosleep and _time64, pause, poll, ppoll and _time64, select, pselect6 and
 * _time64, epoll_wait, epoll_pwait, rt_sigtimedwait and _time64, rt_sigsuspend. */
static const int pure_waits[] = { 162, 267, 407, 29,  168, 309, 414, 142,
				  308, 413, 256, 319, 177, 421, 179, -1 };

/* sigcontext_32 stands 8 bytes into struct sigframe_ia32 and 164 into struct rt_sigframe_ia32. */
static const struct arch_signal_frame signal_frames[] = {
	/* pop %eax; mov $119,%eax; int $0x80 */
	{ { 0x58, 0xb8, 0x77, 0, 0, 0, 0xcd, 0x80 }, 8, 36, 72, 68, 0x23 },
	/* mov $173,%eax; int $0x80 */
	{ { 0xb8, 0xad, 0, 0, 0, 0xcd, 0x80 }, 7, 192, 228, 224, 0x23 },
	{ .code_size = 0 },
};

/* What a thread may sleep in, under the name of the call that is the same but for the widths of its
 * arguments: arch/x86/entry/syscalls/syscall_32.tbl. */
static const struct arch_call calls[] = {
	{ 0, "restart_syscall" },
	{ 2, "fork" },
	{ 3, "read" },
	{ 4, "write" },
	{ 5, "open" },
	{ 6, "close" },
	{ 7, "waitpid" },
	{ 11, "execve" },
	{ 29, "pause" },
	{ 55, "fcntl" },
	{ 72, "sigsuspend" },
	{ 82, "select" },
	{ 102, "socketcall" },
	{ 114, "wait4" },
	{ 117, "ipc" },
	{ 118, "fsync" },
	{ 120, "clone" },
	{ 142, "select" },
	{ 143, "flock" },
	{ 145, "readv" },
	{ 146, "writev" },
	{ 148, "fdatasync" },
	{ 162, "nanosleep" },
	{ 168, "poll" },
	{ 177, "rt_sigtimedwait" },
	{ 179, "rt_sigsuspend" },
	{ 180, "pread64" },
	{ 181, "pwrite64" },
	{ 187, "sendfile" },
	{ 190, "vfork" },
	{ 221, "fcntl" },
	{ 239, "sendfile" },
	{ 240, "futex" },
	{ 247, "io_getevents" },
	{ 256, "epoll_wait" },
	{ 267, "clock_nanosleep" },
	{ 279, "mq_timedsend" },
	{ 280, "mq_timedreceive" },
	{ 284, "waitid" },
	{ 295, "openat" },
	{ 308, "pselect6" },
	{ 309, "ppoll" },
	{ 313, "splice" },
	{ 315, "tee" },
	{ 316, "vmsplice" },
	{ 319, "epoll_pwait" },
	{ 324, "fallocate" },
	{ 333, "preadv" },
	{ 334, "pwritev" },
	{ 337, "recvmmsg" },
	{ 345, "sendmmsg" },
	{ 347, "process_vm_readv" },
	{ 348, "process_vm_writev" },
	{ 355, "getrandom" },
	{ 362, "connect" },
	{ 364, "accept4" },
	{ 369, "sendto" },
	{ 370, "sendmsg" },
	{ 371, "recvfrom" },
	{ 372, "recvmsg" },
	{ 377, "copy_file_range" },
	{ 378, "preadv2" },
	{ 379, "pwritev2" },
	{ 385, "io_pgetevents" },
	{ 400, "msgsnd" },
	{ 401, "msgrcv" },
	{ 407, "clock_nanosleep" },
	{ 413, "pselect6" },
	{ 414, "ppoll" },
	{ 416, "io_pgetevents" },
	{ 417, "recvmmsg" },
	{ 418, "mq_timedsend" },
	{ 419, "mq_timedreceive" },
	{ 420, "semtimedop" },
	{ 421, "rt_sigtimedwait" },
	{ 422, "futex" },
	{ 426, "io_uring_enter" },
	{ 435, "clone3" },
	{ 441, "epoll_pwait2" },
	{ -1, NULL },
};

const struct arch arch_i386 = {
	.name = "i386",
	.bits = 32,
	.word_size = 4,
	.elf_machine = EM_386,
	.elf_class = ELFCLASS32,
	.red_zone = 0,
	.audit_arch = AUDIT_ARCH_I386,
	.address_max = 0xffffe000, /* IA32_PAGE_OFFSET under a 64-bit kernel */
	/* arch/x86/entry/syscalls/syscall_32.tbl; mmap is mmap2, whose offset counts pages. */
	.syscalls = {
		.rt_sigprocmask = 175, .rt_sigpending = 176, .rt_sigreturn = 173,
		.mmap = 192, .munmap = 91, .mprotect = 125, .mremap = 163, .brk = 45,
		.madvise = 219, .futex = 240, .clone = 120, .exit = 1, .memfd_create = 356,
		.dup3 = 330, .close = 6, .write = 4, .wait4 = 114, .ftruncate = 93, .fcntl = 55,
		.gettid = 224,
		.vfork = 190, .clone3 = 435, .close_range = 436, .chdir = 12, .old_mmap = 90,
		.restart_syscall = 0, .poll = 168, .nanosleep = 162, .clock_nanosleep = 267,
		.clock_nanosleep_time64 = 407, .futex_time64 = 422,
	},
	.calls = calls,
	.masked_waits = masked_waits,
	.pure_waits = pure_waits,
	.places = {
		.pc = AT(rip), .sp = AT(rsp), .thread_pointer = ARCH_NONE,
		.number = AT(orig_rax), .result = AT(rax),
		.arguments = { AT(rbx), AT(rcx), AT(rdx), AT(rsi), AT(rdi), AT(rbp) },
		.mode = AT(cs), .mode_value = 0x23, /* __USER32_CS */
	},
	.syscall_size = 2,
	.registers = registers,
	.perf_registers = x86_perf_registers,
	.register_names = register_names,
	.register_count = sizeof(register_names) / sizeof(register_names[0]),
	.signal_frames = signal_frames,
	.core = {
		.prstatus_size = 144, .sigpend = 16, .sighold = 20, .pid = 24,
		.regs = 72, .regs_size = sizeof(struct i386_registers), .fpvalid = 140,
		.prpsinfo_size = 124, .uid = 8, .gid = 10, .id_size = 2, .ps_pid = 12,
		.fname = 28, .take_regs = take_regs, .give_regs = give_regs,
	},
	.pthread = { .self = 8, .list = 0x60, .cancelhandling = 0x14, .result = 0x4c,
		     .result_size = 0x14 },
	.pc = i386_pc,
	.sp = i386_sp,
	.thread_pointer = i386_thread_pointer,
};
