/*
 * libFuzzer: any bytes as the code of a function whose beginning is moved. The moved code is read
 * again, and has to do what the function's own beginning did: refer to the same addresses, go to
 * the same places, and go on behind what was moved.
 */
#include <assert.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "record/agent/relocate.h"
#include "record/uprobe/uprobe.h"
#include "record/x86_decode.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

/* Where code and its copy are, in front of the code. */
struct places {
	uint64_t from;
	int32_t distance;
};

static void check_instruction(const uint8_t *code, size_t size)
{
	struct x86_instruction insn, again;
	uint8_t exact[X86_INSTRUCTION_MAX];

	if (!x86_decode(code, size, &insn))
		return;
	assert(insn.length >= 1 && insn.length <= size && insn.length <= X86_INSTRUCTION_MAX);
	assert(insn.opcode_start < insn.length);
	assert(!insn.rip_relative || insn.displacement + 4 <= insn.length);
	assert(x86_is_relative(insn.branch) || !insn.target);
	/* It is these bytes, and all of them. */
	memset(exact, 0xff, sizeof(exact));
	memcpy(exact, code, insn.length);
	assert(x86_decode(exact, insn.length, &again) && !memcmp(&insn, &again, sizeof(insn)));
	assert(!x86_decode(exact, insn.length - 1u, &again));
}

static uint64_t operand_of(const uint8_t *code, const struct x86_instruction *insn, uint64_t at)
{
	int32_t displacement;

	memcpy(&displacement, code + insn->displacement, 4);
	return at + insn->length + (uint64_t)(int64_t)displacement;
}

/* All but the displacement. */
static void check_same(const uint8_t *code, const uint8_t *moved,
		       const struct x86_instruction *insn)
{
	for (size_t i = 0; i < insn->length; i++)
		assert(code[i] == moved[i] || (insn->rip_relative && i - insn->displacement < 4));
}

/* One instruction at @at in the function and at @here in its copy. */
static void check_moved(const uint8_t *code, const struct x86_instruction *insn, uint64_t at,
			const uint8_t *moved, const struct x86_instruction *copy, uint64_t here)
{
	assert(insn->branch == copy->branch);
	assert(insn->branch != X86_CALL && insn->branch != X86_CALL_INDIRECT &&
	       insn->branch != X86_LOOP && insn->branch != X86_TRAP);
	if (x86_is_relative(insn->branch)) {
		assert(at + (uint64_t)insn->target == here + (uint64_t)copy->target);
		assert(insn->branch != X86_JUMP_IF || (insn->opcode & 15) == (copy->opcode & 15));
		return;
	}
	assert(insn->length == copy->length);
	check_same(code, moved, insn);
	assert(insn->rip_relative == copy->rip_relative);
	if (insn->rip_relative)
		assert(operand_of(code, insn, at) == operand_of(moved, copy, here));
}

/* What stays is one instruction, which is no branch. */
static void check_first(const uint8_t *code, size_t size, const struct relocated *result)
{
	struct x86_instruction insn;

	if (!result->patch_offset)
		return;
	assert(x86_decode(code, size, &insn) && insn.length == result->patch_offset);
	assert(insn.branch == X86_NO_BRANCH);
}

static void check_relocated(const uint8_t *code, size_t size, uint64_t from, uint64_t to,
			    const struct relocated *result)
{
	size_t at = result->moved_start, end = result->moved_end, here = 0;
	bool flows = true;

	assert(result->patch_offset >= at && end >= result->patch_offset + RELOCATE_JUMP);
	assert(end <= size && result->size <= sizeof(result->code));
	assert(result->undo.size <= sizeof(result->undo.bytes));
	assert(result->patch_offset || !result->undo.size);
	check_first(code, size, result);
	while (at < end) {
		struct x86_instruction insn, copy;

		assert(flows);
		assert(x86_decode(code + at, size - at, &insn));
		assert(x86_decode(result->code + here, result->size - here, &copy));
		check_moved(code + at, &insn, from + at, result->code + here, &copy, to + here);
		/* Into what the jump overwrites nothing goes. */
		if (x86_is_relative(insn.branch)) {
			uint64_t target = at + (uint64_t)insn.target - result->patch_offset;

			assert((target == 0 && result->patch_offset == result->moved_start) ||
			       target >= RELOCATE_JUMP);
		}
		flows = insn.branch == X86_NO_BRANCH || insn.branch == X86_JUMP_IF;
		at += insn.length;
		here += copy.length;
	}
	assert(at == end);
	if (flows) {
		struct x86_instruction back;

		assert(x86_decode(result->code + here, result->size - here, &back));
		assert(back.branch == X86_JUMP);
		assert(to + here + (uint64_t)back.target == from + end);
		here += back.length;
	}
	assert(here == result->size);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
	struct relocated result;
	struct places places;
	uint8_t *code;
	uint64_t to;

	if (size < sizeof(places))
		return 0;
	memcpy(&places, bytes, sizeof(places));
	size -= sizeof(places);
	/* By itself, so that what is read behind its end is seen. */
	code = malloc(size ? size : 1);
	if (!code)
		abort();
	memcpy(code, bytes + sizeof(places), size);
	for (size_t at = 0; at < size && at < 64; at++)
		check_instruction(code + at, size - at);
	to = places.from + (uint64_t)(int64_t)places.distance;
	for (unsigned arguments = 0; arguments <= 6; arguments += 3)
		if (!relocate_function(code, size, places.from, to, arguments, &result))
			check_relocated(code, size, places.from, to, &result);
	for (unsigned arguments = 0; arguments < 1u << UPROBE_ARGUMENTS; arguments += 9) {
		uint8_t registers[UPROBE_ARGUMENTS] = { 0 };

		assert(uprobe_place(code, size, arguments, registers) <= size);
		for (unsigned i = 0; i < UPROBE_ARGUMENTS; i++)
			assert(registers[i] < 16);
	}
	free(code);
	return 0;
}
