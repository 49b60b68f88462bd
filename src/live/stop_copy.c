#include "stopper.h"

#include <string.h>
#include <sys/mman.h>

#include "memprobe/num.h"
#include "memprobe/ptrace.h"
#include "signal_frames.h"

/* Copied of a stack whose depth is not known before the stop. */
#define STACK_GUESS (32u << 10)
/* How far below its stack the pointer of an overflowed one is looked for. */
#define OVERFLOW_MAX (16ull << 20)

static size_t expected_stack(struct stopper *stopper, const struct held *held)
{
	const struct mapping *mapping = held->sp ? mappings_find(&stopper->maps, held->sp) : NULL;

	if (!mapping)
		return min_u64(STACK_GUESS, stopper->options.stack_max);
	return min_u64(mapping->end - held->sp + 2 * PAGE_SIZE, stopper->options.stack_max);
}

size_t stopper_expected_stacks(struct stopper *stopper)
{
	size_t expected = 0;

	if (stopper->options.no_stacks)
		return 0;
	vec_for_each (held, &stopper->held)
		expected += expected_stack(stopper, held);
	return min_u64(expected, stopper->options.stack_total);
}

struct error *stopper_make_arena(struct stopper *stopper, size_t expected)
{
	if (stopper->options.no_stacks)
		return NULL;
	stopper->arena_size = min_u64((stopper->held.capacity + 1) * stopper->options.stack_max,
				      stopper->options.stack_total);
	stopper->arena = mmap(NULL, stopper->arena_size, PROT_READ | PROT_WRITE,
			      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (stopper->arena == MAP_FAILED) {
		stopper->arena = NULL;
		return &error_no_memory;
	}
	memset(stopper->arena, 0, expected);
	return NULL;
}

/* A stack that overflowed: its pointer stands below it, in the guard or in nothing. */
static const struct mapping *stack_above(const struct stopper *stopper, uint64_t sp)
{
	vec_for_each (mapping, &stopper->maps) {
		if (mapping->start > sp + OVERFLOW_MAX)
			return NULL;
		if (mapping->start > sp && (mapping->perms & PERM_READ))
			return mapping;
	}
	return NULL;
}

/* Behind a guard at @start that is no mapping of its own (MADV_GUARD_INSTALL); @end: not found. */
static uint64_t behind_guard(struct stopper *stopper, uint64_t start, uint64_t end)
{
	uint64_t at = round_down(start, PAGE_SIZE) + PAGE_SIZE;

	end = min_u64(end, start + OVERFLOW_MAX);
	for (uint8_t byte; at < end; at += PAGE_SIZE) {
		struct error *error = target_read(stopper->target, at, &byte, 1);

		if (!error)
			return at;
		error_destroy(error);
	}
	return end;
}

/* Reads [start, start + *size), or as much of its beginning as can be read. */
static struct error *read_beginning(struct stopper *stopper, uint64_t start, uint8_t *place,
				    size_t *size)
{
	struct error *error = target_read(stopper->target, start, place, *size);

	if (!error_is(error, ERROR_FAULT) || error->address <= start ||
	    error->address - start >= *size)
		return error;
	*size = error->address - start;
	error_destroy(error);
	return target_read(stopper->target, start, place, *size);
}

/* The stack from @start up, or from behind a guard there. Where the mapping is not known (it is
 * younger than our look at the maps), as far as it can be read. */
static void copy_from(struct stopper *stopper, uint64_t start, const struct mapping *mapping,
		      struct stack_copy *ret)
{
	uint64_t end = mapping ? mapping->end : UINT64_MAX;
	uint8_t *place = stopper->arena + stopper->arena_used;
	size_t space =
		min_u64(stopper->options.stack_max, stopper->arena_size - stopper->arena_used);
	size_t room = min_u64(space, end - start);
	struct error *error = room ? read_beginning(stopper, start, place, &room) : NULL;

	if (mapping && error_is(error, ERROR_FAULT) && error->address == start) {
		start = behind_guard(stopper, start, end);
		room = min_u64(space, end - start);
		error_destroy(error);
		error = room ? read_beginning(stopper, start, place, &room) : NULL;
	}
	if (!error && room) {
		*ret = (struct stack_copy){ start, room, place };
		stopper->arena_used += room;
	}
	error_destroy(error);
}

/* From the red zone below @sp up. */
static void copy_stack(struct stopper *stopper, uint64_t sp, struct stack_copy *ret)
{
	const struct arch *arch = stopper->target->arch;
	const struct mapping *mapping = mappings_find(&stopper->maps, sp);

	if (!mapping)
		copy_from(stopper, sp, NULL, ret);
	else if (mapping->perms & PERM_READ)
		copy_from(stopper, max_u64(sp - min_u64(sp, arch->red_zone), mapping->start),
			  mapping, ret);
	if (ret->bytes)
		return;
	mapping = stack_above(stopper, sp);
	if (mapping)
		copy_from(stopper, mapping->start, mapping, ret);
}

static bool is_copied(const struct thread_state *state, uint64_t address)
{
	if (address - state->stack_start < state->stack_size)
		return true;
	for (size_t i = 0; i < THREAD_INTERRUPTED_MAX; i++)
		if (address - state->interrupted[i].start < state->interrupted[i].size)
			return true;
	return false;
}

/* Appends the stacks that were interrupted by signals whose handlers run on @stack. */
static void copy_interrupted(struct stopper *stopper, struct thread_state *state,
			     const struct stack_copy *stack, size_t *count)
{
	size_t offset = 0;
	uint64_t sp;

	while (*count < THREAD_INTERRUPTED_MAX &&
	       signal_frame_next(stopper->target, stack, &offset, &sp)) {
		struct stack_copy *copied = &state->interrupted[*count];

		/* A handler on the stack that it interrupted. */
		if (is_copied(state, sp))
			continue;
		copy_stack(stopper, sp, copied);
		*count += copied->bytes != NULL;
	}
}

static void copy_stacks(struct stopper *stopper, struct thread_state *state)
{
	struct stack_copy stack = { 0 };
	size_t count = 0;

	copy_stack(stopper, stopper->target->arch->sp(&state->regs), &stack);
	state->stack_start = stack.start;
	state->stack_size = stack.size;
	state->stack = stack.bytes;
	copy_interrupted(stopper, state, &stack, &count);
	for (size_t i = 0; i < count; i++)
		copy_interrupted(stopper, state, &state->interrupted[i], &count);
}

void stopper_copy(struct stopper *stopper, struct held *held)
{
	held->copied = true;
	if (stopper->arena)
		copy_stacks(stopper, &held->state);
	if (stopper->options.all_registers)
		ptrace_get_all(held->tid, &held->state);
}
