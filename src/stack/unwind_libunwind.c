/*
 * Unwinding by libunwind, of memprobe's own architecture: one step at a time, from the registers of
 * a frame to those of its caller, in an address space whose memory is the copied stacks and whose
 * call frame information is what cfi_find.c has found and checked. libunwind reads whatever it is
 * given, so that garbage must not come to it: see cfa_is_usual().
 */
#include <libunwind-ptrace.h>
#include <string.h>

#include "memprobe/log.h"
#include "memprobe/num.h"
#include "unwinder.h"

/* DWARF's numbers: registers, then the return address. libunwind has the same for x86-64. */
#define REGISTERS 17
enum { BP = 6, SP = 7, PC = 16 };

/* Where libunwind's one-row table lies: no address of a program. */
#define TABLE_ADDRESS (UINT64_MAX - 0xffff)
/* Words that one thread's stack may take; 1024 frames take some 200 each. */
#define READS_MAX 4000000u
/* States of code addresses that libunwind keeps, as a power of two. */
#define CACHE_SIZE 4096

/* What its headers do not declare: the search of a table of descriptions. */
extern int UNW_OBJ(dwarf_search_unwind_table)(unw_addr_space_t space, unw_word_t ip,
					      unw_dyn_info_t *table, unw_proc_info_t *ret,
					      int with_details, void *data);

struct libunwind_unwinder {
	struct target *target;
	struct stack_memory *memory;
	struct cfi_finder *finder;
	unw_addr_space_t space;
	uint64_t regs[REGISTERS]; /* of the frame at work; its PC is what is looked up */
	uint64_t row;		  /* of the table: where the description is */
	bool is_searching;
	bool is_guessed; /* the frame at work: by a frame pointer */
	unsigned reads;
};

/* ---- the address space ---- */

static int access_mem(unw_addr_space_t space, unw_word_t address, unw_word_t *value, int write,
		      void *data)
{
	struct libunwind_unwinder *unwinder = data;

	if (write || unwinder->reads++ > READS_MAX)
		return -UNW_EINVAL;
	if (address == TABLE_ADDRESS) {
		*value = unwinder->row;
		return 0;
	}
	if (cfi_read(unwinder->finder, address, value))
		return 0;
	/* What a description points to, as for exceptions, does not matter. */
	if (unwinder->is_searching) {
		*value = 0;
		return 0;
	}
	return stack_memory_read(unwinder->memory, address, 8, value) ? 0 : -UNW_EINVAL;
}

static int access_reg(unw_addr_space_t space, unw_regnum_t reg, unw_word_t *value, int write,
		      void *data)
{
	const struct libunwind_unwinder *unwinder = data;

	if (write || reg < 0 || reg >= REGISTERS)
		return -UNW_EBADREG;
	*value = unwinder->regs[reg];
	return 0;
}

static int access_fpreg(unw_addr_space_t space, unw_regnum_t reg, unw_fpreg_t *value, int write,
			void *data)
{
	return -UNW_EBADREG;
}

static int get_dyn_info_list_addr(unw_addr_space_t space, unw_word_t *ret, void *data)
{
	return -UNW_ENOINFO;
}

static void put_unwind_info(unw_addr_space_t space, unw_proc_info_t *info, void *data)
{
}

static int resume(unw_addr_space_t space, unw_cursor_t *cursor, void *data)
{
	return -UNW_EINVAL;
}

/* Gives libunwind a table of one row, in the form of .eh_frame_hdr: offsets from the function. */
static int find_proc_info(unw_addr_space_t space, unw_word_t ip, unw_proc_info_t *info,
			  int with_details, void *data)
{
	struct libunwind_unwinder *unwinder = data;
	struct cfi_function function;
	unw_dyn_info_t table = { .format = UNW_INFO_FORMAT_REMOTE_TABLE };
	int64_t offset;
	int result;

	if (!cfi_find(unwinder->finder, ip, &function) || !function.is_usual)
		return -UNW_EINVAL;
	offset = (int64_t)(function.fde - function.start);
	if (offset != (int32_t)offset || function.end - function.start > INT32_MAX)
		return -UNW_EINVAL;
	unwinder->row = (uint64_t)(uint32_t)offset << 32;
	table.start_ip = function.start;
	table.end_ip = function.end;
	table.u.rti.segbase = function.start;
	table.u.rti.table_data = TABLE_ADDRESS;
	table.u.rti.table_len = 1;
	unwinder->is_searching = true;
	result = UNW_OBJ(dwarf_search_unwind_table)(space, ip, &table, info, with_details, data);
	unwinder->is_searching = false;
	/* Other errors would make it guess. */
	return result < 0 || info->start_ip != function.start ? -UNW_EINVAL : 0;
}

