#include "cfa_program.h"

#include <dwarf.h>
#include <string.h>

#include "memprobe/num.h"

/* States that one program may remember at a time; compilers use one or two. */
#define REMEMBER_MAX 16

/* Bytes of an expression that compilers and assemblers write: some 10. */
#define CFA_EXPRESSION_MAX 256

/* ---- bytes ---- */

uint64_t cursor_number(struct cursor *cursor, unsigned size)
{
	const uint8_t *bytes = cursor_bytes(cursor, size);

	return bytes ? load_word(bytes, size) : 0;
}

const uint8_t *cursor_bytes(struct cursor *cursor, uint64_t size)
{
	const uint8_t *bytes = cursor->at;

	if (cursor->failed || size > (uint64_t)(cursor->end - cursor->at)) {
		cursor->failed = true;
		return NULL;
	}
	cursor->at += size;
	return bytes;
}

/* The bits, the number of them, and whether the last byte said that the number is negative. Bits
 * beyond 64 are lost. */
static uint64_t take_leb(struct cursor *cursor, unsigned *bits, bool *negative)
{
	uint64_t value = 0;
	uint8_t byte = 0x80;

	*bits = 0;
	while (byte & 0x80) {
		if (cursor->failed || cursor->at == cursor->end) {
			cursor->failed = true;
			return 0;
		}
		byte = *cursor->at++;
		if (*bits < 64)
			value |= (uint64_t)(byte & 0x7f) << *bits;
		*bits += *bits < 64 ? 7 : 0;
	}
	*negative = byte & 0x40;
	return value;
}

uint64_t cursor_uleb(struct cursor *cursor)
{
	unsigned bits;
	bool negative;

	if (!cursor->failed && cursor->at < cursor->end && !(*cursor->at & 0x80))
		return *cursor->at++;
	return take_leb(cursor, &bits, &negative);
}

int64_t cursor_sleb(struct cursor *cursor)
{
	unsigned bits;
	bool negative = false;
	uint64_t value = take_leb(cursor, &bits, &negative);

	if (negative && bits < 64)
		value |= -1ull << bits;
	return value;
}

/* ---- rows ---- */

void row_sink_add(struct row_sink *sink, uint64_t offset, uint32_t rule)
{
	struct unwind_row *last = sink->rows + sink->count - 1;

	if (sink->count && last->offset == offset) {
		sink->count--;
		last--;
	}
	if (sink->count && last->rule == rule)
		return;
	if (sink->count == sink->capacity) {
		sink->full = true;
		return;
	}
	sink->rows[sink->count++] = (struct unwind_row){ offset, rule };
}

/* ---- programs ---- */

struct machine {
	const struct cie *cie;
	struct cfa_state state;
	const struct cfa_state *initial; /* what DW_CFA_restore gives back; NULL: nothing */
	struct cfa_state remembered[REMEMBER_MAX];
	unsigned depth;
	struct cursor program;
	/* Of a function; NULL: of a CIE, which has no address. */
	const struct cfa_function *function;
	uint64_t pc;
	struct row_sink *sink; /* NULL: rows are not wanted */
	bool unusual;
};

static struct cfa_place *place_of(struct cfa_state *state, uint64_t ra_register, uint64_t reg)
{
	if (reg == ra_register)
		return &state->ra;
	return reg == DWARF_RBP ? &state->bp : reg == DWARF_RBX ? &state->bx : NULL;
}

static void set_place(struct machine *machine, uint64_t reg, struct cfa_place value)
{
	struct cfa_place *place = place_of(&machine->state, machine->cie->ra_register, reg);

	if (place)
		*place = value;
}

/* Numbers of any size come: they wrap around, and are looked at when a rule is made. */
static void set_offset(struct machine *machine, uint64_t reg, uint64_t factored)
{
	uint64_t offset = factored * (uint64_t)machine->cie->data_align;

	set_place(machine, reg, (struct cfa_place){ .how = CFA_OFFSET, .offset = (int64_t)offset });
}

static bool restore(struct machine *machine, uint64_t reg)
{
	struct cfa_place *place = place_of(&machine->state, machine->cie->ra_register, reg);

	if (!machine->initial)
		return false;
	if (place)
		*place = *place_of((struct cfa_state *)machine->initial, machine->cie->ra_register,
				   reg);
	return true;
}

/* The rows of what has been said so far end at @pc. */
static bool go_to(struct machine *machine, uint64_t pc)
{
	if (!machine->function || pc < machine->pc)
		return false;
	machine->unusual |= pc > machine->pc && machine->state.cfa.how == CFA_SAME;
	if (pc > machine->pc && machine->sink)
		row_sink_add(machine->sink, machine->pc, cfa_rule(machine->cie, &machine->state));
	machine->pc = pc;
	return true;
}

