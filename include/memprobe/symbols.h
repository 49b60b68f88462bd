/*
 * symbols.h - names for code addresses of a target.
 *
 * By libdwfl over the target's modules: .symtab, .dynsym, .gnu_debugdata, and debug files below
 * /usr/lib/debug found by build-id; from a debuginfod server only if the environment names one
 * (DEBUGINFOD_URLS). The modules' bytes come from the target, so that deleted files and files of
 * other mount namespaces have names, too. DWARF is opened when the first address of its module is
 * asked for. Code outside of all modules has the names of the target's perf map, which is read when
 * the first such address is asked for. None of it needs the target to be stopped, or alive.
 */
#ifndef MEMPROBE_SYMBOLS_H
#define MEMPROBE_SYMBOLS_H

#include <stdbool.h>
#include <stdint.h>

#include "memprobe/target.h"
#include "memprobe/vec.h"

struct symbol {
	char *function; /* owned; demangled; NULL: unknown */
	/* From the function's start; from the module's base address (its bias) with no function. */
	uint64_t offset;
	const char *module; /* path as the target sees it; the target owns it; NULL: in none */
	char *file;	    /* owned; NULL: no line information */
	unsigned line;
	bool inlined; /* into the next symbol of the vector */
};

VEC_DEFINE(symbol_vec, struct symbol)

/* Frees what the symbols own, too. */
void symbols_deinit(struct symbol_vec *symbols);

struct symbolizer;

/* @target must outlive it. */
struct error *symbolizer_create(struct target *target, struct symbolizer **ret);
void symbolizer_destroy(struct symbolizer *symbolizer);
CLEANUP_DEFINE(symbolizer, struct symbolizer *, symbolizer_destroy)

/*
 * Appends what @pc lies in: functions inlined there first, innermost to outermost, then the
 * function itself; at least one symbol. @is_return: @pc is a return address, so that the call in
 * front of it is what is looked up. Offsets count from @pc in either case.
 */
struct error *symbolize(struct symbolizer *symbolizer, uint64_t pc, bool is_return,
			struct symbol_vec *symbols);

/*
 * The name, as the symbol table has it, of the function or data that @address lies in, and the
 * offset into it. The caller frees it; NULL: there is none.
 */
struct error *symbolizer_name(struct symbolizer *symbolizer, uint64_t address, char **ret,
			      uint64_t *offset_ret);

/* What a module has at an address of its data. */
struct data_symbol {
	char *name;	    /* owned; demangled; NULL: no variable is known there */
	uint64_t offset;    /* into the variable */
	char *section;	    /* owned; NULL: unknown */
	const char *module; /* path as the target sees it; the target owns it */
};

/* ret->module NULL: @address is in no module. */
struct error *symbolizer_data(struct symbolizer *symbolizer, uint64_t address,
			      struct data_symbol *ret);
void data_symbol_deinit(struct data_symbol *symbol);

/*
 * A C++, Rust or D name as its programmer wrote it; a copy of @name if it is none of these, or
 * its expansion is beyond all measure. The caller frees it; NULL: out of memory.
 */
char *demangle(const char *name);

#endif
