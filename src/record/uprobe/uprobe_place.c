#include <string.h>

#include "uprobe.h"
#include "record/x86_decode.h"

/* Far more than any function does before its first branch. */
#define INSTRUCTIONS_MAX 24

/* By their numbers: ax cx dx bx sp bp si di r8 ... r15. */
#define REG_AX 0
#define REG_DX 2
#define REG_SP 4

const uint8_t uprobe_argument_registers[UPROBE_ARGUMENTS] = { 7, 6, 2, 1, 8, 9 };

static bool is_emulated(const uint8_t *code, const struct x86_instruction *instruction)
{
	uint8_t opcode = instruction->opcode;

	/* No prefix but REX with push, none with a branch. */
	if (instruction->is_0f)
		return instruction->opcode_start == 0 && opcode >= 0x80 && opcode <= 0x8f;
	if (opcode >= 0x50 && opcode <= 0x57)
		return instruction->opcode_start == 0 ||
		       (instruction->opcode_start == 1 && code[0] == 0x41);
	return instruction->opcode_start == 0 &&
	       ((opcode >= 0x70 && opcode <= 0x7f) || opcode == 0xeb || opcode == 0xe9 ||
		opcode == 0xe8 || opcode == 0x90);
}

static bool writes_rm(const struct x86_operands *operands, unsigned kept)
{
	return operands->is_memory || (kept >> operands->rm & 1);
}

/* The eight of 0x00 to 0x3f; the last one, cmp, only compares. Forms on bytes are left out. */
static bool is_harmless_arithmetic(uint8_t opcode, const struct x86_operands *operands,
				   unsigned kept)
{
	if (opcode >> 3 == 7)
		return (opcode & 7) <= 5;
	switch (opcode & 7) {
	case 1:
		return !writes_rm(operands, kept);
	case 3:
		return !(kept >> operands->reg & 1);
	case 5:
		return !(kept >> REG_AX & 1);
	default:
		return false;
	}
}

static bool is_harmless_0f(uint8_t opcode, const struct x86_operands *operands, unsigned kept)
{
	switch (opcode) {
	case 0x1e: /* endbr64 */
	case 0x1f: /* nop */
		return true;
	case 0x40 ... 0x4f: /* cmov */
	case 0xaf:	    /* imul */
	case 0xb6:	    /* movzx, movsx */
	case 0xb7:
	case 0xbe:
	case 0xbf:
	case 0xbc: /* bsf, bsr */
	case 0xbd:
		return !(kept >> operands->reg & 1);
	default:
		return false;
	}
}

static bool is_harmless_single(uint8_t opcode, const struct x86_operands *operands, unsigned kept)
{
	switch (opcode) {
	case 0x84: /* test */
	case 0x85:
	case 0xa8:
	case 0xa9:
		return true;
	case 0x80: /* with an immediate, on a byte: cmp */
		return operands->extension == 7;
	case 0x81: /* any of the eight */
	case 0x83:
		return operands->extension == 7 || !writes_rm(operands, kept);
	case 0xf6: /* test */
		return operands->extension <= 1;
	case 0xf7: /* test; not, neg */
		return operands->extension <= 1 ||
		       (operands->extension <= 3 && !writes_rm(operands, kept));
	case 0x63: /* movsxd, imul, mov to, lea */
	case 0x69:
	case 0x6b:
	case 0x8b:
	case 0x8d:
		return !(kept >> operands->reg & 1);
	case 0x89: /* mov from, shifts, mov of an immediate */
	case 0xc1:
	case 0xd1:
	case 0xd3:
	case 0xc7:
		return !writes_rm(operands, kept);
	default:
		return false;
	}
}

/* What changes neither @kept registers nor memory, and goes on behind itself. */
static bool is_harmless(const uint8_t *code, const struct x86_instruction *instruction,
			unsigned kept)
{
	const uint8_t *opcode = code + instruction->opcode_start;
	uint8_t rex = instruction->opcode_start && (opcode[-1] & 0xf0) == 0x40 ? opcode[-1] : 0;
	struct x86_operands operands;

	if (instruction->branch != X86_NO_BRANCH || instruction->is_vector)
		return false;
	/* Without a ModRM byte: mov of an immediate, cltq, cqto. */
	if (!instruction->is_0f && (instruction->opcode & 0xf8) == 0xb8)
		return !(kept >> ((instruction->opcode & 7) | (rex & 1) << 3) & 1);
	if (!instruction->is_0f && (instruction->opcode == 0x98 || instruction->opcode == 0x99))
		return !(kept >> (instruction->opcode == 0x98 ? REG_AX : REG_DX) & 1);
	if (!x86_read_operands(code, instruction, &operands))
		return false;
	if (instruction->is_0f)
		return is_harmless_0f(instruction->opcode, &operands, kept);
	if (instruction->opcode < 0x40)
		return is_harmless_arithmetic(instruction->opcode, &operands, kept);
	return is_harmless_single(instruction->opcode, &operands, kept);
}

