#include "memprobe/arch.h"

#include <elf.h>
#include <linux/audit.h>

#include "x86.h"

/* System V ABI for i386, table 2.14. */
static const struct arch_register registers[] = {
	{ 0, offsetof(struct x86_registers, rax) }, { 1, offsetof(struct x86_registers, rcx) },
	{ 2, offsetof(struct x86_registers, rdx) }, { 3, offsetof(struct x86_registers, rbx) },
	{ 4, offsetof(struct x86_registers, rsp) }, { 5, offsetof(struct x86_registers, rbp) },
	{ 6, offsetof(struct x86_registers, rsi) }, { 7, offsetof(struct x86_registers, rdi) },
	{ 8, offsetof(struct x86_registers, rip) }, { -1, 0 },
};

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
		.epoll_wait = 256, .epoll_pwait = 319, .epoll_pwait2 = 441,
		.rt_sigtimedwait = 177, .rt_sigtimedwait_time64 = 421,
		.semop = -1, .semtimedop = -1, .semtimedop_time64 = 420,
		.msgsnd = 400, .msgrcv = 401, .io_getevents = 247, .ipc = 117,
		.restart_syscall = 0, .vfork = 190, .nanosleep = 162, .poll = 168,
	},
	.registers = registers,
	.tcb_self_offset = 8,
	.pc = i386_pc,
	.sp = i386_sp,
	.thread_pointer = i386_thread_pointer,
};
