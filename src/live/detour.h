/*
 * detour.h - the layout that the detour stubs (stub_*.S) and the code that feeds them share.
 *
 * A parameter block lies in the target's read-only text padding: header words, steps, data. The
 * stub copies it to its own stack frame first of all and works on that copy; so the block may be
 * rewritten as soon as a thread is past the copying. All fields are words of the target (8 or 4
 * bytes), indexed by DETOUR_*.
 */
#ifndef DETOUR_H
#define DETOUR_H

/* Header of the block. */
#define DETOUR_SIZE	  0 /* bytes of header, steps and data */
#define DETOUR_PLAIN	  1 /* where the thread goes on: the kernel did not restart its system call, */
#define DETOUR_RESTART	  2 /* ... or did: two bytes before, on the system call instruction */
#define DETOUR_XSAVE_LOW  3 /* components to save; 0, 0: use FXSAVE */
#define DETOUR_XSAVE_HIGH 4
#define DETOUR_XSAVE_SIZE 5 /* of the area, multiple of 64, with 4 bytes to spare */
#define DETOUR_XSAVE_USED 6 /* what XSAVE writes of it */
#define DETOUR_ERRNO_FN	  7 /* __errno_location, or 0 */
#define DETOUR_STEPS	  8 /* offset of the first step */
#define DETOUR_BLOCK	  9 /* 64-bit signal mask (10 is its high word on i386) */
/* Written by the stub, in its copy. */
#define DETOUR_STEP	   11 /* address of the step at work */
#define DETOUR_SAVED	   12 /* address of the saved registers */
#define DETOUR_XSAVE_AREA  13 /* also the stack pointer that abort starts from */
#define DETOUR_ERRNO_PLACE 14
#define DETOUR_ERRNO	   15
#define DETOUR_OLD_MASK	   16 /* 64 bits; given with MASK_KNOWN */
#define DETOUR_PENDING	   18 /* 64 bits */
#define DETOUR_ARGS	   20 /* six */
/* Written by memprobe, in the block: never looked at in the copy. */
#define DETOUR_TID	   26 /* the thread of the last commit, as the target numbers it; 0: none */
#define DETOUR_ABORT_FRAME 27 /* address of the copy that abort is to unwind */
#define DETOUR_MASK_KNOWN                                                       \
	28 /* 1: OLD_MASK is given, the thread's signals may be blocked already \
	    */
#define DETOUR_WORDS 29

/* A step: op | kinds << 8 | check << 24, function, six arguments, result, expect, fail. */
#define DETOUR_STEP_ARGS   2
#define DETOUR_STEP_RESULT 8
#define DETOUR_STEP_EXPECT 9
#define DETOUR_STEP_FAIL   10 /* offset of the step to go on with after a failure */
#define DETOUR_STEP_WORDS  11

/* enum call_op and enum call_check as the assembler sees them; call.c asserts that they agree. */
#define DETOUR_OP_FUNCTION 1
#define DETOUR_OP_SYSCALL  2
#define DETOUR_OP_COPY	   3
#define DETOUR_OP_STORE	   4
#define DETOUR_OP_CLONE	   5
#define DETOUR_OP_EXIT	   6
#define DETOUR_NO_ERRNO	   1
#define DETOUR_EXPECT	   2

/* The marker: rt_sigprocmask(0, NULL, NULL, 8, frame, DETOUR_MAGIC), which does nothing. */
#define DETOUR_MAGIC 0x6d70726f

#define DETOUR_SIGNATURE_SIZE 16

#ifndef __ASSEMBLER__

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* One architecture's stub: position independent but for the literal. */
struct detour {
	const uint8_t *code; /* begins with the signature */
	size_t size;
	size_t literal; /* offset of a word: the address of the parameter block */
	size_t entry;	/* offset of the entry for a restarted system call; + 2: not restarted */
	size_t copied;	/* offset of the first instruction that no longer needs the block */
	size_t abort;	/* offset of the abort entry */
};

struct arch;

/* False: none for this architecture. */
bool detour_find(const struct arch *arch, struct detour *ret);

#endif
#endif
