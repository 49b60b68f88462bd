/* hook_code.h - the code of a hook. Private to record/. */
#ifndef RECORD_HOOK_CODE_H
#define RECORD_HOOK_CODE_H

#include <stddef.h>
#include <stdint.h>

#include "agent/abi.h"
#include "undo.h"

/* At most as many bytes as this; the function as it was follows immediately. */
#define HOOK_CODE_MAX 192

struct hook_code {
	uint8_t bytes[HOOK_CODE_MAX];
	size_t size;
	size_t begin; /* where calls come in */
};

/*
 * For calls of @entry's arguments and the slot with number @slot in the config of the agent at
 * @image. @mode: AGENT_EXACT or AGENT_SAMPLING; a hook for either is correct in both modes, but
 * made for sampling it is slow in exact mode.
 */
void hook_code_make(struct hook_code *hook, uint64_t image, unsigned slot, enum agent_entry entry,
		    uint32_t mode);

/* Has it begin with @undo; its size stays. To be called once at most. */
void hook_code_undo(struct hook_code *hook, const struct undo *undo);

#endif
