#include "relocate.h"

#include <string.h>

#include "x86_decode.h"

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

	if (ret->size + X86_INSTRUCTION_MAX > sizeof(ret->code))
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
		offset = (int64_t)(source - here + (uint64_t)(int64_t)displacement);
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
		if (x86_is_relative(insn.branch) && target > (int64_t)patch &&
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
