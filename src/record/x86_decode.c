#include "x86_decode.h"

#include <string.h>

/*
 * Lengths as in Intel's SDM vol. 2, appendix A: whether an opcode has a ModRM byte and how large an
 * immediate follows.
 */
enum immediate {
	IMM_0,
	IMM_8,
	IMM_16,
	IMM_Z,	  /* 2 with an operand size prefix, else 4 */
	IMM_V,	  /* as IMM_Z, 8 with REX.W */
	IMM_16_8, /* enter */
	IMM_BAD,
	IMM_REL8,
	IMM_REL32,
	IMM_MOFFS,  /* an address: 8, or 4 with an address size prefix */
	IMM_GROUP3, /* test of f6, f7: by the ModRM byte */
};

#define M 0x80 /* has a ModRM byte */

static const uint8_t from_40[256] = {
	[0x40 ... 0x4f] = IMM_BAD, /* REX stands in front of opcodes only */
	[0x60 ... 0x62] = IMM_BAD,
	[0x63] = M,
	[0x64 ... 0x67] = IMM_BAD,
	[0x68] = IMM_Z,
	[0x69] = M | IMM_Z,
	[0x6a] = IMM_8,
	[0x6b] = M | IMM_8,
	[0x70 ... 0x7f] = IMM_REL8,
	[0x80] = M | IMM_8,
	[0x81] = M | IMM_Z,
	[0x82] = IMM_BAD,
	[0x83] = M | IMM_8,
	[0x84 ... 0x8f] = M,
	[0x9a] = IMM_BAD,
	[0xa0 ... 0xa3] = IMM_MOFFS,
	[0xa8] = IMM_8,
	[0xa9] = IMM_Z,
	[0xb0 ... 0xb7] = IMM_8,
	[0xb8 ... 0xbf] = IMM_V,
	[0xc0 ... 0xc1] = M | IMM_8,
	[0xc2] = IMM_16,
	[0xc4 ... 0xc5] = IMM_BAD,
	[0xc6] = M | IMM_8,
	[0xc7] = M | IMM_Z,
	[0xc8] = IMM_16_8,
	[0xca] = IMM_16,
	[0xcd] = IMM_8,
	[0xce] = IMM_BAD,
	[0xd0 ... 0xd3] = M,
	[0xd4 ... 0xd6] = IMM_BAD,
	[0xd8 ... 0xdf] = M,
	[0xe0 ... 0xe3] = IMM_REL8,
	[0xe4 ... 0xe7] = IMM_8,
	[0xe8 ... 0xe9] = IMM_REL32,
	[0xea] = IMM_BAD,
	[0xeb] = IMM_REL8,
	[0xf0] = IMM_BAD,
	[0xf2 ... 0xf3] = IMM_BAD,
	[0xf6 ... 0xf7] = M | IMM_GROUP3,
	[0xfe ... 0xff] = M,
};

static uint8_t one_byte(uint8_t opcode)
{
	/* add, or, adc ...: the same eight forms for each */
	static const uint8_t arithmetic[8] = { M, M, M, M, IMM_8, IMM_Z, IMM_BAD, IMM_BAD };

	return opcode < 0x40 ? arithmetic[opcode & 7] : from_40[opcode];
}

/* The 0f map; 38 and 3a are escapes. */
static uint8_t two_byte(uint8_t opcode)
{
	switch (opcode) {
	case 0x05: /* syscall */
	case 0x06:
	case 0x08:
	case 0x09:
	case 0x0b: /* ud2 */
	case 0x0e:
	case 0x30 ... 0x37:
	case 0x77: /* emms, vzeroupper */
	case 0xa0 ... 0xa2:
	case 0xa8 ... 0xaa:
	case 0xc8 ... 0xcf:
		return 0;
	case 0x04:
	case 0x07:
	case 0x0a:
	case 0x0c:
	case 0x0f:
	case 0x24 ... 0x27:
	case 0x38 ... 0x3f:
	case 0xa6:
	case 0xa7:
		return IMM_BAD;
	case 0x70 ... 0x73:
	case 0xa4:
	case 0xac:
	case 0xba:
	case 0xc2:
	case 0xc4 ... 0xc6:
		return M | IMM_8;
	case 0x80 ... 0x8f:
		return IMM_REL32;
	default:
		return M;
	}
}

/* What is read of one instruction so far. */
struct reader {
	const uint8_t *code;
	size_t size, at;
	bool operand16, address32, wide;
	uint8_t modrm;
};