static bool advance(struct machine *machine, uint64_t delta)
{
	uint64_t bytes, pc;

	if (__builtin_mul_overflow(delta, machine->cie->code_align, &bytes) ||
	    __builtin_add_overflow(machine->pc, bytes, &pc))
		return false;
	return go_to(machine, pc);
}

static bool set_loc(struct machine *machine)
{
	/* Absolute is the only form that needs no address of the place itself, and nobody writes
	 * any. */
	if (machine->cie->pointer_encoding != DW_EH_PE_absptr || !machine->function)
		return false;
	return go_to(machine, cursor_number(&machine->program, 8) - machine->function->text_start);
}

static bool take_expression(struct machine *machine, struct cfa_place *place)
{
	uint64_t size = cursor_uleb(&machine->program);
	const uint8_t *bytes = cursor_bytes(&machine->program, size);

	machine->unusual |= bytes && !cfa_expression_is_usual(bytes, size);
	*place = (struct cfa_place){ .how = CFA_EXPRESSION, .expression = { bytes, size } };
	return bytes;
}

static bool remember(struct machine *machine)
{
	if (machine->depth == REMEMBER_MAX)
		return false;
	machine->remembered[machine->depth++] = machine->state;
	return true;
}

static bool recall(struct machine *machine)
{
	if (!machine->depth)
		return false;
	machine->state = machine->remembered[--machine->depth];
	return true;
}

/* DW_CFA_def_cfa and its kin; false: the CFA has no register to change. */
static bool define_cfa(struct machine *machine, uint8_t op)
{
	struct cfa_place *cfa = &machine->state.cfa;
	struct cursor *program = &machine->program;
	uint64_t factor = machine->cie->data_align;

	switch (op) {
	case DW_CFA_def_cfa:
	case DW_CFA_def_cfa_sf:
		*cfa = (struct cfa_place){ .how = CFA_OFFSET };
		cfa->reg = cursor_uleb(program);
		machine->unusual |= cfa->reg > DWARF_RA;
		break;
	case DW_CFA_def_cfa_register:
		cfa->reg = cursor_uleb(program);
		machine->unusual |= cfa->reg > DWARF_RA;
		return cfa->how == CFA_OFFSET;
	}
	if (op == DW_CFA_def_cfa_sf || op == DW_CFA_def_cfa_offset_sf)
		cfa->offset = (uint64_t)cursor_sleb(program) * factor;
	else
		cfa->offset = cursor_uleb(program);
	return cfa->how == CFA_OFFSET;
}

/* Where a register is saved. */
static bool define_register(struct machine *machine, uint8_t op)
{
	struct cursor *program = &machine->program;
	uint64_t reg = cursor_uleb(program);
	struct cfa_place place = { .how = CFA_OTHER };

	machine->unusual |= reg > DWARF_RA;
	switch (op) {
	case DW_CFA_offset_extended:
		set_offset(machine, reg, cursor_uleb(program));
		return true;
	case DW_CFA_offset_extended_sf:
		set_offset(machine, reg, cursor_sleb(program));
		return true;
	case DW_CFA_GNU_negative_offset_extended:
		set_offset(machine, reg, -cursor_uleb(program));
		return true;
	case DW_CFA_restore_extended:
		return restore(machine, reg);
	case DW_CFA_undefined:
		place.how = CFA_UNDEFINED;
		break;
	case DW_CFA_same_value:
		place.how = CFA_SAME;
		break;
	case DW_CFA_register:
		machine->unusual |= cursor_uleb(program) > DWARF_RA;
		break;
	case DW_CFA_val_offset:
		cursor_uleb(program);
		machine->unusual = true;
		break;
	case DW_CFA_val_offset_sf:
		cursor_sleb(program);
		machine->unusual = true;
		break;
	case DW_CFA_expression:
	case DW_CFA_val_expression:
		if (!take_expression(machine, &place))
			return false;
		if (op == DW_CFA_val_expression)
			place.how = CFA_OTHER;
		break;
	default:
		return false;
	}
	set_place(machine, reg, place);
	return true;
}