static unw_accessors_t accessors = {
	.find_proc_info = find_proc_info,
	.put_unwind_info = put_unwind_info,
	.get_dyn_info_list_addr = get_dyn_info_list_addr,
	.access_mem = access_mem,
	.access_reg = access_reg,
	.access_fpreg = access_fpreg,
	.resume = resume,
};

struct error *libunwind_unwinder_create(struct target *target, struct stack_memory *memory,
					struct libunwind_unwinder **ret)
{
	struct libunwind_unwinder *unwinder;
	struct error *error;

	if (target->arch != arch_native() || target->arch != &arch_x86_64) {
		*ret = NULL;
		return NULL;
	}
	unwinder = calloc(1, sizeof(*unwinder));
	if (!unwinder)
		return &error_no_memory;
	unwinder->target = target;
	unwinder->memory = memory;
	error = cfi_finder_create(target, &unwinder->finder);
	if (!error) {
		unwinder->space = unw_create_addr_space(&accessors, 0);
		if (!unwinder->space)
			error = &error_no_memory;
	}
	if (error) {
		libunwind_unwinder_destroy(unwinder);
		return error;
	}
	unw_set_caching_policy(unwinder->space, UNW_CACHE_GLOBAL);
	unw_set_cache_size(unwinder->space, CACHE_SIZE, 0);
	*ret = unwinder;
	return NULL;
}

void libunwind_unwinder_destroy(struct libunwind_unwinder *unwinder)
{
	if (!unwinder)
		return;
	if (unwinder->space)
		unw_destroy_addr_space(unwinder->space);
	cfi_finder_destroy(unwinder->finder);
	free(unwinder);
}

/* ---- from a frame to its caller ---- */

enum step {
	STEP_CALLER, /* unwinder->regs are the caller's */
	STEP_END,    /* nobody called */
	STEP_CUT,    /* the caller cannot be found */
};

/* By the call frame information of @lookup, which is there. */
static enum step step_by_cfi(struct libunwind_unwinder *unwinder, uint64_t lookup)
{
	uint64_t callers[REGISTERS];
	unw_cursor_t cursor;
	int result;

	unwinder->regs[PC] = lookup;
	result = unw_init_remote(&cursor, unwinder->space, unwinder);
	if (result == 0)
		result = unw_step(&cursor);
	if (result < 0) {
		log_debug("libunwind: no caller of %#llx: %s", (unsigned long long)lookup,
			  unw_strerror(result));
		return STEP_CUT;
	}
	if (result == 0)
		return STEP_END;
	for (int reg = 0; reg < REGISTERS; reg++) {
		unw_word_t value;

		callers[reg] = unw_get_reg(&cursor, reg, &value) == 0 ? value : 0;
	}
	memcpy(unwinder->regs, callers, sizeof(callers));
	return callers[PC] ? STEP_CALLER : STEP_END;
}

/* By the frame that the kernel wrote, where @pc returns from a signal without telling so. */
static bool step_by_signal_frame(struct libunwind_unwinder *unwinder, uint64_t pc)
{
	const struct arch *arch = unwinder->target->arch;
	uint8_t code[sizeof(arch->signal_frames->code)];

	for (const struct arch_signal_frame *frame = arch->signal_frames; frame->code_size;
	     frame++) {
		/* Returning to @pc has taken the word off the stack that the frame begins with. */
		uint64_t at =
			unwinder->regs[SP] - 8 + frame->sp - 8 * (uint64_t)arch->signal_sp_index;
		uint64_t callers[REGISTERS];
		bool good = stack_memory_constant(unwinder->memory, pc, code, frame->code_size) &&
			    !memcmp(code, frame->code, frame->code_size);

		for (unsigned i = 0; good && i < REGISTERS; i++)
			good = stack_memory_copied(unwinder->memory, at + 8 * (uint64_t)i, 8,
						   &callers[arch->signal_registers[i]]);
		if (!good)
			continue;
		memcpy(unwinder->regs, callers, sizeof(callers));
		return true;
	}
	return false;
}

/*
 * An entry of a procedure linkage table: linkers other than GNU's describe none. `jmp *N(%rip)`,
 * with or without endbr64 and bnd in front. @words of it lie on the stack already: `push $N; jmp`
 * is interrupted in front of either.
 */
static bool is_in_plt(struct libunwind_unwinder *unwinder, uint64_t pc, unsigned *words)
{
	static const uint8_t endbr64[] = { 0xf3, 0x0f, 0x1e, 0xfa };
	uint8_t code[16];
	const uint8_t *at = code + 5;

	/* From 5 bytes before, where the push is if it has been done. */
	if (!stack_memory_constant(unwinder->memory, pc - 5, code, sizeof(code)))
		return false;
	*words = at[0] == 0xe9 && code[0] == 0x68;
	if (*words || (at[0] == 0x68 && at[5] == 0xe9))
		return true;
	at += memcmp(at, endbr64, sizeof(endbr64)) ? 0 : sizeof(endbr64);
	at += *at == 0xf2;
	return at[0] == 0xff && at[1] == 0x25;
}

