/*
 * allocator_calls.h - who asks an allocator for its own figures, by running its own functions in
 * the target: what the ops of allocator.h that do so are given, and what they return.
 *
 * Nothing that these scripts run leaves memory behind in the target, not even if memprobe dies
 * midway: output goes to a mapping that the script itself takes away.
 */
#ifndef MEMPROBE_ALLOCATOR_CALLS_H
#define MEMPROBE_ALLOCATOR_CALLS_H

#include <stddef.h>
#include <stdint.h>

#include "memprobe/allocator.h"
#include "memprobe/call.h"
#include "memprobe/heap_stats.h"

struct allocator_caller {
	struct target *target;
	struct allocator allocator;
	struct call_session *session;
	/* Bytes of further copies of the allocator in the process that an op could not ask about;
	 * it adds to this. */
	uint64_t missing_bytes;
};

/* Text out of the target. */
struct call_text {
	char *bytes; /* owned; NUL-terminated, may hold anything */
	size_t size; /* without that NUL */
};

void call_text_deinit(struct call_text *text);

#endif
