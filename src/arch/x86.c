#include "memprobe/arch.h"

#include "x86.h"

/* arch/x86/include/uapi/asm/perf_regs.h; data and extra segments are not sampled. */
const struct arch_register x86_perf_registers[] = {
	{ 0, AT(rax) },	 { 1, AT(rbx) },  { 2, AT(rcx) },  { 3, AT(rdx) },  { 4, AT(rsi) },
	{ 5, AT(rdi) },	 { 6, AT(rbp) },  { 7, AT(rsp) },  { 8, AT(rip) },  { 9, AT(eflags) },
	{ 10, AT(cs) },	 { 11, AT(ss) },  { 16, AT(r8) },  { 17, AT(r9) },  { 18, AT(r10) },
	{ 19, AT(r11) }, { 20, AT(r12) }, { 21, AT(r13) }, { 22, AT(r14) }, { 23, AT(r15) },
	{ -1, 0 },
};