/* @words lie above the return address. */
static enum step step_by_stack_pointer(struct libunwind_unwinder *unwinder, unsigned words)
{
	uint64_t at = unwinder->regs[SP] + 8 * (uint64_t)words;

	if (!stack_memory_copied(unwinder->memory, at, 8, &unwinder->regs[PC]))
		return STEP_CUT;
	unwinder->regs[SP] = at + 8;
	return STEP_CALLER;
}

/* Without call frame information: code that was compiled at run time keeps frame pointers. */
static enum step step_by_frame_pointer(struct libunwind_unwinder *unwinder)
{
	uint64_t *regs = unwinder->regs;
	uint64_t bp = regs[BP], saved, pc;

	/* The first of a chain of frame pointers. Code without them may have any number there. */
	if (!bp && unwinder->is_guessed && !cfi_is_described(unwinder->finder))
		return STEP_END;
	if (bp < regs[SP] || bp % 8 || !stack_memory_copied(unwinder->memory, bp, 8, &saved) ||
	    !stack_memory_copied(unwinder->memory, bp + 8, 8, &pc))
		return STEP_CUT;
	regs[BP] = saved;
	regs[SP] = bp + 16;
	regs[PC] = pc;
	unwinder->is_guessed = true;
	return pc ? STEP_CALLER : STEP_END;
}

static enum step step_without_cfi(struct libunwind_unwinder *unwinder, bool is_activation)
{
	uint64_t pc = unwinder->regs[PC];
	unsigned words;

	/* A call to where no code is: nothing has run there. */
	if (is_activation && !stack_memory_is_code(unwinder->memory, pc))
		return step_by_stack_pointer(unwinder, 0);
	if (is_activation && is_in_plt(unwinder, pc, &words))
		return step_by_stack_pointer(unwinder, words);
	return step_by_frame_pointer(unwinder);
}

/* *@is_activation: the frame was interrupted at its PC; then that of its caller. */
static enum step step(struct libunwind_unwinder *unwinder, bool *is_activation)
{
	uint64_t pc = unwinder->regs[PC];
	uint64_t lookup = *is_activation ? pc : pc - 1;
	bool was_activation = *is_activation;
	struct cfi_function function;
	bool is_found = cfi_find(unwinder->finder, lookup, &function);

	*is_activation = true;
	if ((!is_found || (!was_activation && function.end == pc)) &&
	    step_by_signal_frame(unwinder, pc))
		return STEP_CALLER;
	*is_activation = is_found && function.is_signal;
	if (!is_found)
		return step_without_cfi(unwinder, was_activation);
	unwinder->is_guessed = false;
	return function.is_usual ? step_by_cfi(unwinder, lookup) : STEP_CUT;
}

struct error *libunwind_unwind(struct libunwind_unwinder *unwinder, struct frame_vec *frames)
{
	const struct user_regs_struct *state = &unwinder->memory->state->regs;
	const struct arch_register *reg = unwinder->target->arch->registers;
	uint64_t *regs = unwinder->regs;
	enum step result = STEP_CALLER;
	bool is_activation = true;
	struct error *error;

	for (; reg->number >= 0; reg++)
		if (reg->number < REGISTERS)
			regs[reg->number] = load_word((const char *)state + reg->offset, 8);
	unwinder->reads = 0;
	unwinder->is_guessed = false;
	for (size_t count = 1; result == STEP_CALLER; count++) {
		struct frame frame = {
			.pc = regs[PC],
			.is_activation = is_activation,
			.is_guessed = unwinder->is_guessed,
		};
		uint64_t sp = regs[SP];

		error = frame_vec_append(frames, &frame);
		if (error)
			return error;
		result = count < UNWIND_FRAMES_MAX ? step(unwinder, &is_activation) : STEP_CUT;
		if (result == STEP_CALLER &&
		    ((regs[PC] == frame.pc && regs[SP] <= sp) ||
		     (!is_activation && !stack_memory_is_code(unwinder->memory, regs[PC]))))
			result = STEP_CUT;
		if (result == STEP_CALLER)
			frames->data[frames->size - 1].cfa = regs[SP];
		/* A handler has no call in front of where it returns to. */
		frames->data[frames->size - 1].is_activation |= is_activation;
	}
	frames->data[frames->size - 1].is_cut = result == STEP_CUT;
	return NULL;
}
