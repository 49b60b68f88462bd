#include "memprobe/stack_set.h"

#include <stdlib.h>
#include <string.h>

#include "memprobe/hash_index.h"
#include "memprobe/vec.h"

/* Frames lie in blocks that never move. */
#define BLOCK_FRAMES 65536u

struct frame_block {
	struct frame_block *next;
	size_t used, capacity;
	uint64_t pcs[];
};

struct stack {
	const uint64_t *pcs;
	uint32_t depth;
	bool truncated;
};

VEC_DEFINE(stack_vec, struct stack)

struct stack_set {
	struct stack_vec stacks;
	struct hash_index index;
	struct frame_block *blocks;
};

struct error *stack_set_create(struct stack_set **ret)
{
	*ret = calloc(1, sizeof(**ret));
	return *ret ? NULL : &error_no_memory;
}

void stack_set_destroy(struct stack_set *set)
{
	if (!set)
		return;
	while (set->blocks) {
		struct frame_block *block = set->blocks;

		set->blocks = block->next;
		free(block);
	}
	hash_index_deinit(&set->index);
	stack_vec_deinit(&set->stacks);
	free(set);
}

struct search {
	const struct stack_set *set;
	struct stack wanted;
};

static bool is_equal(const void *context, uint32_t id)
{
	const struct search *search = context;
	const struct stack *stack = &search->set->stacks.data[id];

	return stack->depth == search->wanted.depth &&
	       stack->truncated == search->wanted.truncated &&
	       (!stack->depth ||
		!memcmp(stack->pcs, search->wanted.pcs, stack->depth * sizeof(*stack->pcs)));
}

static struct error *keep(struct stack_set *set, const uint64_t *pcs, size_t depth,
			  const uint64_t **ret)
{
	struct frame_block *block = set->blocks;

	if (!block || block->capacity - block->used < depth) {
		size_t capacity = depth > BLOCK_FRAMES ? depth : BLOCK_FRAMES;

		block = malloc(sizeof(*block) + capacity * sizeof(*block->pcs));
		if (!block)
			return &error_no_memory;
		*block = (struct frame_block){ .next = set->blocks, .capacity = capacity };
		set->blocks = block;
	}
	if (depth)
		memcpy(block->pcs + block->used, pcs, depth * sizeof(*pcs));
	*ret = block->pcs + block->used;
	block->used += depth;
	return NULL;
}

struct error *stack_set_add(struct stack_set *set, const uint64_t *pcs, size_t depth,
			    bool truncated, uint32_t *id_ret)
{
	struct search search = { set, { pcs, (uint32_t)depth, truncated } };
	uint32_t hash =
		hash_fold(hash_word(hash_bytes(HASH_SEED, pcs, depth * sizeof(*pcs)), truncated));
	uint32_t id = hash_index_find(&set->index, hash, is_equal, &search);
	struct error *error;

	if (id == HASH_INDEX_NONE) {
		id = (uint32_t)set->stacks.size;
		error = keep(set, pcs, depth, &search.wanted.pcs);
		if (!error)
			error = stack_vec_append(&set->stacks, &search.wanted);
		if (!error)
			error = hash_index_add(&set->index, hash, id);
		if (error)
			return error;
	}
	*id_ret = id;
	return NULL;
}

const uint64_t *stack_set_get(const struct stack_set *set, uint32_t id, size_t *depth_ret,
			      bool *truncated_ret)
{
	const struct stack *stack = &set->stacks.data[id];

	*depth_ret = stack->depth;
	*truncated_ret = stack->truncated;
	return stack->pcs;
}

size_t stack_set_size(const struct stack_set *set)
{
	return set->stacks.size;
}
