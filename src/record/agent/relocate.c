#include "relocate.h"

#include <string.h>

#include "memprobe/arch.h"
#include "record/x86_decode.h"

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

/* Whether anything branches to where the jump will stand, or to its first byte unless that is where
 * the function may be begun anew. */
static const char *check_branches(const uint8_t *code, size_t size, size_t patch, bool may_begin)
{
	for (size_t at = 0; at < size;) {
		struct x86_instruction insn;
		int64_t target;

		if (!x86_decode(code + at, size - at, &insn))
			return "not all of its instructions are understood";
		target = (int64_t)at + insn.target;
		if (x86_is_relative(insn.branch) && target >= (int64_t)(patch + may_begin) &&
		    target < (int64_t)(patch + RELOCATE_JUMP))
			return "it jumps back into its first bytes";
		at += insn.length;
	}
	return NULL;
}

/* With patch_offset, moved_start and undo of @ret given. */
static const char *relocate_at(const uint8_t *code, size_t size, uint64_t from, uint64_t to,
			       struct relocated *ret)
{
	size_t at = ret->moved_start, end = ret->patch_offset + RELOCATE_JUMP;
	const char *reason;
	bool flows = true;

	if ((from + ret->patch_offset) % PAGE_SIZE + RELOCATE_JUMP > PAGE_SIZE)
		return "its first bytes lie across two pages";
	while (at < end && flows) {
		struct x86_instruction insn;

		if (at >= size)
			return "it is too short";
		if (!x86_decode(code + at, size - at, &insn))
			return code[at] == 0xcc ? "a breakpoint or trap stands at its beginning"
						: "its first instructions are not understood";
		reason = move(code + at, &insn, from + at, to, ret);
		if (reason)
			return reason;
		at += insn.length;
		flows = !ends_flow(insn.branch);
	}
	if (at < end)
		return "it is too short";
	reason = check_branches(code, size, ret->patch_offset,
				ret->patch_offset == ret->moved_start);
	if (reason)
		return reason;
	if (flows) {
		if (ret->size + RELOCATE_JUMP > sizeof(ret->code))
			return "its first instructions are too many";
		if (!relocate_jump(to + ret->size, from + at, ret->code + ret->size))
			return too_far;
		ret->size += RELOCATE_JUMP;
	}
	ret->moved_end = at;
	return NULL;
}

/* An endbr64 and nothing else: all of the function is behind it. */
static bool is_mark(const struct x86_instruction *insn)
{
	return insn->is_0f && insn->opcode == 0x1e;
}

const char *relocate_function(const uint8_t *code, size_t size, uint64_t from, uint64_t to,
			      unsigned arguments, struct relocated *ret)
{
	struct relocated result = { 0 };
	struct x86_instruction first;
	const char *reason;

	if (x86_decode(code, size, &first) && undo_find(code, &first, arguments, &result.undo)) {
		result.patch_offset = first.length;
		result.moved_start = is_mark(&first) ? first.length : 0;
		reason = relocate_at(code, size, from, to, &result);
		if (!reason)
			*ret = result;
		/* That an indirect call must find, where the processor is told to look for it. */
		if (!reason || is_mark(&first))
			return reason;
	}
	result = (struct relocated){ 0 };
	reason = relocate_at(code, size, from, to, &result);
	if (!reason)
		*ret = result;
	return reason;
}