static bool run_extended(struct machine *machine, uint8_t op)
{
	struct cursor *program = &machine->program;

	switch (op) {
	case DW_CFA_nop:
		return true;
	case DW_CFA_set_loc:
		return set_loc(machine);
	case DW_CFA_advance_loc1:
		return advance(machine, cursor_number(program, 1));
	case DW_CFA_advance_loc2:
		return advance(machine, cursor_number(program, 2));
	case DW_CFA_advance_loc4:
		return advance(machine, cursor_number(program, 4));
	case DW_CFA_MIPS_advance_loc8:
		machine->unusual = true;
		return advance(machine, cursor_number(program, 8));
	case DW_CFA_remember_state:
		return remember(machine);
	case DW_CFA_restore_state:
		return recall(machine);
	case DW_CFA_def_cfa:
	case DW_CFA_def_cfa_sf:
	case DW_CFA_def_cfa_register:
	case DW_CFA_def_cfa_offset:
	case DW_CFA_def_cfa_offset_sf:
		return define_cfa(machine, op);
	case DW_CFA_def_cfa_expression:
		return take_expression(machine, &machine->state.cfa);
	case DW_CFA_GNU_args_size:
		cursor_uleb(program);
		return true;
	default:
		return define_register(machine, op);
	}
}

static bool run_one(struct machine *machine)
{
	uint8_t op = *machine->program.at++;
	uint8_t operand = op & 0x3f;

	machine->unusual |= (op & 0xc0) > DW_CFA_advance_loc && operand > DWARF_RA;
	switch (op & 0xc0) {
	case DW_CFA_advance_loc:
		return advance(machine, operand);
	case DW_CFA_offset:
		set_offset(machine, operand, cursor_uleb(&machine->program));
		return true;
	case DW_CFA_restore:
		return restore(machine, operand);
	default:
		return run_extended(machine, op);
	}
}

/* To the end of the program, or of what rows are wanted for. */
static bool run_all(struct machine *machine)
{
	while (machine->program.at < machine->program.end) {
		if (!run_one(machine) || machine->program.failed)
			return false;
		if (machine->function && (machine->pc >= machine->function->end ||
					  (machine->sink && machine->sink->full)))
			return true;
	}
	return true;
}

bool cfa_run_initial(struct cie *cie, struct cursor program)
{
	struct machine machine;

	/* What is remembered needs no value before. */
	memset(&machine, 0, offsetof(struct machine, remembered));
	machine.cie = cie;
	machine.depth = 0;
	machine.program = program;
	machine.function = NULL;
	machine.sink = NULL;
	machine.unusual = false;
	if (!run_all(&machine))
		return false;
	cie->initial = machine.state;
	cie->unusual |= machine.unusual;
	return true;
}

static void begin(struct machine *machine, const struct cfa_function *function,
		  struct cursor program, struct row_sink *sink)
{
	machine->cie = function->cie;
	machine->state = function->cie->initial;
	machine->initial = &function->cie->initial;
	machine->depth = 0;
	machine->program = program;
	machine->function = function;
	machine->pc = function->start;
	machine->sink = sink;
	machine->unusual = function->cie->unusual;
}

bool cfa_run(const struct cfa_function *function, struct cursor program, struct row_sink *sink)
{
	struct machine machine;
	bool good;

	begin(&machine, function, program, sink);
	good = run_all(&machine);
	if (machine.pc < function->end)
		row_sink_add(sink, machine.pc,
			     good ? cfa_rule(machine.cie, &machine.state)
				  : UNWIND_RULE_UNSUPPORTED);
	return good;
}

bool cfa_is_usual(const struct cfa_function *function, struct cursor program)
{
	struct machine machine;

	begin(&machine, function, program, NULL);
	return run_all(&machine) && !machine.unusual && machine.state.cfa.how != CFA_SAME;
}

bool cfa_expression_is_usual(const uint8_t *bytes, size_t size)
{
	struct cursor cursor = { bytes, bytes + size, size > CFA_EXPRESSION_MAX };

	while (!cursor.failed && cursor.at < cursor.end) {
		uint8_t op = *cursor.at++;

		switch (op) {
		case DW_OP_lit0 ... DW_OP_lit31:
		case DW_OP_dup:
		case DW_OP_drop:
		case DW_OP_over:
		case DW_OP_swap:
		case DW_OP_deref:
		case DW_OP_and:
		case DW_OP_or:
		case DW_OP_xor:
		case DW_OP_plus:
		case DW_OP_minus:
		case DW_OP_neg:
		case DW_OP_not:
		case DW_OP_shl:
		case DW_OP_shr:
		case DW_OP_shra:
		case DW_OP_eq ... DW_OP_ne:
		case DW_OP_nop:
			break;
		case DW_OP_breg0 ... DW_OP_breg16:
			cursor_sleb(&cursor);
			break;
		case DW_OP_plus_uconst:
			cursor_uleb(&cursor);
			break;
		case DW_OP_const1u:
		case DW_OP_const1s:
			cursor_number(&cursor, 1);
			break;
		case DW_OP_const2u:
		case DW_OP_const2s:
			cursor_number(&cursor, 2);
			break;
		case DW_OP_const4u:
		case DW_OP_const4s:
			cursor_number(&cursor, 4);
			break;
		default:
			return false;
		}
	}
	return !cursor.failed;
}
