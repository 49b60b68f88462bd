#include "cfa_program.h"

#include <dwarf.h>

#define WORD 8

/* In words. */
#define SP_OFFSET_MAX ((1 << 20) - 1)

/* An offset in words, or false. */
static bool in_words(int64_t offset, int64_t low, int64_t high, int64_t *ret)
{
	if (offset % WORD || offset / WORD < low || offset / WORD > high)
		return false;
	*ret = offset / WORD;
	return true;
}

/* DW_OP_bregN offset, which begins most expressions. */
static bool take_register(struct cursor *cursor, unsigned *reg, int64_t *offset)
{
	uint64_t op = cursor_number(cursor, 1);

	if (op < DW_OP_breg0 || op > DW_OP_breg31)
		return false;
	*reg = op - DW_OP_breg0;
	*offset = cursor_sleb(cursor);
	return !cursor->failed;
}

static bool take_ops(struct cursor *cursor, const uint8_t *ops, size_t count)
{
	for (size_t i = 0; i < count; i++)
		if (cursor_number(cursor, 1) != ops[i])
			return false;
	return !cursor->failed;
}

static struct cursor expression_cursor(const struct cfa_expression *expression)
{
	return (struct cursor){ expression->bytes, expression->bytes + expression->size, false };
}

/* Just a register and an offset. */
static bool is_address(const struct cfa_place *place, unsigned reg, int64_t *offset)
{
	struct cursor cursor = expression_cursor(&place->expression);
	unsigned found;

	return place->how == CFA_EXPRESSION && take_register(&cursor, &found, offset) &&
	       found == reg && cursor.at == cursor.end;
}

/* The same, loaded, and something added. */
static bool is_load(const struct cfa_place *place, unsigned *reg, int64_t *offset, uint64_t *added)
{
	struct cursor cursor = expression_cursor(&place->expression);

	if (!take_register(&cursor, reg, offset) || cursor_number(&cursor, 1) != DW_OP_deref)
		return false;
	*added = 0;
	if (cursor.at == cursor.end)
		return true;
	if (cursor_number(&cursor, 1) != DW_OP_plus_uconst)
		return false;
	*added = cursor_uleb(&cursor);
	return !cursor.failed && cursor.at == cursor.end;
}

/*
 * What GNU ld and its like write for .plt: rsp + 8 + ((rip & 15) >= N) * 8. The entry has pushed a
 * number by then.
 */
static uint32_t plt_rule(const struct cfa_place *place)
{
	static const uint8_t mask[] = { DW_OP_lit15, DW_OP_and };
	static const uint8_t rest[] = { DW_OP_ge, DW_OP_lit3, DW_OP_shl, DW_OP_plus };
	struct cursor cursor = expression_cursor(&place->expression);
	int64_t offset, words, zero;
	unsigned reg, pc;
	uint64_t limit;

	if (!take_register(&cursor, &reg, &offset) || reg != DWARF_RSP ||
	    !in_words(offset, 1, INT16_MAX, &words) || !take_register(&cursor, &pc, &zero) ||
	    pc != DWARF_RA || zero || !take_ops(&cursor, mask, sizeof(mask)))
		return 0;
	limit = cursor_number(&cursor, 1) - DW_OP_lit0;
	if (limit > 15 || !take_ops(&cursor, rest, sizeof(rest)) || cursor.at != cursor.end)
		return 0;
	return UNWIND_RULE(UNWIND_PLT, words, 0, limit);
}

/* How rbp (or rbx) is saved: below the CFA, or (@relative) at an address counted from rbp. */
static bool slot_of(const struct cfa_place *place, bool relative, unsigned max, unsigned *ret)
{
	int64_t offset, words;

	switch (place->how) {
	case CFA_SAME:
	case CFA_UNDEFINED:
		*ret = 0;
		return true;
	case CFA_OFFSET:
		if (relative || !in_words(place->offset, -(int64_t)max, -1, &words))
			return false;
		*ret = -words;
		return true;
	case CFA_EXPRESSION:
		if (!relative || !is_address(place, DWARF_RBP, &offset) ||
		    !in_words(offset, 1 - (int64_t)max, 0, &words))
			return false;
		*ret = 1 - words;
		return true;
	default:
		return false;
	}
}

