/*
 * unwind_abi.h - the compiled unwind table, as memprobe lays it out and the agent reads it.
 *
 * One image, position independent: every place in it is an offset from its beginning, where a
 * struct unwind_header stands. It only grows. What readers see at one instant is one array of
 * modules, sorted by address; a change writes a new array behind the old one and publishes it by
 * storing unwind_header.modules. What has been published is never changed again, so that readers
 * need no lock.
 *
 * Of a module's text, [start, end), rows say how to get from a frame to its caller. The rule at an
 * address is that of the last row at or below it; the first row is at offset 0. The index has, for
 * every block of UNWIND_BLOCK bytes, the row that is in force at the block's beginning, and one
 * more entry, the last row.
 *
 * A rule of x86-64, from bit 0: kind (3 bits), offset (16 bits, in words of 8 bytes), frame pointer
 * (6 bits), extra (5 bits). The two highest bits are 0: a cache may use them. 0 is no rule. The
 * return address always lies at CFA - 8. Numbers of registers are DWARF's. Another architecture is
 * another unwind_header.machine with rules of its own; all else is the same.
 */
#ifndef MEMPROBE_AGENT_UNWIND_ABI_H
#define MEMPROBE_AGENT_UNWIND_ABI_H

#include <stddef.h>
#include <stdint.h>

#define UNWIND_MAGIC   0x74646e77u /* "wndt" */
#define UNWIND_VERSION 1u
#define UNWIND_BLOCK   256u

struct unwind_row {
	uint32_t offset; /* from the module's start */
	uint32_t rule;
};

struct unwind_module {
	uint64_t start, end; /* of its text in the target; at most 4 GiB */
	uint64_t rows;	     /* offset of struct unwind_row[row_count] */
	uint64_t index;	     /* offset of uint32_t[blocks of the text + 1] */
	uint32_t row_count;  /* at least 1 */
	uint32_t reserved;
};

struct unwind_header {
	uint32_t magic, version;
	uint32_t machine; /* EM_X86_64 */
	uint32_t reserved;
	/* The array of modules: its offset and, in the lowest UNWIND_COUNT_BITS, their number. To
	 * be stored with release order, loaded with acquire order. */
	uint64_t modules;
};

#define UNWIND_COUNT_BITS 20

enum unwind_kind {
	/* CFA = rsp + offset. */
	UNWIND_SP,
	/* CFA = rbp + offset, which is signed. */
	UNWIND_BP,
	/* CFA = *(rbp + offset), signed: realigned stacks. Both registers are then saved relative
	 * to rbp: field n says rbp + 8 - 8 n. */
	UNWIND_BP_LOAD,
	/* CFA = *(rsp + offset) + 8 * extra. */
	UNWIND_SP_LOAD,
	/* CFA = another register + offset, signed. Extra: its number, and in the highest bit that
	 * rbp is saved as with UNWIND_BP_LOAD. */
	UNWIND_REGISTER,
	/* CFA = rsp + offset, and a word more if (pc & 15) >= extra: an entry of a PLT. With
	 * UNWIND_EXTRA_FAR the rest of extra is the offset's highest 4 bits instead: a large frame.
	 */
	UNWIND_PLT,
	/* The frame of a signal handler's return: rsp is saved at rsp + offset, the others about it
	 * as in Linux's struct sigcontext. */
	UNWIND_SIGNAL,
	/* Offset is an enum unwind_special. */
	UNWIND_SPECIAL,
};

enum unwind_special {
	UNWIND_SPECIAL_END = 1,	    /* nobody called: the stack ends here */
	UNWIND_SPECIAL_UNSUPPORTED, /* the call frame information says more than rules can */
	UNWIND_SPECIAL_NO_CFI,	    /* there is none: to be taken for code with frame pointers */
};

#define UNWIND_RULE(kind, offset, bp, extra)                                           \
	((uint32_t)(kind) | ((uint32_t)(offset)&0xffffu) << 3 | (uint32_t)(bp) << 19 | \
	 (uint32_t)(extra) << 25)

#define UNWIND_RULE_KIND(rule)	 ((rule)&7u)
#define UNWIND_RULE_OFFSET(rule) ((rule) >> 3 & 0xffffu)
#define UNWIND_RULE_SIGNED(rule) ((int64_t)(int16_t)UNWIND_RULE_OFFSET(rule))
/* rbp: 0: unchanged; else it is saved at CFA - 8 n. */
#define UNWIND_RULE_BP(rule) ((rule) >> 19 & 63u)
/* Of UNWIND_SP, UNWIND_BP, UNWIND_BP_LOAD: rbx, likewise. Else see the kinds. */
#define UNWIND_RULE_EXTRA(rule) ((rule) >> 25 & 31u)

#define UNWIND_BP_MAX	      63u
#define UNWIND_EXTRA_MAX      30u
#define UNWIND_EXTRA_UNKNOWN  31u /* rbx was not saved in a way that can be said */
#define UNWIND_EXTRA_RELATIVE 16u /* of UNWIND_REGISTER */
#define UNWIND_EXTRA_FAR      16u /* of UNWIND_PLT */

#define UNWIND_RULE_END		UNWIND_RULE(UNWIND_SPECIAL, UNWIND_SPECIAL_END, 0, 0)
#define UNWIND_RULE_UNSUPPORTED UNWIND_RULE(UNWIND_SPECIAL, UNWIND_SPECIAL_UNSUPPORTED, 0, 0)
#define UNWIND_RULE_NO_CFI	UNWIND_RULE(UNWIND_SPECIAL, UNWIND_SPECIAL_NO_CFI, 0, 0)

/* Offsets of other registers from where UNWIND_SIGNAL says that rsp is: struct sigcontext_64 of
 * Linux arch/x86/include/uapi/asm/sigcontext.h. */
#define UNWIND_SIGNAL_RIP 8
#define UNWIND_SIGNAL_RBP (-40)
#define UNWIND_SIGNAL_RBX (-32)

/*
 * Rules lately looked up, by address: one word each, so that readers and writers need no lock. The
 * tag is exact: with it and its place, an entry says its whole address (of 48 bits).
 */
#define UNWIND_CACHE_BITS 14
#define UNWIND_CACHE_SIZE (1u << UNWIND_CACHE_BITS)

/*
 * Where the CFA of a frame was that had the same stack pointer, a while ago. It is believed only
 * where it is right; but the processor believes it sooner, and so finds frames side by side that
 * without it it would have to find one after the other.
 */
#define UNWIND_GUESSES 64

struct unwind_guesses {
	uint16_t size[UNWIND_GUESSES]; /* of the frame, in words; by agreement 0: not known */
};

/* In addresses that the walk gives: the frame was interrupted there. Without it the address is one
 * that a call returns to, and the call stands in front of it. */
#define UNWIND_PC_EXACT (1ull << 63)

#endif
