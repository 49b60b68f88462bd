#include "agent/unwind_walk.h"
#include "memprobe/unwind_table.h"

/* struct user_regs_struct in the order of DWARF's numbers. */
static void take_registers(const struct user_regs_struct *regs, uint64_t ret[16])
{
	const struct arch_register *reg = arch_x86_64.registers;

	for (; reg->number >= 0; reg++)
		if (reg->number < 16)
			__builtin_memcpy(&ret[reg->number], (const char *)regs + reg->offset, 8);
}

struct error *unwind_table_walk(const struct unwind_table *table, const struct thread_state *state,
				struct frame_vec *frames)
{
	uint64_t pcs[UNWIND_FRAMES_MAX], sps[UNWIND_FRAMES_MAX], registers[16] = { 0 };
	struct unwind_frames found = { .pcs = pcs, .sps = sps, .max = UNWIND_FRAMES_MAX };
	struct unwind_memory memory = { .low = 8, .high = 8 };
	struct unwind_start start = {
		.pc = arch_x86_64.pc(&state->regs),
		.sp = arch_x86_64.sp(&state->regs),
		.registers = registers,
		.has_bx = true,
	};
	enum unwind_result result;
	struct error *error;

	take_registers(&state->regs, registers);
	start.bp = registers[6];
	start.bx = registers[3];
	if (state->stack && state->stack_size >= 8 &&
	    state->stack_start + state->stack_size > state->stack_start) {
		memory.low = state->stack_start;
		memory.high = state->stack_start + state->stack_size;
		memory.shift = (uint64_t)state->stack - state->stack_start;
	}
	result = unwind_walk(unwind_table_image(table, NULL), NULL, &start, &memory, &found);
	error = frame_vec_reserve(frames, frames->size + found.count);
	for (unsigned i = 0; !error && i < found.count; i++)
		frames->data[frames->size++] = (struct frame){
			.pc = pcs[i] & ~UNWIND_PC_EXACT,
			.cfa = i + 1 < found.count ? sps[i + 1] : 0,
			.is_activation = pcs[i] & UNWIND_PC_EXACT,
			.is_cut = i + 1 == found.count && result != UNWIND_COMPLETE,
		};
	return error;
}