static bool next(struct reader *reader, uint8_t *ret)
{
	if (reader->at >= reader->size || reader->at >= X86_INSTRUCTION_MAX)
		return false;
	*ret = reader->code[reader->at++];
	return true;
}

static bool skip_modrm(struct reader *reader, struct x86_instruction *ret)
{
	uint8_t sib = 0, mod, rm;

	if (!next(reader, &reader->modrm))
		return false;
	mod = reader->modrm >> 6;
	rm = reader->modrm & 7;
	if (mod == 3)
		return true;
	if (rm == 4 && !next(reader, &sib))
		return false;
	if (mod == 0 && rm == 5) {
		ret->rip_relative = true;
		ret->displacement = reader->at;
		reader->at += 4;
	} else if (mod == 2 || (mod == 0 && rm == 4 && (sib & 7) == 5)) {
		reader->at += 4;
	} else if (mod == 1) {
		reader->at += 1;
	}
	return true;
}

static bool skip_immediate(struct reader *reader, enum immediate kind, struct x86_instruction *ret)
{
	size_t z = reader->operand16 && !reader->wide ? 2 : 4;

	switch (kind) {
	case IMM_0:
		return true;
	case IMM_8:
		reader->at += 1;
		return true;
	case IMM_16:
		reader->at += 2;
		return true;
	case IMM_Z:
		reader->at += z;
		return true;
	case IMM_V:
		reader->at += reader->wide ? 8 : z;
		return true;
	case IMM_16_8:
		reader->at += 3;
		return true;
	case IMM_MOFFS:
		reader->at += reader->address32 ? 4 : 8;
		return true;
	case IMM_GROUP3:
		if ((reader->modrm >> 3 & 7) < 2)
			reader->at += ret->opcode == 0xf6 ? 1 : z;
		return true;
	case IMM_REL8:
	case IMM_REL32: {
		size_t width = kind == IMM_REL8 ? 1 : 4;
		int32_t offset = 0;

		/* With an operand size prefix the vendors' processors differ. */
		if ((reader->operand16 && !reader->wide) || reader->at + width > reader->size)
			return false;
		if (width == 1)
			offset = (int8_t)reader->code[reader->at];
		else
			memcpy(&offset, reader->code + reader->at, 4);
		reader->at += width;
		ret->target = (int64_t)reader->at + offset;
		return true;
	}
	case IMM_BAD:
		break;
	}
	return false;
}

static enum x86_branch branch_of(const struct reader *reader, const struct x86_instruction *insn)
{
	unsigned group = reader->modrm >> 3 & 7;

	if (insn->is_0f) {
		if (insn->opcode >= 0x80 && insn->opcode <= 0x8f)
			return X86_JUMP_IF;
		return insn->opcode == 0x0b || insn->opcode == 0xb9 || insn->opcode == 0xff
			       ? X86_TRAP
			       : X86_NO_BRANCH;
	}
	switch (insn->opcode) {
	case 0x70 ... 0x7f:
		return X86_JUMP_IF;
	case 0xe0 ... 0xe3:
		return X86_LOOP;
	case 0xe8:
		return X86_CALL;
	case 0xe9:
	case 0xeb:
		return X86_JUMP;
	case 0xc2:
	case 0xc3:
	case 0xca:
	case 0xcb:
	case 0xcf:
		return X86_RETURN;
	case 0xcc:
	case 0xcd:
	case 0xf1:
	case 0xf4:
		return X86_TRAP;
	case 0xff:
		if (group == 2 || group == 3)
			return X86_CALL_INDIRECT;
		return group == 4 || group == 5 ? X86_JUMP_INDIRECT : X86_NO_BRANCH;
	}
	return X86_NO_BRANCH;
}

/* VEX (c4, c5) and EVEX (62): the prefix says the map. */
static bool decode_vector(struct reader *reader, uint8_t first, struct x86_instruction *ret)
{
	uint8_t bytes[3] = { 0 }, map = 1;
	unsigned count = first == 0xc5 ? 1 : first == 0xc4 ? 2 : 3;
	uint8_t form;

	for (unsigned i = 0; i < count; i++)
		if (!next(reader, &bytes[i]))
			return false;
	if (first != 0xc5)
		map = bytes[0] & (first == 0xc4 ? 31 : 7);
	if (!next(reader, &ret->opcode))
		return false;
	if (map == 1)
		form = ret->opcode == 0x77 && first != 0x62 ? 0 : two_byte(ret->opcode) | M;
	else if (map == 2 || map == 5 || map == 6)
		form = M;
	else if (map == 3)
		form = M | IMM_8;
	else
		return false;
	if ((form & 0x7f) > IMM_8)
		return false;
	reader->operand16 = false;
	if ((form & M) && !skip_modrm(reader, ret))
		return false;
	/* EVEX scales an 8-bit displacement, which is one byte all the same. */
	return skip_immediate(reader, form & 0x7f, ret);
}

