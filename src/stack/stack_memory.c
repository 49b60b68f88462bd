#include "unwinder.h"

#include "memprobe/num.h"

void stack_memory_deinit(struct stack_memory *memory)
{
	mappings_deinit(&memory->maps);
}

static bool read_from(const uint8_t *bytes, uint64_t start, size_t bytes_size, uint64_t address,
		      size_t size, uint64_t *ret)
{
	uint64_t offset = address - start;

	if (!bytes || address < start || offset > bytes_size || bytes_size - offset < size)
		return false;
	*ret = load_word(bytes + offset, size);
	return true;
}

bool stack_memory_copied(const struct stack_memory *memory, uint64_t address, size_t size,
			 uint64_t *ret)
{
	const struct thread_state *state = memory->state;

	if (read_from(state->stack, state->stack_start, state->stack_size, address, size, ret))
		return true;
	for (size_t i = 0; i < THREAD_INTERRUPTED_MAX && state->interrupted[i].bytes; i++) {
		const struct stack_copy *stack = &state->interrupted[i];

		if (read_from(stack->bytes, stack->start, stack->size, address, size, ret))
			return true;
	}
	return false;
}

static const struct mapping *mapping_at(struct stack_memory *memory, uint64_t address)
{
	if (!memory->maps_known) {
		struct error *error = target_read_maps(memory->target, MAPS_PLAIN, &memory->maps);

		memory->maps_known = true;
		error_destroy(error);
	}
	return mappings_find(&memory->maps, address);
}

/* Memory that may have changed since the stop is no memory of that instant. */
static bool is_constant(struct stack_memory *memory, uint64_t address)
{
	const struct mapping *mapping;

	/* A core or a snapshot is of one instant. */
	if (!memory->target->process)
		return true;
	mapping = mapping_at(memory, address);
	return mapping && !(mapping->perms & PERM_WRITE);
}

bool stack_memory_is_code(struct stack_memory *memory, uint64_t address)
{
	const struct mapping *mapping = mapping_at(memory, address);

	return mapping && (mapping->perms & PERM_EXEC);
}

bool stack_memory_constant(struct stack_memory *memory, uint64_t address, void *ret, size_t size)
{
	struct error *error;

	if (!is_constant(memory, address) || !is_constant(memory, address + size - 1))
		return false;
	error = target_read(memory->target, address, ret, size);
	error_destroy(error);
	return !error;
}

bool stack_memory_read(struct stack_memory *memory, uint64_t address, size_t size, uint64_t *ret)
{
	uint8_t bytes[8];

	if (stack_memory_copied(memory, address, size, ret))
		return true;
	if (!stack_memory_constant(memory, address, bytes, size))
		return false;
	*ret = load_word(bytes, size);
	return true;
}
