/*
 * stack_size.h - how much of each stack the kernel's programs copy. Private to record/.
 */
#ifndef RECORD_STACK_SIZE_H
#define RECORD_STACK_SIZE_H

#include <stdbool.h>
#include <stdint.h>

#include "perf_events.h"

#define STACK_SIZE_BEGIN 8192u /* to begin with */

struct stack_size {
	uint32_t bytes; /* wanted now */
	uint32_t least; /* with less some were cut */
	bool is_fixed, decided;
	unsigned skipped;
	/* Since it was last decided: */
	unsigned samples, cut;
	uint64_t reach; /* the most that a walk needed; kept until it is raised */
};

/* @fixed: it stays so; 0: what the samples need. */
void stack_size_init(struct stack_size *stack, uint32_t fixed);
/* Whether a stack that is not needed otherwise is to be walked to learn from. */
bool stack_size_wants(struct stack_size *stack);
/* @reach: of sample_stacks_reach(); @copied: bytes that the sample had. */
void stack_size_note(struct stack_size *stack, uint64_t reach, uint64_t copied);

#endif
