#include "uprobe.h"
#include "x86_decode.h"

/* Far more than any function does before it uses an argument. */
#define INSTRUCTIONS_MAX 12

/* By their numbers: ax cx dx bx sp bp si di r8 ... r15. */
#define REG_SP	  4
#define ARGUMENTS (1u << 7 | 1u << 6 | 1u << 2 | 1u << 1 | 1u << 8 | 1u << 9)

static bool is_emulated(const uint8_t *code, const struct x86_instruction *instruction)
{
	uint8_t opcode = instruction->opcode;

	if (instruction->is_vector)
		return false;
	/* No prefix but REX with push, none with a branch. */
	if (instruction->is_0f)
		return instruction->opcode_start == 0 && opcode >= 0x80 && opcode <= 0x8f;
	if (opcode >= 0x50 && opcode <= 0x57)
		return instruction->opcode_start == 0 ||
		       (instruction->opcode_start == 1 && code[0] == 0x41);
	return instruction->opcode_start == 0 &&
	       ((opcode >= 0x70 && opcode <= 0x7f) || opcode == 0xeb || opcode == 0xe9);
}

static bool is_kept(unsigned reg)
{
	return reg == REG_SP || (ARGUMENTS >> reg & 1);
}

/*
 * What changes neither arguments nor the stack pointer nor memory, and goes on behind itself:
 * test, cmp, nop, endbr64, and mov, lea, xor, movzx to other registers.
 */
static bool is_harmless(const uint8_t *code, const struct x86_instruction *instruction)
{
	const uint8_t *opcode = code + instruction->opcode_start;
	uint8_t rex = instruction->opcode_start && (opcode[-1] & 0xf0) == 0x40 ? opcode[-1] : 0;
	const uint8_t *modrm = opcode + 1 + instruction->is_0f;
	unsigned reg, rm;

	if (instruction->branch != X86_NO_BRANCH || instruction->is_vector ||
	    instruction->opcode_start + 1u + instruction->is_0f >= instruction->length)
		return false;
	reg = (*modrm >> 3 & 7) | (rex & 4) << 1;
	rm = (*modrm & 7) | (rex & 1) << 3;
	if (instruction->is_0f)
		return instruction->opcode == 0x1f || instruction->opcode == 0x1e ||
		       ((instruction->opcode == 0xb6 || instruction->opcode == 0xb7) &&
			!is_kept(reg));
	switch (instruction->opcode) {
	case 0x38: /* cmp */
	case 0x39:
	case 0x3a:
	case 0x3b:
	case 0x3c:
	case 0x3d:
	case 0x84: /* test */
	case 0x85:
	case 0xa8:
	case 0xa9:
		return true;
	case 0x80: /* with an immediate: cmp */
	case 0x81:
	case 0x83:
		return (*modrm >> 3 & 7) == 7;
	case 0xf6: /* test */
	case 0xf7:
		return (*modrm >> 3 & 7) <= 1;
	case 0x8b: /* mov to, lea */
	case 0x8d:
	case 0x33:
		return !is_kept(reg);
	case 0x89: /* mov from, xor */
	case 0x31:
		return *modrm >= 0xc0 && !is_kept(rm);
	default:
		return false;
	}
}

unsigned uprobe_place(const uint8_t *code, size_t size)
{
	size_t at = 0;

	for (unsigned i = 0; i < INSTRUCTIONS_MAX && at < size; i++) {
		struct x86_instruction instruction;

		if (!x86_decode(code + at, size - at, &instruction))
			break;
		if (is_emulated(code + at, &instruction))
			return (unsigned)at;
		if (!is_harmless(code + at, &instruction))
			break;
		at += instruction.length;
	}
	return 0;
}
