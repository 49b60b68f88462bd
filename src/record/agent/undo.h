/*
 * undo.h - the first instruction of a function, and how a hook behind it undoes it. Private to
 * record/.
 *
 * A hook that leaves the first instruction in its place gets on with a uprobe there: at a hit, the
 * kernel executes the instruction as it stands in the file, and goes on behind it. The hook then
 * does as if it had never been: what it has been reached by is executed once more with the moved
 * beginning of the function.
 */
#ifndef RECORD_UNDO_H
#define RECORD_UNDO_H

#include <stdbool.h>
#include <stdint.h>

#include "agent/abi.h"
#include "record/x86_decode.h"

/* Code that changes nothing but the stack pointer and r11. */
struct undo {
	uint8_t bytes[AGENT_UNDO_MAX];
	uint8_t size; /* 0: there is nothing to be undone */
};

/*
 * @code begins with @insn, which a function begins with. @arguments: how many it is passed in
 * registers; 0: that is not known. False: the instruction cannot be undone, or would do something
 * else when it is executed again after the hook, which keeps neither rax, r10 nor r11.
 */
bool undo_find(const uint8_t *code, const struct x86_instruction *insn, unsigned arguments,
	       struct undo *ret);

#endif
