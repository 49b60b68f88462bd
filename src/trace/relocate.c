#include "relocate.h"

#include <string.h>

#include "memprobe/num.h"

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

static const uint8_t one_byte[256] = {
#define ARITHMETIC M, M, M, M, IMM_8, IMM_Z, IMM_BAD, IMM_BAD
	/* 00 */ ARITHMETIC,
	ARITHMETIC, /* 0f is the escape */
	/* 10 */ ARITHMETIC,
	ARITHMETIC,
	/* 20 */ ARITHMETIC,
	ARITHMETIC,
	/* 30 */ ARITHMETIC,
	ARITHMETIC,
	/* 40: REX, taken as prefixes */
	IMM_BAD,
	IMM_BAD,
	IMM_BAD,
	IMM_BAD,
	IMM_BAD,
	IMM_BAD,
	IMM_BAD,
	IMM_BAD,
	IMM_BAD,
	IMM_BAD,
	IMM_BAD,
	IMM_BAD,
	IMM_BAD,
	IMM_BAD,
	IMM_BAD,
	IMM_BAD,
	/* 50: push, pop */ 0,
	0,
	0,
	0,
	0,
	0,
	0,
	0,
	0,
	0,
	0,
	0,
	0,
	0,
	0,
	0,
	/* 60 */ IMM_BAD,
	IMM_BAD,
	IMM_BAD,
	M,
	IMM_BAD,
	IMM_BAD,
	IMM_BAD,
	IMM_BAD,
	IMM_Z,
	M | IMM_Z,
	IMM_8,
	M | IMM_8,
	0,
	0,
	0,
	0,
	/* 70: jcc */ IMM_REL8,
	IMM_REL8,
	IMM_REL8,
	IMM_REL8,
	IMM_REL8,
	IMM_REL8,
	IMM_REL8,
	IMM_REL8,
	IMM_REL8,
	IMM_REL8,
	IMM_REL8,
	IMM_REL8,
	IMM_REL8,
	IMM_REL8,
	IMM_REL8,
	IMM_REL8,
	/* 80 */ M | IMM_8,
	M | IMM_Z,
	IMM_BAD,
	M | IMM_8,
	M,
	M,
	M,
	M,
	M,
	M,
	M,
	M,
	M,
	M,
	M,
	M,
	/* 90 */ 0,
	0,
	0,
	0,
	0,
	0,
	0,
	0,
	0,
	0,
	IMM_BAD,
	0,
	0,
	0,
	0,
	0,
	/* a0 */ IMM_MOFFS,
	IMM_MOFFS,
	IMM_MOFFS,
	IMM_MOFFS,
	0,
	0,
	0,
	0,
	IMM_8,
	IMM_Z,
	0,
	0,
	0,
	0,
	0,
	0,
	/* b0 */ IMM_8,
	IMM_8,
	IMM_8,
	IMM_8,
	IMM_8,
	IMM_8,
	IMM_8,
	IMM_8,
	IMM_V,
	IMM_V,
	IMM_V,
	IMM_V,
	IMM_V,
	IMM_V,
	IMM_V,
	IMM_V,
	/* c0 */ M | IMM_8,
	M | IMM_8,
	IMM_16,
	0,
	IMM_BAD,
	IMM_BAD,
	M | IMM_8,
	M | IMM_Z,
	IMM_16_8,
	0,
	IMM_16,
	0,
	0,
	IMM_8,
	IMM_BAD,
	0,
	/* d0 */ M,
	M,
	M,
	M,
	IMM_BAD,
	IMM_BAD,
	IMM_BAD,
	0,
	M,
	M,
	M,
	M,
	M,
	M,
	M,
	M,
	/* e0 */ IMM_REL8,
	IMM_REL8,
	IMM_REL8,
	IMM_REL8,
	IMM_8,
	IMM_8,
	IMM_8,
	IMM_8,
	IMM_REL32,
	IMM_REL32,
	IMM_BAD,
	IMM_REL8,
	0,
	0,
	0,
	0,
	/* f0 */ IMM_BAD,
	0,
	IMM_BAD,
	IMM_BAD,
	0,
	0,
	M | IMM_GROUP3,
	M | IMM_GROUP3,
	0,
	0,
	0,
	0,
	0,
	0,
	M,
	M,
#undef ARITHMETIC
};

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
	if (reader->at >= reader->size || reader->at >= RELOCATE_INSTRUCTION)
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
	uint8_t form = one_byte[opcode];

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
		understood = decode_vector(&reader, byte, &insn);
	} else {
		understood = decode_plain(&reader, byte, &insn);
		if (understood)
			insn.branch = branch_of(&reader, &insn);
	}
	if (!understood || reader.at > size || reader.at > RELOCATE_INSTRUCTION)
		return false;
	insn.length = reader.at;
	/* With a 32-bit address, eip counts: never seen, and it would be moved wrongly. */
	if (insn.rip_relative && reader.address32)
		return false;
	*ret = insn;
	return true;
}

