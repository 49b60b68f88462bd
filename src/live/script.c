#include "script.h"

#include <string.h>

#include "detour.h"
#include "memprobe/num.h"

_Static_assert(CALL_OP_FUNCTION == DETOUR_OP_FUNCTION && CALL_OP_SYSCALL == DETOUR_OP_SYSCALL &&
		       CALL_OP_COPY == DETOUR_OP_COPY && CALL_OP_STORE == DETOUR_OP_STORE &&
		       CALL_OP_CLONE == DETOUR_OP_CLONE && CALL_OP_EXIT == DETOUR_OP_EXIT,
	       "the stubs know these numbers");
_Static_assert(CALL_NO_ERRNO == DETOUR_NO_ERRNO && CALL_EXPECT == DETOUR_EXPECT,
	       "the stubs know these numbers");

void call_begin(struct call_script *script, const struct arch *arch)
{
	*script = (struct call_script){ .arch = arch, .marker = -1 };
}

size_t call_add_data(struct call_script *script, const void *bytes, size_t size)
{
	size_t offset = script->data_size;
	size_t padded = round_up(size, script->arch->word_size);

	if (padded > CALL_DATA_MAX - offset) {
		script->overflow = true;
		return 0;
	}
	if (bytes)
		memcpy(script->data + offset, bytes, size);
	script->data_size += padded;
	return offset;
}

int call_add_step(struct call_script *script, const struct call_step *step)
{
	struct call_step *added = &script->steps[script->step_count];

	if (script->step_count == CALL_STEPS_MAX) {
		script->overflow = true;
		return 0;
	}
	*added = *step;
	if (script->marker >= 0)
		added->check = CALL_ANY;
	return (int)script->step_count++;
}

static size_t add_step(struct call_script *script, enum call_op op, uint64_t function,
		       unsigned count, const struct call_arg *args, enum call_check check,
		       uint64_t expect)
{
	struct call_step step = {
		.op = op,
		.function = function,
		.check = check,
		.expect = expect,
		.has_result = true,
		.result = call_add_data(script, NULL, script->arch->word_size),
		.fail = script->step_count ? CALL_FAIL_CLEANUP : CALL_FAIL_END,
	};

	for (unsigned i = 0; i < count && i < 6; i++)
		step.args[i] = args[i];
	call_add_step(script, &step);
	return step.result;
}

size_t call_add_function(struct call_script *script, uint64_t address, unsigned count,
			 const struct call_arg *args)
{
	return add_step(script, CALL_OP_FUNCTION, address, count, args, CALL_ANY, 0);
}

size_t call_add_syscall(struct call_script *script, int number, unsigned count,
			const struct call_arg *args, enum call_check check, uint64_t expect)
{
	return add_step(script, CALL_OP_SYSCALL, (uint64_t)number, count, args, check, expect);
}

void call_add_marker(struct call_script *script)
{
	struct call_step step = {
		.op = CALL_OP_SYSCALL,
		.function = (uint64_t)script->arch->syscalls.rt_sigprocmask,
		/* The address of the data is enough to know the frame by. */
		.args = { CALL_ARG(0), CALL_ARG(0), CALL_ARG(0), CALL_ARG(8), CALL_ADDR(0),
			  CALL_ARG(DETOUR_MAGIC) },
		.fail = CALL_FAIL_END,
	};

	script->marker = call_add_step(script, &step);
}

uint64_t call_result_word(const struct call_result *result, const struct call_script *script,
			  size_t offset)
{
	return load_word(result->data + offset, script->arch->word_size);
}

static size_t data_offset(const struct call_script *script)
{
	/* One step more: the end. */
	return script->arch->word_size *
	       (DETOUR_WORDS + DETOUR_STEP_WORDS * ((size_t)script->step_count + 1));
}

size_t script_size(const struct call_script *script)
{
	return data_offset(script) + script->data_size;
}

static void put_word(struct block *block, const struct arch *arch, size_t word, uint64_t value)
{
	memcpy(block->bytes + word * arch->word_size, &value, arch->word_size);
}

void block_set(struct block *block, const struct arch *arch, unsigned index, uint64_t value)
{
	put_word(block, arch, index, value);
}

static size_t step_word(size_t step)
{
	return DETOUR_WORDS + DETOUR_STEP_WORDS * step;
}

static void encode_step(struct block *block, const struct call_script *script, size_t index)
{
	const struct arch *arch = script->arch;
	const struct call_step *step = &script->steps[index];
	size_t word = step_word(index);
	uint64_t kinds = 0;
	size_t fail = script->step_count;

	for (unsigned i = 0; i < 6; i++) {
		uint64_t value = step->args[i].value;

		if (step->args[i].kind != CALL_VALUE)
			value += block->data;
		kinds |= (uint64_t)step->args[i].kind << (2 * i);
		put_word(block, arch, word + DETOUR_STEP_ARGS + i, value);
	}
	if (step->fail == CALL_FAIL_CLEANUP && script->marker >= 0)
		fail = (size_t)script->marker + 1;
	else if (step->fail >= 0)
		fail = (size_t)step->fail;
	put_word(block, arch, word, step->op | kinds << 8 | (uint64_t)step->check << 24);
	put_word(block, arch, word + 1, step->function);
	put_word(block, arch, word + DETOUR_STEP_RESULT,
		 step->has_result ? block->data + step->result : 0);
	put_word(block, arch, word + DETOUR_STEP_EXPECT, step->expect);
	put_word(block, arch, word + DETOUR_STEP_FAIL, step_word(fail) * arch->word_size);
}

struct error *script_encode(const struct call_script *script, const struct block_header *header,
			    struct block *ret)
{
	const struct arch *arch = script->arch;

	if (script->overflow || script_size(script) > BLOCK_MAX)
		return error_create(ERROR_FAILED, "the call's script is too long");
	*ret = (struct block){ .size = script_size(script), .data = data_offset(script) };
	block_set(ret, arch, DETOUR_SIZE, ret->size);
	block_set(ret, arch, DETOUR_PLAIN, header->plain);
	block_set(ret, arch, DETOUR_RESTART, header->restart);
	block_set(ret, arch, DETOUR_XSAVE_LOW, (uint32_t)header->xsave_mask);
	block_set(ret, arch, DETOUR_XSAVE_HIGH, header->xsave_mask >> 32);
	block_set(ret, arch, DETOUR_XSAVE_SIZE, header->xsave_size);
	block_set(ret, arch, DETOUR_XSAVE_USED, header->xsave_used);
	block_set(ret, arch, DETOUR_ERRNO_FN, header->errno_function);
	block_set(ret, arch, DETOUR_STEPS, step_word(0) * arch->word_size);
	memcpy(ret->bytes + (size_t)DETOUR_BLOCK * arch->word_size, &header->block_mask,
	       sizeof(header->block_mask));
	block_set(ret, arch, DETOUR_MASK_KNOWN, header->mask_known);
	memcpy(ret->bytes + (size_t)DETOUR_OLD_MASK * arch->word_size, &header->old_mask,
	       sizeof(header->old_mask));
	block_set(ret, arch, DETOUR_XSAVE_AREA, header->stack);
	block_set(ret, arch, DETOUR_TID, header->tid);
	for (size_t i = 0; i < script->step_count; i++)
		encode_step(ret, script, i);
	memcpy(ret->bytes + ret->data, script->data, script->data_size);
	return NULL;
}
