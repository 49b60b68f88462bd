/* script.h - from a call_script to the bytes of a parameter block. Private to live/. */
#ifndef SCRIPT_H
#define SCRIPT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "memprobe/call.h"

#define BLOCK_MAX 6144

/* Where the stub finds itself and what it has to save; see DETOUR_* in detour.h. */
struct block_header {
	uint64_t plain, restart;
	uint64_t xsave_mask;
	uint32_t xsave_size, xsave_used;
	uint64_t errno_function;
	uint64_t block_mask;
	/* What the thread's mask is to be afterwards; else the stub finds out by itself. */
	bool mask_known;
	uint64_t old_mask;
	uint64_t tid;
	/* Only for a helper thread, which never runs the stub's entry: the top of its stack. */
	uint64_t stack;
};

struct block {
	uint8_t bytes[BLOCK_MAX];
	size_t size;
	size_t data; /* where the script's data begins */
};

/* ERROR_FAILED if the script overflowed. */
struct error *script_encode(const struct call_script *script, const struct block_header *header,
			    struct block *ret);

/* Bytes that a block for @script will have. */
size_t script_size(const struct call_script *script);

/* Sets a header word of an encoded block. */
void block_set(struct block *block, const struct arch *arch, unsigned index, uint64_t value);

#endif
