/*
 * unwind_compile.h - one module's call frame information to rows and their index.
 */
#ifndef MEMPROBE_STACK_UNWIND_COMPILE_H
#define MEMPROBE_STACK_UNWIND_COMPILE_H

#include "memprobe/eh_frame.h"
#include "memprobe/target.h"

/* What of a module is executable, from the first such mapping to the last; false: nothing. */
bool module_text(const struct module *module, uint64_t *start, uint64_t *end);

/*
 * The call frame information of a module that has code. *@bytes_ret, which the caller frees, is
 * what it lies in; NULL: there is none, or it cannot be read.
 */
bool unwind_read_eh_frame(struct target *target, struct module *module, struct eh_frame *ret,
			  uint8_t **bytes_ret);

/* Entries of the index of a text of that many bytes. */
uint64_t unwind_index_size(uint64_t text_size);

/*
 * Writes the rows of the module's text, @capacity at most. A module that has no call frame
 * information, or garbage, has one row that says so. ERROR_FAILED: there is not enough room.
 */
struct error *unwind_compile(struct target *target, struct module *module, struct unwind_row *rows,
			     size_t capacity, size_t *count_ret, struct eh_frame_counts *counts);

void unwind_make_index(const struct unwind_row *rows, size_t count, uint32_t *index,
		       uint64_t index_size);

#endif
