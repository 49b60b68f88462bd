/*
 * cfa_program.h - runs the programs of call frame information (DWARF 5, 6.4.2), as far as the
 * unwind table of x86-64 wants to know: CFA, return address, rbp, rbx.
 */
#ifndef MEMPROBE_STACK_CFA_PROGRAM_H
#define MEMPROBE_STACK_CFA_PROGRAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/unwind_abi.h"

/* DWARF's numbers of x86-64 registers (System V ABI AMD64, figure 3.36). */
enum { DWARF_RBX = 3, DWARF_RBP = 6, DWARF_RSP = 7, DWARF_RA = 16 };

/* ---- bytes, read in order; once something is missing all reads give 0 ---- */

struct cursor {
	const uint8_t *at, *end;
	bool failed;
};

/* @size of at most 8, little endian. */
uint64_t cursor_number(struct cursor *cursor, unsigned size);
uint64_t cursor_uleb(struct cursor *cursor);
int64_t cursor_sleb(struct cursor *cursor);
/* NULL: there are not as many. */
const uint8_t *cursor_bytes(struct cursor *cursor, uint64_t size);

/* ---- state ---- */

struct cfa_expression {
	const uint8_t *bytes;
	size_t size;
};

enum cfa_how {
	CFA_SAME, /* of the CFA itself: not defined yet */
	CFA_UNDEFINED,
	CFA_OFFSET, /* saved at CFA + offset; the CFA is its register + offset */
	CFA_EXPRESSION,
	CFA_OTHER, /* anything else */
};

struct cfa_place {
	enum cfa_how how;
	uint64_t reg; /* of the CFA */
	int64_t offset;
	struct cfa_expression expression;
};

struct cfa_state {
	struct cfa_place cfa, ra, bp, bx;
};

/* What a common information entry (CIE) says. */
struct cie {
	uint64_t position; /* in .eh_frame */
	uint64_t code_align;
	int64_t data_align;
	uint64_t ra_register;
	uint8_t pointer_encoding;
	bool has_augmentation, is_signal;
	bool bad;
	bool unusual; /* see cfa_is_usual() */
	struct cfa_state initial;
};

/* The rule of a state. */
uint32_t cfa_rule(const struct cie *cie, const struct cfa_state *state);

/* ---- rows ---- */

struct row_sink {
	struct unwind_row *rows;
	size_t count, capacity;
	bool full;
};

/* @offset is not below that of the last row. */
void row_sink_add(struct row_sink *sink, uint64_t offset, uint32_t rule);

/* A function; its addresses are offsets from text_start. */
struct cfa_function {
	const struct cie *cie;
	uint64_t start, end;
	uint64_t text_start;
};

/* The initial instructions of a CIE: fills cie->initial. False: they make no sense. */
bool cfa_run_initial(struct cie *cie, struct cursor program);

/* False: it makes no sense from some address on; the rows there say UNWIND_RULE_UNSUPPORTED. */
bool cfa_run(const struct cfa_function *function, struct cursor program, struct row_sink *sink);

/*
 * Whether other unwinders read the program as it is read here, and nothing in it can make them
 * loop, divide or reach beyond their arrays: known operations on the registers of the table's
 * columns, and expressions that only add, mask, compare and load.
 */
bool cfa_is_usual(const struct cfa_function *function, struct cursor program);

/* The same of one expression. */
bool cfa_expression_is_usual(const uint8_t *bytes, size_t size);

#endif
