#include "undo.h"

#include <string.h>

#include "memprobe/num.h"

/* By their numbers: ax cx dx bx sp bp si di r8 ... r15. */
#define BIT(number) (1u << (number))
#define AX	    0
#define SP	    4

/* What functions keep for their callers; what the hook does not. */
#define KEPT	  (BIT(3) | BIT(SP) | BIT(5) | BIT(12) | BIT(13) | BIT(14) | BIT(15))
#define CLOBBERED (BIT(AX) | BIT(10) | BIT(11))

#define REX_W 0x48

/* What a function may use of the registers as they are when it is called. */
static uint32_t live_at_entry(unsigned arguments)
{
	static const uint8_t registers[] = { 7, 6, 2, 1, 8, 9 };
	uint32_t live = KEPT;

	/* rax: of arguments that vary in number, how many are in vector registers. */
	if (!arguments || arguments > sizeof(registers)) {
		arguments = sizeof(registers);
		live |= BIT(AX);
	}
	for (unsigned i = 0; i < arguments; i++)
		live |= BIT(registers[i]);
	return live;
}

/* Registers, as bits. */
struct effect {
	uint32_t reads, writes;
};

static bool effect_0f(const struct x86_instruction *insn, const struct x86_operands *operands,
		      struct effect *ret)
{
	switch (insn->opcode) {
	case 0x1f: /* nop */
		return true;
	case 0xb6: /* movzx, movsx: without REX, 4 to 7 are the second bytes of 0 to 3 */
	case 0xb7:
	case 0xbe:
	case 0xbf:
		ret->writes = BIT(operands->reg);
		ret->reads = operands->is_memory ? operands->address
						 : BIT(operands->rm) | BIT(operands->rm & 3);
		return true;
	default:
		return false;
	}
}

static bool effect_plain(const struct x86_instruction *insn, const struct x86_operands *operands,
			 struct effect *ret)
{
	uint32_t rm = operands->is_memory ? operands->address : BIT(operands->rm);

	switch (insn->opcode) {
	case 0x29: /* sub, xor of a register with itself */
	case 0x2b:
	case 0x31:
	case 0x33:
		ret->writes = BIT(operands->reg);
		return !operands->is_memory && operands->rm == operands->reg;
	case 0x39: /* cmp, test */
	case 0x3b:
	case 0x85:
		ret->reads = rm | BIT(operands->reg);
		return true;
	case 0x80: /* cmp of a byte, test of one */
		ret->reads = rm;
		return operands->is_memory && operands->extension == 7;
	case 0xf6:
		ret->reads = rm;
		return operands->is_memory && operands->extension == 0;
	case 0x81:
	case 0x83:
		ret->reads = rm;
		return operands->extension == 7;
	case 0xf7:
		ret->reads = rm;
		return operands->extension == 0;
	case 0x63: /* movsxd, mov to, lea */
	case 0x8b:
	case 0x8d:
		ret->reads = rm;
		ret->writes = BIT(operands->reg);
		return true;
	case 0x89: /* mov from */
		ret->reads = BIT(operands->reg);
		ret->writes = rm;
		return !operands->is_memory;
	case 0xc7: /* mov of an immediate */
		ret->writes = rm;
		return !operands->is_memory && operands->extension == 0;
	default:
		return false;
	}
}

/* False: not one of the few that only compare, load or move. */
static bool find_effect(const uint8_t *code, const struct x86_instruction *insn, uint8_t rex,
			struct effect *ret)
{
	struct x86_operands operands;

	*ret = (struct effect){ 0 };
	if (!insn->is_0f && insn->opcode == 0x90 && !rex)
		return true;
	if (!insn->is_0f && (insn->opcode & 0xf8) == 0xb8) {
		ret->writes = BIT((insn->opcode & 7u) | (rex & 1u) << 3);
		return true;
	}
	if (!x86_read_operands(code, insn, &operands))
		return false;
	return insn->is_0f ? effect_0f(insn, &operands, ret) : effect_plain(insn, &operands, ret);
}

/* lea size(%rsp), %rsp */
static bool undo_sub(const uint8_t *code, const struct x86_instruction *insn, struct undo *ret)
{
	static const uint8_t near[] = { REX_W, 0x8d, 0x64, 0x24 };
	static const uint8_t far[] = { REX_W, 0x8d, 0xa4, 0x24 };
	bool is_far = insn->opcode == 0x81;
	size_t size = is_far ? 4 : 1;

	/* sub $size, %rsp */
	if (insn->length != 3 + size || code[0] != REX_W || code[2] != 0xec ||
	    (code[2 + size] & 0x80))
		return false;
	memcpy(ret->bytes, is_far ? far : near, sizeof(near));
	memcpy(ret->bytes + sizeof(near), code + 3, size);
	ret->size = sizeof(near) + size;
	return true;
}

static bool is_push(const struct x86_instruction *insn, uint8_t rex)
{
	return insn->opcode_start == (rex != 0) &&
	       ((insn->opcode & 0xf8) == 0x50 || insn->opcode == 0x68 || insn->opcode == 0x6a);
}

/* The prefixes but REX change nothing of what is looked at. */
static bool has_plain_prefixes(const uint8_t *code, const struct x86_instruction *insn, uint8_t rex)
{
	for (unsigned i = 0; i + (rex != 0) < insn->opcode_start; i++)
		/* %fs, 16 bits */
		if (code[i] != 0x64 && code[i] != 0x66)
			return false;
	return true;
}

bool undo_find(const uint8_t *code, const struct x86_instruction *insn, unsigned arguments,
	       struct undo *ret)
{
	static const uint8_t endbr64[] = { 0xf3, 0x0f, 0x1e, 0xfa };
	static const uint8_t pop_r11[] = { 0x41, 0x5b };
	uint8_t last = insn->opcode_start ? code[insn->opcode_start - 1] : 0;
	uint8_t rex = (last & 0xf0) == 0x40 ? last : 0;
	struct undo undo = { 0 };
	struct effect effect;

	*ret = undo;
	if (insn->branch != X86_NO_BRANCH || insn->is_vector)
		return false;
	if (insn->length == sizeof(endbr64) && !memcmp(code, endbr64, sizeof(endbr64)))
		return true;
	if (!insn->is_0f && is_push(insn, rex)) {
		memcpy(undo.bytes, pop_r11, sizeof(pop_r11));
		undo.size = sizeof(pop_r11);
		*ret = undo;
		return true;
	}
	if (!insn->is_0f && (insn->opcode == 0x81 || insn->opcode == 0x83) &&
	    undo_sub(code, insn, &undo)) {
		*ret = undo;
		return true;
	}
	return has_plain_prefixes(code, insn, rex) && find_effect(code, insn, rex, &effect) &&
	       !(effect.writes & live_at_entry(arguments)) &&
	       !(effect.reads & (effect.writes | CLOBBERED));
}
