/*
 * thread_state.h - a thread's registers and stack bytes, taken in one stop and unwound later.
 */
#ifndef MEMPROBE_THREAD_STATE_H
#define MEMPROBE_THREAD_STATE_H

#include <stdint.h>
#include <sys/types.h>
#include <sys/user.h>

#include "memprobe/vec.h"

/* Further stacks of one thread that are copied. */
#define THREAD_INTERRUPTED_MAX 3

/* Bytes of a stack: [start, start + size). */
struct stack_copy {
	uint64_t start;
	size_t size;
	uint8_t *bytes; /* owned; NULL: there is none */
};

struct thread_state {
	pid_t tid;
	char name[64];
	char state; /* as in /proc/PID/stat, just before the stop; 0: unknown */
	struct user_regs_struct regs;
	/* [stack_start, stack_start + stack_size): from the stack pointer (less the red zone)
	 * upwards, as it was in the stop. */
	uint64_t stack_start;
	size_t stack_size;
	uint8_t *stack; /* owned; NULL where it could not be read */
	/* A signal handler on an alternate stack: the stacks that signals interrupted, from there
	 * upwards, innermost first. The first without bytes ends the list. */
	struct stack_copy interrupted[THREAD_INTERRUPTED_MAX];
	/* Where stop_options.all_registers asked for them: every set of registers that the kernel
	 * gives, a row of struct thread_regset; and the mask of blocked signals. Owned; NULL: not
	 * known. */
	uint8_t *regsets;
	size_t regsets_size;
	uint64_t sig_blocked;
};

/* Registers as PTRACE_GETREGSET gives them; the next one begins 8-byte aligned behind it. */
struct thread_regset {
	uint32_t type; /* NT_PRFPREG, NT_X86_XSTATE ... */
	uint32_t size;
	uint8_t bytes[];
};

VEC_DEFINE(thread_state_vec, struct thread_state)

/* Frees the stacks, too. */
void thread_states_deinit(struct thread_state_vec *states);

#endif