static bool decode_plain(struct reader *reader, uint8_t opcode, struct x86_instruction *ret)
{
	uint8_t form = one_byte(opcode);

	if (opcode == 0x0f) {
		if (!next(reader, &opcode))
			return false;
		ret->is_0f = true;
		form = two_byte(opcode);
		if (opcode == 0x38 || opcode == 0x3a) {
			form = opcode == 0x38 ? M : M | IMM_8;
			/* Nothing there branches: an opcode of the 0f map that does not either. */
			if (!next(reader, &opcode))
				return false;
			opcode = 0x10;
		}
	}
	ret->opcode = opcode;
	if ((form & M) && !skip_modrm(reader, ret))
		return false;
	/* xbegin and xabort are of the group that moves immediates. */
	if (!ret->is_0f && (opcode == 0xc6 || opcode == 0xc7) && (reader->modrm >> 3 & 7))
		return false;
	/* pop has no other form: this is the prefix of AMD's XOP. */
	if (!ret->is_0f && opcode == 0x8f && (reader->modrm >> 3 & 7))
		return false;
	return skip_immediate(reader, form & 0x7f, ret);
}

bool x86_decode(const uint8_t *code, size_t size, struct x86_instruction *ret)
{
	struct reader reader = { .code = code, .size = size };
	struct x86_instruction insn = { 0 };
	bool prefix = true, understood;
	uint8_t byte = 0;

	while (prefix) {
		if (!next(&reader, &byte))
			return false;
		switch (byte) {
		case 0x66:
			reader.operand16 = true;
			break;
		case 0x67:
			reader.address32 = true;
			break;
		case 0x26:
		case 0x2e:
		case 0x36:
		case 0x3e:
		case 0x64:
		case 0x65:
		case 0xf0:
		case 0xf2:
		case 0xf3:
			break;
		default:
			prefix = false;
		}
	}
	if ((byte & 0xf0) == 0x40) {
		reader.wide = byte & 8;
		if (!next(&reader, &byte))
			return false;
	}
	insn.opcode_start = reader.at - 1;
	if (byte == 0xc4 || byte == 0xc5 || byte == 0x62) {
		insn.is_vector = true;
		understood = decode_vector(&reader, byte, &insn);
	} else {
		understood = decode_plain(&reader, byte, &insn);
		if (understood)
			insn.branch = branch_of(&reader, &insn);
	}
	if (!understood || reader.at > size || reader.at > X86_INSTRUCTION_MAX)
		return false;
	insn.length = reader.at;
	/* With a 32-bit address, eip counts: never seen, and it would be moved wrongly. */
	if (insn.rip_relative && reader.address32)
		return false;
	*ret = insn;
	return true;
}

static uint32_t address_registers(uint8_t modrm, uint8_t sib, uint8_t rex)
{
	unsigned mod = modrm >> 6, rm = modrm & 7, base = sib & 7;
	unsigned index = (sib >> 3 & 7) | (rex & 2u) << 2;
	uint32_t registers = 0;

	if (rm != 4)
		return mod == 0 && rm == 5 ? 0 : 1u << (rm | (rex & 1u) << 3);
	if (index != 4)
		registers |= 1u << index;
	if (mod != 0 || base != 5)
		registers |= 1u << (base | (rex & 1u) << 3);
	return registers;
}

bool x86_read_operands(const uint8_t *code, const struct x86_instruction *instruction,
		       struct x86_operands *ret)
{
	unsigned start = instruction->opcode_start, at = start + 1u + instruction->is_0f;
	uint8_t last = start ? code[start - 1] : 0, rex = (last & 0xf0) == 0x40 ? last : 0;
	uint8_t modrm;

	if (at >= instruction->length)
		return false;
	modrm = code[at];
	*ret = (struct x86_operands){
		.reg = (modrm >> 3 & 7) | (rex & 4u) << 1,
		.rm = (modrm & 7) | (rex & 1u) << 3,
		.is_memory = modrm < 0xc0,
		.extension = modrm >> 3 & 7,
	};
	if (ret->is_memory)
		ret->address = address_registers(
			modrm, at + 1u < instruction->length ? code[at + 1u] : 0, rex);
	return true;
}
