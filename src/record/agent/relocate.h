/*
 * relocate.h - moves the first instructions of an x86-64 function elsewhere, so that a jump can
 * stand in their place. Private to record/.
 *
 * Only what is understood is moved: any other form is refused with a reason. All bytes are foreign.
 */
#ifndef RECORD_RELOCATE_H
#define RECORD_RELOCATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "undo.h"

/* A near jump. */
#define RELOCATE_JUMP 5

/* What the moved instructions can take with the jump back: the first and five of them, jcc made
 * longer. */
#define RELOCATE_CODE_MAX 64

struct relocated {
	uint8_t code[RELOCATE_CODE_MAX]; /* the moved instructions and the jump back */
	size_t size;
	/* Where the jump goes, from the function's start: behind the first instruction, which
	 * stays, if that can be undone; else 0. */
	size_t patch_offset;
	struct undo undo;
	/* What was moved: from the function's start, or behind an endbr64, to the end of the last
	 * instruction that the jump touches. */
	size_t moved_start, moved_end;
};

/*
 * @code: the function's bytes, @size of them, as it is at @from in the target. The moved code is
 * to stand at @to. @arguments: as in undo_find(). NULL, or why it cannot be done (static).
 */
const char *relocate_function(const uint8_t *code, size_t size, uint64_t from, uint64_t to,
			      unsigned arguments, struct relocated *ret);

/* The jump that leads from @from to @to. False: it is too far. */
bool relocate_jump(uint64_t from, uint64_t to, uint8_t ret[RELOCATE_JUMP]);

#endif
