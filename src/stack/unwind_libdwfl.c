/* Unwinding by libdwfl: of every architecture that it knows, whatever memprobe's own is. */
#include "memprobe/log.h"
#include "memprobe/num.h"
#include "unwinder.h"

/* DWARF's number of the stack pointer: System V ABI of the architecture. */
static int stack_pointer_register(const struct arch *arch)
{
	return arch->elf_machine == EM_X86_64 ? 7 : arch->elf_machine == EM_386 ? 4 : 31;
}

/* elfutils 0.188. Without it no frame's end is known: libunwind has them of native threads. */
int dwfl_frame_reg(Dwfl_Frame *state, unsigned number, Dwarf_Word *value) __attribute__((weak));

struct libdwfl_unwinder {
	struct symbolizer *symbolizer;
	struct stack_memory *memory;
	const struct arch *arch;
	int sp_register;
	/* The thread at work. */
	struct frame_vec *frames;
	size_t first_frame;
	uint64_t last_sp;
	/* libdwfl takes a return address that cannot be read for the end of the stack. */
	bool is_unreadable;
	struct error *error;
};

static bool memory_read(Dwfl *dwfl, Dwarf_Addr address, Dwarf_Word *result, void *data)
{
	struct libdwfl_unwinder *unwinder = data;
	uint64_t word;

	if (unwinder->arch->bits == 32)
		address &= UINT32_MAX;
	if (!stack_memory_read(unwinder->memory, address, unwinder->arch->word_size, &word)) {
		unwinder->is_unreadable = true;
		return false;
	}
	*result = word;
	return true;
}

static bool set_initial_registers(Dwfl_Thread *thread, void *data)
{
	struct libdwfl_unwinder *unwinder = data;
	const struct user_regs_struct *regs = &unwinder->memory->state->regs;

	for (const struct arch_register *reg = unwinder->arch->registers; reg->number >= 0; reg++) {
		Dwarf_Word value =
			load_word((const char *)regs + reg->offset, unwinder->arch->word_size);

		if (!dwfl_thread_state_registers(thread, reg->number, 1, &value))
			return false;
	}
	dwfl_thread_state_register_pc(thread, unwinder->arch->pc(regs));
	return true;
}

static pid_t next_thread(Dwfl *dwfl, void *data, void **thread)
{
	struct libdwfl_unwinder *unwinder = data;

	if (*thread)
		return 0;
	*thread = unwinder;
	return unwinder->memory->state->tid;
}

static bool get_thread(Dwfl *dwfl, pid_t tid, void *data, void **thread)
{
	*thread = data;
	return true;
}

static const Dwfl_Thread_Callbacks thread_callbacks = {
	.next_thread = next_thread,
	.get_thread = get_thread,
	.memory_read = memory_read,
	.set_initial_registers = set_initial_registers,
};

struct error *libdwfl_unwinder_create(struct symbolizer *symbolizer, struct stack_memory *memory,
				      struct libdwfl_unwinder **ret)
{
	struct libdwfl_unwinder *unwinder = calloc(1, sizeof(*unwinder));

	if (!unwinder)
		return &error_no_memory;
	unwinder->symbolizer = symbolizer;
	unwinder->memory = memory;
	unwinder->arch = symbolizer->target->arch;
	unwinder->sp_register = stack_pointer_register(unwinder->arch);
	if (!dwfl_attach_state(symbolizer->dwfl, NULL, symbolizer->target->pid, &thread_callbacks,
			       unwinder)) {
		free(unwinder);
		return error_create(ERROR_UNSUPPORTED, "cannot unwind the stacks of %s: %s",
				    symbolizer->target->name, dwfl_errmsg(-1));
	}
	*ret = unwinder;
	return NULL;
}

void libdwfl_unwinder_destroy(struct libdwfl_unwinder *unwinder)
{
	free(unwinder);
}

static int visit_frame(Dwfl_Frame *state, void *data)
{
	struct libdwfl_unwinder *unwinder = data;
	struct frame_vec *frames = unwinder->frames;
	size_t count = frames->size - unwinder->first_frame;
	struct frame frame = { 0 };
	Dwarf_Word sp = 0;
	bool has_sp = dwfl_frame_reg && dwfl_frame_reg(state, unwinder->sp_register, &sp) == 0;

	if (!dwfl_frame_pc(state, &frame.pc, &frame.is_activation))
		return DWARF_CB_ABORT;
	if (count && has_sp) {
		/* What libdwfl found for this frame is where its callee's frame ends. */
		frames->data[frames->size - 1].cfa = sp;
		if (frame.pc == frames->data[frames->size - 1].pc && sp <= unwinder->last_sp)
			return DWARF_CB_ABORT;
	}
	if (count == UNWIND_FRAMES_MAX)
		return DWARF_CB_ABORT;
	unwinder->last_sp = has_sp ? sp : 0;
	unwinder->is_unreadable = false;
	unwinder->error = frame_vec_append(frames, &frame);
	return unwinder->error ? DWARF_CB_ABORT : DWARF_CB_OK;
}

struct error *libdwfl_unwind(struct libdwfl_unwinder *unwinder, struct frame_vec *frames)
{
	const struct thread_state *state = unwinder->memory->state;
	struct error *error;
	int result;

	unwinder->frames = frames;
	unwinder->first_frame = frames->size;
	unwinder->last_sp = 0;
	unwinder->is_unreadable = false;
	result = dwfl_getthread_frames(unwinder->symbolizer->dwfl, state->tid, visit_frame,
				       unwinder);
	error = take_pointer(unwinder->error);
	if (!error && frames->size == unwinder->first_frame) {
		struct frame frame = { .pc = unwinder->arch->pc(&state->regs),
				       .is_activation = true };

		error = frame_vec_append(frames, &frame);
	}
	if (!error && (result != 0 || unwinder->is_unreadable)) {
		log_debug("thread %d: the stack goes on: %s", (int)state->tid,
			  result < 0   ? dwfl_errmsg(-1)
			  : result > 0 ? "no progress, or too deep"
				       : "not all of it was copied");
		frames->data[frames->size - 1].is_cut = true;
	}
	return error;
}
