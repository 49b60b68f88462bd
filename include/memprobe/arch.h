/*
 * arch.h - what differs between architectures, as one const struct each.
 *
 * To add an architecture: 1. write src/arch/NAME.c with its `const struct arch`; 2. add it to the
 * table in src/arch/arch.c; 3. write its detour stub (src/live/stub_NAME.S) if memprobe is to call
 * functions in such processes.
 *
 * A 64-bit memprobe handles the 32-bit processes of its machine; registers of both come in the
 * 64-bit layout of PTRACE_GETREGS.
 */
#ifndef MEMPROBE_ARCH_H
#define MEMPROBE_ARCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/user.h>

/* <sys/user.h> has its own on x86 only. */
#undef PAGE_SIZE
#define PAGE_SIZE 4096ul

/* Numbers of the system calls that memprobe runs in, or asks about in, a target; -1: has none. */
struct arch_syscalls {
	int rt_sigprocmask, rt_sigpending, rt_sigreturn, mmap, munmap, mprotect, mremap, brk,
		madvise;
	int futex, clone, exit, memfd_create, dup3, close, write, wait4, ftruncate, fcntl, gettid;
	int vfork, clone3, close_range, chdir;
	/* Where there are two, the other has times of 64 bits in a 32-bit program. */
	int restart_syscall, poll, nanosleep, clock_nanosleep, clock_nanosleep_time64, futex_time64;
	int old_mmap; /* its arguments stand in memory, where the only one points to */
};

/* The name of a system call. */
struct arch_call {
	int number;
	const char *name;
};

/* Where a register lives in struct user_regs_struct, by its number in one of the ways to count. */
struct arch_register {
	int number;
	uint16_t offset;
};

/*
 * Offsets in struct user_regs_struct, for arch_word(), for PTRACE_POKEUSER and for programs that
 * the kernel runs; ARCH_NONE: it is not there.
 */
struct arch_places {
	uint16_t pc, sp;
	uint16_t thread_pointer;
	uint16_t number; /* of the system call; negative: in none, or it may not be made again */
	uint16_t result;
	uint16_t arguments[6]; /* of a system call, by the kernel's convention */
	/* What tells code of this architecture from the other that the processor runs, and its
	 * value then. */
	uint16_t mode;
	uint16_t mode_value;
};

#define ARCH_NONE UINT16_MAX

/*
 * The notes of a core: struct elf_prstatus and struct elf_prpsinfo (Linux include/linux/elfcore.h)
 * as offsets. Both begin alike everywhere: si_signo at 0, pr_cursig at 12; pr_state, pr_sname,
 * pr_zomb, pr_nice at 0 to 3.
 */
struct arch_core {
	unsigned prstatus_size;
	unsigned sigpend, sighold; /* one word each */
	unsigned pid;		   /* then ppid, pgrp, sid: 4 bytes each */
	unsigned regs, regs_size;
	unsigned fpvalid;
	unsigned prpsinfo_size;
	unsigned uid, gid, id_size; /* of the process; bytes of each id */
	unsigned ps_pid;	    /* then ppid, pgrp, sid */
	unsigned fname;		    /* 16 bytes, then psargs of 80 */
	/* Between the core's registers (4-byte aligned) and the layout of PTRACE_GETREGS. NULL:
	 * this build's struct user_regs_struct has no room for them; arch.pc and arch.sp then work
	 * on the core's own bytes. */
	void (*take_regs)(const void *bytes, struct user_regs_struct *ret);
	void (*give_regs)(const struct user_regs_struct *regs, void *bytes);
};

/*
 * What the kernel leaves on the stack of a signal handler, as offsets from where the handler's
 * return address stands (Linux arch/x86/include/asm/sigframe.h, uapi/asm/sigcontext.h).
 */
struct arch_signal_frame {
	uint8_t code[9]; /* that the handler returns to */
	unsigned code_size;
	unsigned sp, flags, cs; /* of what was interrupted */
	uint16_t cs_value;
};