static unsigned extra_of(const struct cfa_place *bx, bool relative)
{
	unsigned slot;

	return slot_of(bx, relative, UNWIND_EXTRA_MAX, &slot) ? slot : UNWIND_EXTRA_UNKNOWN;
}

static uint32_t register_rule(const struct cfa_state *state)
{
	const struct cfa_place *cfa = &state->cfa;
	int64_t words;
	unsigned slot;

	switch (cfa->reg) {
	case DWARF_RSP:
		if (!in_words(cfa->offset, 1, SP_OFFSET_MAX, &words) ||
		    !slot_of(&state->bp, false, UNWIND_BP_MAX, &slot))
			return 0;
		if (words > UINT16_MAX)
			return UNWIND_RULE(UNWIND_PLT, words, slot, words >> 16 | UNWIND_EXTRA_FAR);
		return UNWIND_RULE(UNWIND_SP, words, slot, extra_of(&state->bx, false));
	case DWARF_RBP:
		if (!in_words(cfa->offset, INT16_MIN, INT16_MAX, &words) ||
		    !slot_of(&state->bp, false, UNWIND_BP_MAX, &slot))
			return 0;
		return UNWIND_RULE(UNWIND_BP, words, slot, extra_of(&state->bx, false));
	default:
		if (cfa->reg >= DWARF_RA || !in_words(cfa->offset, INT16_MIN, INT16_MAX, &words))
			return 0;
		if (slot_of(&state->bp, false, UNWIND_BP_MAX, &slot))
			return UNWIND_RULE(UNWIND_REGISTER, words, slot, cfa->reg);
		if (slot_of(&state->bp, true, UNWIND_BP_MAX, &slot))
			return UNWIND_RULE(UNWIND_REGISTER, words, slot,
					   cfa->reg | UNWIND_EXTRA_RELATIVE);
		return 0;
	}
}

static uint32_t expression_rule(const struct cfa_state *state)
{
	unsigned reg, slot;
	uint64_t added;
	int64_t offset, words;

	if (!is_load(&state->cfa, &reg, &offset, &added))
		return slot_of(&state->bp, false, 0, &slot) ? plt_rule(&state->cfa) : 0;
	if (reg == DWARF_RBP && !added && in_words(offset, INT16_MIN, INT16_MAX, &words) &&
	    slot_of(&state->bp, true, UNWIND_BP_MAX, &slot))
		return UNWIND_RULE(UNWIND_BP_LOAD, words, slot, extra_of(&state->bx, true));
	if (reg == DWARF_RSP && added % WORD == 0 && added / WORD <= 31 &&
	    in_words(offset, 0, UINT16_MAX, &words) &&
	    slot_of(&state->bp, false, UNWIND_BP_MAX, &slot))
		return UNWIND_RULE(UNWIND_SP_LOAD, words, slot, added / WORD);
	return 0;
}

/* glibc's __restore_rt: every register lies in the frame, as the kernel has put it there. */
static uint32_t signal_rule(const struct cfa_state *state)
{
	int64_t place, ra, bp, words;
	unsigned reg;
	uint64_t added;

	if (state->cfa.how != CFA_EXPRESSION || !is_load(&state->cfa, &reg, &place, &added) ||
	    reg != DWARF_RSP || added || !in_words(place, 0, UINT16_MAX, &words))
		return 0;
	if (!is_address(&state->ra, DWARF_RSP, &ra) || ra != place + UNWIND_SIGNAL_RIP ||
	    !is_address(&state->bp, DWARF_RSP, &bp) || bp != place + UNWIND_SIGNAL_RBP)
		return 0;
	return UNWIND_RULE(UNWIND_SIGNAL, words, 0, 0);
}

uint32_t cfa_rule(const struct cie *cie, const struct cfa_state *state)
{
	uint32_t rule = 0;

	if (state->ra.how == CFA_UNDEFINED)
		return UNWIND_RULE_END;
	if (cie->is_signal && state->ra.how == CFA_EXPRESSION)
		rule = signal_rule(state);
	else if (state->ra.how == CFA_OFFSET && state->ra.offset == -WORD)
		rule = state->cfa.how == CFA_OFFSET	  ? register_rule(state)
		       : state->cfa.how == CFA_EXPRESSION ? expression_rule(state)
							  : 0;
	return rule ? rule : UNWIND_RULE_UNSUPPORTED;
}
