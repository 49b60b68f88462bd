#include "signal_frames.h"

#include <string.h>

#include "memprobe/num.h"

/* Of the flags: bits that are always set in user space (bit 1 and IF), and those that never are. */
#define FLAGS_SET   0x00000202u
#define FLAGS_CLEAR 0xffda8028u

static bool returns_to(struct target *target, const struct arch_signal_frame *frame,
		       uint64_t address)
{
	uint8_t code[sizeof(frame->code)];
	struct error *error;

	if (address >= target->arch->address_max)
		return false;
	error = target_read(target, address, code, frame->code_size);
	if (error) {
		error_destroy(error);
		return false;
	}
	return !memcmp(code, frame->code, frame->code_size);
}

static bool is_frame(struct target *target, const struct arch_signal_frame *frame,
		     const uint8_t *bytes, size_t size)
{
	unsigned word = target->arch->word_size;
	uint32_t flags;

	/* flags and cs stand behind sp in every layout. */
	if (size < max_u64(frame->flags, frame->cs) + word ||
	    load_word(bytes + frame->cs, 2) != frame->cs_value)
		return false;
	flags = load_word(bytes + frame->flags, 4);
	return (flags & (FLAGS_SET | FLAGS_CLEAR)) == FLAGS_SET &&
	       returns_to(target, frame, load_word(bytes, word));
}

bool signal_frame_next(struct target *target, const struct stack_copy *stack, size_t *offset,
		       uint64_t *sp_ret)
{
	unsigned word = target->arch->word_size;
	const struct arch_signal_frame *frames = target->arch->signal_frames;

	if (!frames)
		return false;
	for (size_t at = *offset + (-(stack->start + *offset) & (word - 1)); at < stack->size;
	     at += word) {
		for (const struct arch_signal_frame *frame = frames; frame->code_size; frame++) {
			const uint8_t *bytes = stack->bytes + at;

			if (!is_frame(target, frame, bytes, stack->size - at))
				continue;
			*sp_ret = load_word(bytes + frame->sp, word);
			*offset = at + word;
			return true;
		}
	}
	return false;
}

bool signal_frame_sp(struct target *target, uint64_t address, uint64_t *sp_ret)
{
	const struct arch_signal_frame *frames = target->arch->signal_frames;
	unsigned word = target->arch->word_size;
	uint8_t bytes[256];

	for (const struct arch_signal_frame *frame = frames; frame && frame->code_size; frame++) {
		size_t size = max_u64(max_u64(frame->flags, frame->cs), frame->sp) + word;
		struct error *error;

		if (size > sizeof(bytes))
			continue;
		error = target_read(target, address, bytes, size);
		if (error) {
			error_destroy(error);
			return false;
		}
		if (!is_frame(target, frame, bytes, size))
			continue;
		*sp_ret = load_word(bytes + frame->sp, word);
		return true;
	}
	return false;
}
