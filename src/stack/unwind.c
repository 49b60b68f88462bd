#include "memprobe/unwind.h"

#include "memprobe/log.h"
#include "memprobe/num.h"
#include "symbolizer.h"

/* DWARF's number of the stack pointer: System V ABI of the architecture. */
static int stack_pointer_register(const struct arch *arch)
{
	return arch->elf_machine == EM_X86_64 ? 7 : arch->elf_machine == EM_386 ? 4 : 31;
}

struct unwinder {
	struct symbolizer *symbolizer;
	const struct arch *arch;
	int sp_register;
	struct mapping_vec maps; /* read when memory beyond a copied stack is first asked for */
	bool maps_known;
	/* The thread at work. */
	const struct thread_state *state;
	struct frame_vec *frames;
	size_t first_frame;
	uint64_t last_sp;
	struct error *error;
};

static bool read_from(const uint8_t *bytes, uint64_t start, size_t bytes_size, uint64_t address,
		      size_t size, uint64_t *ret)
{
	uint64_t offset = address - start;

	if (!bytes || address < start || offset > bytes_size || bytes_size - offset < size)
		return false;
	*ret = load_word(bytes + offset, size);
	return true;
}

static bool read_copied(const struct thread_state *state, uint64_t address, size_t size,
			uint64_t *ret)
{
	if (read_from(state->stack, state->stack_start, state->stack_size, address, size, ret))
		return true;
	for (size_t i = 0; i < THREAD_INTERRUPTED_MAX && state->interrupted[i].bytes; i++) {
		const struct stack_copy *stack = &state->interrupted[i];

		if (read_from(stack->bytes, stack->start, stack->size, address, size, ret))
			return true;
	}
	return false;
}

/* Memory that may have changed since the stop is no memory of that instant. */
static bool is_constant(struct unwinder *unwinder, uint64_t address)
{
	const struct mapping *mapping;

	/* A core or a snapshot is of one instant. */
	if (!unwinder->symbolizer->target->process)
		return true;
	if (!unwinder->maps_known) {
		struct error *error =
			target_read_maps(unwinder->symbolizer->target, MAPS_PLAIN, &unwinder->maps);

		unwinder->maps_known = true;
		error_destroy(error);
	}
	mapping = mappings_find(&unwinder->maps, address);
	return mapping && !(mapping->perms & PERM_WRITE);
}

static bool memory_read(Dwfl *dwfl, Dwarf_Addr address, Dwarf_Word *result, void *data)
{
	struct unwinder *unwinder = data;
	struct error *error;
	uint64_t word;

	if (unwinder->arch->bits == 32)
		address &= UINT32_MAX;
	if (!read_copied(unwinder->state, address, unwinder->arch->word_size, &word)) {
		if (!is_constant(unwinder, address))
			return false;
		error = target_read_word(unwinder->symbolizer->target, address, &word);
		if (error) {
			error_destroy(error);
			return false;
		}
	}
	*result = word;
	return true;
}

static bool set_initial_registers(Dwfl_Thread *thread, void *data)
{
	struct unwinder *unwinder = data;
	const struct user_regs_struct *regs = &unwinder->state->regs;

	for (const struct arch_register *reg = unwinder->arch->registers; reg->dwarf >= 0; reg++) {
		Dwarf_Word value =
			load_word((const char *)regs + reg->offset, unwinder->arch->word_size);

		if (!dwfl_thread_state_registers(thread, reg->dwarf, 1, &value))
			return false;
	}
	dwfl_thread_state_register_pc(thread, unwinder->arch->pc(regs));
	return true;
}

static pid_t next_thread(Dwfl *dwfl, void *data, void **thread)
{
	struct unwinder *unwinder = data;

	if (*thread)
		return 0;
	*thread = unwinder;
	return unwinder->state->tid;
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

struct error *unwinder_create(struct symbolizer *symbolizer, struct unwinder **ret)
{
	struct unwinder *unwinder = calloc(1, sizeof(*unwinder));

	if (!unwinder)
		return &error_no_memory;
	unwinder->symbolizer = symbolizer;
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

void unwinder_destroy(struct unwinder *unwinder)
{
	if (!unwinder)
		return;
	mappings_deinit(&unwinder->maps);
	free(unwinder);
}

static int visit_frame(Dwfl_Frame *state, void *data)
{
	struct unwinder *unwinder = data;
	struct frame_vec *frames = unwinder->frames;
	size_t count = frames->size - unwinder->first_frame;
	struct frame frame = { 0 };
	Dwarf_Word sp = 0;
	bool has_sp = dwfl_frame_reg(state, unwinder->sp_register, &sp) == 0;

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
	unwinder->error = frame_vec_append(frames, &frame);
	return unwinder->error ? DWARF_CB_ABORT : DWARF_CB_OK;
}

struct error *unwind_thread(struct unwinder *unwinder, const struct thread_state *state,
			    struct frame_vec *frames)
{
	struct error *error;
	int result;

	unwinder->state = state;
	unwinder->frames = frames;
	unwinder->first_frame = frames->size;
	unwinder->last_sp = 0;
	result = dwfl_getthread_frames(unwinder->symbolizer->dwfl, state->tid, visit_frame,
				       unwinder);
	error = take_pointer(unwinder->error);
	if (!error && frames->size == unwinder->first_frame) {
		struct frame frame = { .pc = unwinder->arch->pc(&state->regs),
				       .is_activation = true };

		error = frame_vec_append(frames, &frame);
	}
	if (!error && result != 0) {
		log_debug("thread %d: the stack goes on: %s", (int)state->tid,
			  result < 0 ? dwfl_errmsg(-1) : "no progress, or too deep");
		frames->data[frames->size - 1].is_cut = true;
	}
	unwinder->state = NULL;
	return error;
}
