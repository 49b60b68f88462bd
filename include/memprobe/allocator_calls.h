/*
 * allocator_calls.h - asks an allocator for its own figures, by running its own functions in the
 * target.
 *
 * To add an allocator: 1. a kind and its marks (allocator.h); 2. src/heap/calls_NAME.c with its
 * `const struct allocator_calls`; 3. a row in src/heap/allocator_calls.c.
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
};

/* Text out of the target. */
struct call_text {
	char *bytes; /* owned; NUL-terminated, may hold anything */
	size_t size; /* without that NUL */
};

void call_text_deinit(struct call_text *text);

/* Each op may be NULL: the allocator has no function for it. Errors are those of call_run(). */
struct allocator_calls {
	enum allocator_kind kind;
	/* *ret is initialised. *raw_ret takes the text the figures were read from. */
	struct error *(*stats)(struct allocator_caller *caller, struct heap_stats *ret,
			       struct call_text *raw_ret);
	/* The allocator's own report for people. */
	struct error *(*text)(struct allocator_caller *caller, struct call_text *ret);
	/*
	 * Gives free memory back to the kernel, all but @pad bytes at the top (0 where the
	 * allocator knows no such thing). *returned_ret is what the function returned, and stays as
	 * it is where that is void.
	 */
	struct error *(*trim)(struct allocator_caller *caller, uint64_t pad, int64_t *returned_ret);
};

/* NULL: nothing is known of how to ask it. */
const struct allocator_calls *allocator_calls_find(enum allocator_kind kind);

#endif