/* ---- moving ---- */

static bool fits_32(int64_t value)
{
	return value == (int32_t)value;
}

static void put_32(uint8_t *at, int64_t value)
{
	int32_t word = (int32_t)value;

	memcpy(at, &word, 4);
}

bool relocate_jump(uint64_t from, uint64_t to, uint8_t ret[RELOCATE_JUMP])
{
	int64_t offset = (int64_t)(to - (from + RELOCATE_JUMP));

	if (!fits_32(offset))
		return false;
	ret[0] = 0xe9;
	put_32(ret + 1, offset);
	return true;
}

static const char too_far[] = "what its first instructions refer to is too far from any free room";

/* One instruction of the function, at @source, to the end of @ret->code, which is to stand at @to.
 */
static const char *move(const uint8_t *code, const struct x86_instruction *insn, uint64_t source,
			uint64_t to, struct relocated *ret)
{
	uint8_t *place = ret->code + ret->size;
	uint64_t here = to + ret->size;
	int64_t offset;

	if (ret->size + RELOCATE_INSTRUCTION > sizeof(ret->code))
		return "its first instructions are too many";
	switch (insn->branch) {
	case X86_JUMP_IF:
		/* As jcc rel32; hints and other prefixes mean nothing. */
		offset = (int64_t)(source + insn->target - (here + 6));
		if (!fits_32(offset))
			return too_far;
		place[0] = 0x0f;
		place[1] = 0x80 | (insn->opcode & 15);
		put_32(place + 2, offset);
		ret->size += 6;
		return NULL;
	case X86_JUMP:
		if (!relocate_jump(here, source + insn->target, place))
			return too_far;
		ret->size += RELOCATE_JUMP;
		return NULL;
	case X86_CALL:
	case X86_CALL_INDIRECT:
		return "it begins with a call";
	case X86_LOOP:
		return "it begins with a loop";
	case X86_TRAP:
		return "a breakpoint or trap stands at its beginning";
	default:
		break;
	}
	memcpy(place, code, insn->length);
	if (insn->rip_relative) {
		int32_t displacement;

		memcpy(&displacement, code + insn->displacement, 4);
		offset = (int64_t)(source - here) + displacement;
		if (!fits_32(offset))
			return too_far;
		put_32(place + insn->displacement, offset);
	}
	ret->size += insn->length;
	return NULL;
}

static bool ends_flow(enum x86_branch branch)
{
	return branch == X86_JUMP || branch == X86_JUMP_INDIRECT || branch == X86_RETURN;
}

/* Whether anything branches to where the jump will stand, but not to its first byte. */
static const char *check_branches(const uint8_t *code, size_t size, size_t patch)
{
	for (size_t at = 0; at < size;) {
		struct x86_instruction insn;
		int64_t target;

		if (!x86_decode(code + at, size - at, &insn))
			return "not all of its instructions are understood";
		target = (int64_t)at + insn.target;
		if (insn.branch != X86_NO_BRANCH && insn.target && target > (int64_t)patch &&
		    target < (int64_t)(patch + RELOCATE_JUMP))
			return "it jumps back into its first bytes";
		at += insn.length;
	}
	return NULL;
}

const char *relocate_function(const uint8_t *code, size_t size, uint64_t from, uint64_t to,
			      struct relocated *ret)
{
	static const uint8_t endbr64[] = { 0xf3, 0x0f, 0x1e, 0xfa };
	struct relocated result = { 0 };
	const char *reason = NULL;
	size_t at, end;
	bool flows = true;

	if (size >= sizeof(endbr64) && !memcmp(code, endbr64, sizeof(endbr64)))
		result.patch_offset = sizeof(endbr64);
	at = result.patch_offset;
	end = at + RELOCATE_JUMP;
	if (from % 4096 + at <= 4096 && (from + at) % 4096 + RELOCATE_JUMP > 4096)
		return "its first bytes lie across two pages";
	while (at < end && flows) {
		struct x86_instruction insn;

		if (at >= size)
			return "it is too short";
		if (!x86_decode(code + at, size - at, &insn))
			return code[at] == 0xcc ? "a breakpoint or trap stands at its beginning"
						: "its first instructions are not understood";
		reason = move(code + at, &insn, from + at, to, &result);
		if (reason)
			return reason;
		at += insn.length;
		flows = !ends_flow(insn.branch);
	}
	if (at < end)
		return "it is too short";
	reason = check_branches(code, size, result.patch_offset);
	if (reason)
		return reason;
	if (flows) {
		if (result.size + RELOCATE_JUMP > sizeof(result.code))
			return "its first instructions are too many";
		if (!relocate_jump(to + result.size, from + at, result.code + result.size))
			return too_far;
		result.size += RELOCATE_JUMP;
	}
	result.consumed = at - result.patch_offset;
	*ret = result;
	return NULL;
}
