/*
 * x86.h - the general registers of both x86 architectures, as PTRACE_GETREGS of a 64-bit tracer
 * gives them. Linux arch/x86/include/asm/user_64.h; spelt out so that this compiles anywhere.
 */
#ifndef MEMPROBE_ARCH_X86_H
#define MEMPROBE_ARCH_X86_H

#include <stddef.h>
#include <stdint.h>

#include "memprobe/arch.h"

struct x86_registers {
	uint64_t r15, r14, r13, r12, rbp, rbx, r11, r10, r9, r8, rax, rcx, rdx, rsi, rdi;
	uint64_t orig_rax, rip, cs, eflags, rsp, ss, fs_base, gs_base, ds, es, fs, gs;
};

#define AT(field) offsetof(struct x86_registers, field)

/* Of both. */
extern const struct arch_register x86_perf_registers[];

#endif
