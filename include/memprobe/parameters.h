/*
 * parameters.h - in which register a function has a parameter, by its debug information.
 */
#ifndef MEMPROBE_PARAMETERS_H
#define MEMPROBE_PARAMETERS_H

#include <stdint.h>

#include "memprobe/symbols.h"

/*
 * The number, among the arguments in integer registers (x86-64 System V: 0 is rdi), of the
 * parameter @name of the function at @address. ERROR_USAGE: it has none of that name, but those
 * that the message tells; ERROR_UNSUPPORTED: there is no DWARF for it, or it is not in such a
 * register.
 */
struct error *symbolizer_parameter(struct symbolizer *symbolizer, uint64_t address,
				   const char *name, unsigned *ret);

#endif
