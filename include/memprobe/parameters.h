/*
 * parameters.h - in which register a function has a parameter, by its debug information.
 */
#ifndef MEMPROBE_PARAMETERS_H
#define MEMPROBE_PARAMETERS_H

#include <stdint.h>

#include "memprobe/symbols.h"

/*
 * The number, among the arguments in integer registers (x86-64 System V: 0 is rdi), of the
 * parameter @name of the function at @address. ERROR_UNSUPPORTED: there is no DWARF for it, no such
 * parameter, or it is not in such a register; the message says which, and names those that are.
 */
struct error *symbolizer_parameter(struct symbolizer *symbolizer, uint64_t address,
				   const char *name, unsigned *ret);

#endif
