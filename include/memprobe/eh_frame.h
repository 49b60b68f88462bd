/*
 * eh_frame.h - compiles the call frame information of an ELF file to rows of the unwind table.
 *
 * The bytes are .eh_frame as the ABI and DWARF define it (System V ABI AMD64 supplement; Linux
 * Standard Base, "DWARF Extensions"; DWARF 5, 6.4). All of them are foreign: each read is bounded,
 * a program is run once, and what makes no sense is left out and counted.
 */
#ifndef MEMPROBE_EH_FRAME_H
#define MEMPROBE_EH_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/unwind_abi.h"
#include "memprobe/error.h"

struct eh_frame {
	const uint8_t *bytes; /* .eh_frame; what lies behind it may follow, if a terminator ends it
			       */
	size_t size;
	uint64_t address;    /* of bytes, as in the file */
	uint64_t data_base;  /* of DW_EH_PE_datarel */
	uint64_t text_start; /* what the rows are about, as in the file; at most 4 GiB */
	uint64_t text_end;
};

struct eh_frame_counts {
	uint64_t entries;     /* descriptions of functions (FDEs) */
	uint64_t bad;	      /* of these, left out: makes no sense, or is of no known form */
	uint64_t unsupported; /* rows that say more than a rule can */
	bool has_signal;      /* there is a description of a signal's frame */
};

/*
 * Writes rows sorted by offset from text_start, the first at 0, neighbours with different rules;
 * text that nothing describes gets UNWIND_RULE_NO_CFI. ERROR_FAILED: more than @capacity rows.
 */
struct error *eh_frame_compile(const struct eh_frame *eh_frame, struct unwind_row *rows,
			       size_t capacity, size_t *count_ret, struct eh_frame_counts *counts);

/* What describes a function; addresses are as in the file. */
struct eh_frame_function {
	uint64_t start, end;
	uint64_t position; /* of its description (FDE) in eh_frame.bytes */
	bool is_signal;	   /* the frame of a signal: what it was called by was interrupted */
	/* Written in the way that compilers and assemblers write, without anything that could lead
	 * a less careful unwinder astray. */
	bool is_usual;
};

struct eh_frame_index;

/* Keeps @eh_frame->bytes, which must outlive it. What makes no sense is left out. */
struct error *eh_frame_index_create(const struct eh_frame *eh_frame, struct eh_frame_index **ret);
void eh_frame_index_destroy(struct eh_frame_index *index);

/* What describes the code at @address; false: nothing does. */
bool eh_frame_index_find(const struct eh_frame_index *index, uint64_t address,
			 struct eh_frame_function *ret);

#endif
