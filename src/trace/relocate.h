/*
 * relocate.h - moves the first instructions of an x86-64 function elsewhere, so that a jump can
 * stand in their place. Private to trace/.
 *
 * Only what is understood is moved: any other form is refused with a reason. All bytes are foreign.
 */
#ifndef TRACE_RELOCATE_H
#define TRACE_RELOCATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A near jump; and the longest instruction there is. */
#define RELOCATE_JUMP	     5
#define RELOCATE_INSTRUCTION 15

/* What the moved instructions can take with the jump back: five of them, jcc made longer. */
#define RELOCATE_CODE_MAX 64

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
	bool rip_relative;
	uint8_t displacement; /* where the disp32 of a rip-relative operand is */
	enum x86_branch branch;
	int64_t target; /* of a relative branch, from the instruction's first byte */
};

/* False: not understood, or longer than @size. */
bool x86_decode(const uint8_t *code, size_t size, struct x86_instruction *ret);

struct relocated {
	uint8_t code[RELOCATE_CODE_MAX]; /* the moved instructions and the jump back */
	size_t size;
	/* Where the jump goes: behind an endbr64, which stays. From the function's start. */
	size_t patch_offset;
	size_t consumed; /* bytes from there that were moved: at least RELOCATE_JUMP */
};

/*
 * @code: the function's bytes, @size of them, as it is at @from in the target. The moved code is
 * to stand at @to. NULL, or why it cannot be done (static).
 */
const char *relocate_function(const uint8_t *code, size_t size, uint64_t from, uint64_t to,
			      struct relocated *ret);

/* The jump that leads from @from to @to. False: it is too far. */
bool relocate_jump(uint64_t from, uint64_t to, uint8_t ret[RELOCATE_JUMP]);

#endif
