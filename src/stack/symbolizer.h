/*
 * symbolizer.h - what the files of this folder share: one libdwfl session over a target's modules.
 */
#ifndef MEMPROBE_STACK_SYMBOLIZER_H
#define MEMPROBE_STACK_SYMBOLIZER_H

#include <elfutils/libdwfl.h>

#include "memprobe/perf_map.h"
#include "memprobe/map64.h"
#include "memprobe/symbols.h"

VEC_DEFINE(symbols_vec, struct symbol_vec)

/* Where libdwfl's callbacks find the bytes of a module. */
struct module_source {
	struct target *target;
	size_t index; /* into target->modules */
};

struct symbolizer {
	struct target *target;
	Dwfl *dwfl;
	Dwfl_Callbacks callbacks;
	char *debuginfo_path;	       /* libdwfl wants the address of a variable */
	struct module_source *sources; /* one for each module */
	struct perf_map *jit;	       /* NULL: none, or not asked for yet */
	bool jit_known;
	/* What addresses were found to be: threads share most of their frames, and inlined
	 * functions take milliseconds. By address and kind to places in @found. */
	struct map64 known;
	struct symbols_vec found;
};

/* Opens symbolizer->dwfl over the modules of symbolizer->target. */
struct error *symbolizer_open(struct symbolizer *symbolizer);

/* The target's module behind one of libdwfl's. */
const struct module *symbolizer_module(Dwfl_Module *module);

/*
 * Appends the functions inlined at @address (in the target), innermost first, each with the line
 * reached in it. *@outer has the line of the innermost when called, and on return the line reached
 * in the function around them all. Nothing happens where the module has no DWARF.
 */
struct error *append_inlined(Dwfl_Module *module, uint64_t address, struct symbol_vec *symbols,
			     struct symbol *outer);

#endif
