/*
 * x86_decode.h - how long an x86-64 instruction is, and what moving it would change. Private to
 * record/.
 *
 * By the opcode maps of Intel's SDM vol. 2, appendix A. All bytes are foreign; what compilers do
 * not emit is not understood.
 */
#ifndef RECORD_X86_DECODE_H
#define RECORD_X86_DECODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The longest instruction there is. */
#define X86_INSTRUCTION_MAX 15

enum x86_branch {
	X86_NO_BRANCH,
	X86_JUMP,	   /* jmp rel */
	X86_JUMP_IF,	   /* jcc rel */
	X86_CALL,	   /* call rel */
	X86_LOOP,	   /* loop, jrcxz: they reach only 127 bytes far */
	X86_JUMP_INDIRECT, /* jmp r/m */
	X86_CALL_INDIRECT,
	X86_RETURN,
	X86_TRAP, /* int3, ud2, hlt ... */
};

struct x86_instruction {
	uint8_t length;
	uint8_t opcode;	      /* the last opcode byte */
	uint8_t opcode_start; /* where the opcode's first byte is, behind the prefixes */
	bool is_0f;	      /* of the 0f map */
	bool is_vector;	      /* VEX, EVEX: the opcode is of a map of its own */
	bool rip_relative;
	uint8_t displacement; /* where the disp32 of a rip-relative operand is */
	enum x86_branch branch;
	int64_t target; /* of a relative branch, from the instruction's first byte */
};

static inline bool x86_is_relative(enum x86_branch branch)
{
	return branch == X86_JUMP || branch == X86_JUMP_IF || branch == X86_CALL ||
	       branch == X86_LOOP;
}

/* False: not understood, or longer than @size. */
bool x86_decode(const uint8_t *code, size_t size, struct x86_instruction *ret);

/* Of the ModRM byte. Registers by their numbers: ax cx dx bx sp bp si di r8 ... r15. */
struct x86_operands {
	unsigned reg, rm; /* of memory, rm is none */
	bool is_memory;
	unsigned extension; /* of the opcode */
	uint32_t address;   /* bits of the registers that an address is made of */
};

/*
 * What @instruction, which @code begins with, works on: of those of the first two maps that have
 * a ModRM byte, any others must not be asked for. False: it is too short to have one.
 */
bool x86_read_operands(const uint8_t *code, const struct x86_instruction *instruction,
		       struct x86_operands *ret);

#endif