/* What is behind may come back to in front of it: one call would look like two. */
static bool is_returned_to(const uint8_t *code, size_t size, size_t place)
{
	size_t at = 0;

	while (at < size) {
		struct x86_instruction instruction;
		int64_t target;

		if (!x86_decode(code + at, size - at, &instruction))
			break;
		target = (int64_t)at + instruction.target;
		if (x86_is_relative(instruction.branch) && target > 0 && target <= (int64_t)place)
			return true;
		at += instruction.length;
	}
	return false;
}

/* Where the arguments are, as the instructions are passed. */
struct holders {
	unsigned wanted;
	uint8_t *now;
	uint8_t copies[UPROBE_ARGUMENTS]; /* NONE: none */
};

#define NONE 0xff

static unsigned kept_by(const struct holders *holders)
{
	unsigned kept = 1u << REG_SP;

	for (unsigned i = 0; i < UPROBE_ARGUMENTS; i++)
		if (holders->wanted >> i & 1)
			kept |= 1u << holders->now[i];
	return kept;
}

static void use_copies(struct holders *holders)
{
	for (unsigned i = 0; i < UPROBE_ARGUMENTS; i++) {
		if (holders->copies[i] == NONE)
			continue;
		holders->now[i] = holders->copies[i];
		holders->copies[i] = NONE;
	}
}

/* mov from register to register, 64 bits wide. */
static bool is_copy(const uint8_t *code, const struct x86_instruction *instruction, unsigned *from,
		    unsigned *to)
{
	struct x86_operands operands;

	if (instruction->is_0f || instruction->is_vector || instruction->opcode_start != 1 ||
	    (code[0] & 0xf8) != 0x48 ||
	    (instruction->opcode != 0x89 && instruction->opcode != 0x8b) ||
	    !x86_read_operands(code, instruction, &operands))
		return false;
	*from = instruction->opcode == 0x89 ? operands.reg : operands.rm;
	*to = instruction->opcode == 0x89 ? operands.rm : operands.reg;
	return !operands.is_memory;
}

static void note_copies(struct holders *holders, const uint8_t *code,
			const struct x86_instruction *instruction)
{
	unsigned from, to;
	bool copies = is_copy(code, instruction, &from, &to);

	for (unsigned i = 0; i < UPROBE_ARGUMENTS; i++) {
		if (holders->copies[i] != NONE &&
		    !is_harmless(code, instruction, 1u << holders->copies[i]))
			holders->copies[i] = NONE;
		if (copies && from == holders->now[i])
			holders->copies[i] = (uint8_t)to;
	}
}

static bool pass(struct holders *holders, const uint8_t *code,
		 const struct x86_instruction *instruction)
{
	if (!is_harmless(code, instruction, kept_by(holders))) {
		use_copies(holders);
		if (!is_harmless(code, instruction, kept_by(holders)))
			return false;
	}
	note_copies(holders, code, instruction);
	return true;
}

unsigned uprobe_place(const uint8_t *code, size_t size, unsigned arguments, uint8_t *registers_ret)
{
	struct holders holders = { .wanted = arguments, .now = registers_ret };
	size_t at = 0;

	memset(holders.copies, NONE, sizeof(holders.copies));
	memcpy(registers_ret, uprobe_argument_registers, UPROBE_ARGUMENTS);
	for (unsigned i = 0; i < INSTRUCTIONS_MAX && at < size; i++) {
		struct x86_instruction instruction;

		if (!x86_decode(code + at, size - at, &instruction))
			break;
		if (is_emulated(code + at, &instruction)) {
			if (at && is_returned_to(code, size, at))
				break;
			return (unsigned)at;
		}
		if (!pass(&holders, code + at, &instruction))
			break;
		at += instruction.length;
	}
	memcpy(registers_ret, uprobe_argument_registers, UPROBE_ARGUMENTS);
	return 0;
}
