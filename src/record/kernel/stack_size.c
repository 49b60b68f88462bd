/*
 * How much of a stack is copied with each sample: what their walks need, and as much again. It is
 * most of what a sample costs, and what is left out is not found again: the caller of all that was
 * seen then is unknown, and the sample says that it was cut.
 */
#include "memprobe/num.h"
#include "stack_size.h"

#define STACK_LEAST 2048u
/* Samples that are enough to go by, and at first. */
#define SAMPLES	      2000u
#define SAMPLES_FIRST 250u
/* Or so many that were cut. */
#define CUT_ENOUGH 41u
/* Of what was the default, one in so many may be cut. */
#define CUT_ALLOWED 50u
/* Of those that are not sampled, once something has been decided. */
#define LOOK_EVERY 64u

void stack_size_init(struct stack_size *stack, uint32_t fixed)
{
	*stack = (struct stack_size){
		.bytes = fixed ? fixed : STACK_SIZE_BEGIN,
		.least = STACK_LEAST,
		.is_fixed = fixed != 0,
	};
}

bool stack_size_wants(struct stack_size *stack)
{
	return !stack->is_fixed && (!stack->decided || ++stack->skipped % LOOK_EVERY == 0);
}

/* Even the most is not enough for most: such stacks end nowhere. Back for good then. */
static bool is_in_vain(struct stack_size *stack)
{
	if (stack->bytes < PERF_STACK_MAX || stack->cut <= stack->samples / 2)
		return false;
	stack->bytes = STACK_SIZE_BEGIN;
	stack->is_fixed = true;
	return true;
}

static void raise(struct stack_size *stack)
{
	stack->bytes = (uint32_t)min_u64(stack->bytes * 2ull, PERF_STACK_MAX);
	stack->least = (uint32_t)max_u64(stack->least, stack->bytes);
	stack->samples = stack->cut = 0;
	stack->reach = 0;
}

static void lower(struct stack_size *stack)
{
	uint32_t bytes = stack->least;

	while (bytes < 2 * stack->reach && bytes < stack->bytes)
		bytes *= 2;
	stack->bytes = (uint32_t)min_u64(bytes, stack->bytes);
}

void stack_size_note(struct stack_size *stack, uint64_t reach, uint64_t copied)
{
	if (stack->is_fixed)
		return;
	stack->samples++;
	/* What was copied while another size held says nothing of this one. */
	if (reach == UINT64_MAX && copied >= stack->bytes) {
		stack->cut++;
		if (stack->bytes < STACK_SIZE_BEGIN)
			raise(stack);
	} else {
		stack->reach = max_u64(stack->reach, min_u64(reach, copied));
	}
	if (stack->samples < (stack->decided ? SAMPLES : SAMPLES_FIRST) && stack->cut < CUT_ENOUGH)
		return;
	stack->decided = true;
	if (is_in_vain(stack))
		return;
	if (stack->cut > stack->samples / CUT_ALLOWED && stack->bytes < PERF_STACK_MAX)
		raise(stack);
	else if (!stack->cut)
		lower(stack);
	stack->samples = stack->cut = 0;
}