/*
 * Offsets in glibc's struct pthread (nptl/descr.h, the same from 2.4 to 2.43). It begins with a
 * pointer to itself (tcb), then one to its thread's dtv.
 */
struct arch_pthread {
	unsigned self; /* another one; 0: it has none, so that it cannot be told from other data */
	unsigned list; /* two pointers, then the tid */
	/* From robust_head, which points to itself while no robust mutex is held, and of which
	 * releases differ. */
	unsigned cancelhandling;
	/* The thread's result is among @result_size bytes that begin @result bytes before
	 * stackblock; what else is there points to nothing, or (i386, of some releases) is its
	 * argument. */
	unsigned result, result_size;
};

struct arch {
	const char *name; /* as in the JSON: x86_64, i386, aarch64 */
	unsigned bits;
	unsigned word_size; /* bytes of a pointer */
	uint16_t elf_machine;
	uint8_t elf_class;
	unsigned red_zone;    /* bytes below the stack pointer that belong to the frame */
	uint32_t audit_arch;  /* AUDIT_ARCH_*, what a seccomp filter sees */
	uint64_t address_max; /* first address beyond user space */
	struct arch_syscalls syscalls;
	const struct arch_call *calls; /* that threads sleep in; -1 ends them */
	struct arch_places places;
	/* By DWARF's numbers, by bits of perf_event_attr.sample_regs_user; -1 ends each. NULL: not
	 * known. */
	const struct arch_register *registers;
	const struct arch_register *perf_registers;
	/* Of the words of struct user_regs_struct, in their order; NULL: not known. */
	const char *const *register_names;
	unsigned register_count;
	struct arch_core core;
	const struct arch_signal_frame *signal_frames; /* ends with code_size 0; NULL: not known */
	/* The registers that stand in a row in such a frame, by DWARF's numbers, and which of them
	 * is the stack pointer. */
	const uint8_t *signal_registers;
	unsigned signal_sp_index;
	/* System calls; -1 ends each list. What a stop does to them: waits.h. */
	/* They wait with a signal mask of their own, which ptrace shows differently by kernel. */
	const int *masked_waits;
	/* They only wait: who makes them holds no lock that matters. */
	const int *pure_waits;
	unsigned syscall_size;	 /* bytes of the instruction; 0: they vary */
	unsigned long other_abi; /* a bit that numbers of a second ABI have (x32); 0: none */
	struct arch_pthread pthread;
	uint64_t (*pc)(const struct user_regs_struct *);
	uint64_t (*sp)(const struct user_regs_struct *);
	/* The thread pointer where the registers tell it (x86-64), else 0. */
	uint64_t (*thread_pointer)(const struct user_regs_struct *);
};

bool arch_list_has(const int *list, long number);

/* Of @arch->calls; NULL: not among them. */
const char *arch_call_name(const struct arch *arch, long number);

/* ---- registers of a thread, as PTRACE_GETREGS gives them ---- */

/* One of @arch->places, zero-extended; 0: it is not there. */
uint64_t arch_word(const struct arch *arch, const struct user_regs_struct *regs, uint16_t place);

/* Sign-extended. The number is negative in no system call. */
long arch_call_number(const struct arch *arch, const struct user_regs_struct *regs);
long arch_call_result(const struct arch *arch, const struct user_regs_struct *regs);

/* As the kernel takes them. */
void arch_call_arguments(const struct arch *arch, const struct user_regs_struct *regs,
			 uint64_t ret[6]);

/* @value is sign-extended to the whole word, as the kernel has it. */
void arch_set_word(const struct arch *arch, struct user_regs_struct *regs, uint16_t place,
		   int64_t value);

/* Whether the thread runs code of this architecture. */
bool arch_runs(const struct arch *arch, const struct user_regs_struct *regs);

extern const struct arch arch_x86_64;
extern const struct arch arch_i386;
extern const struct arch arch_aarch64;

/* The architecture memprobe itself runs on. */
const struct arch *arch_native(void);

/* By ELF class and machine; NULL: unknown. */
const struct arch *arch_find(uint8_t elf_class, uint16_t elf_machine);

#endif
