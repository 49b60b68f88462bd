#include "string_pool.h"

#include <stdlib.h>
#include <string.h>

#define BLOCK_SIZE ((size_t)64 << 10)

struct string_block {
	struct string_block *next;
	size_t used, size;
	char bytes[];
};

static struct error *store(struct string_pool *pool, const char *text, size_t length,
			   const char **ret)
{
	struct string_block *block = pool->blocks;
	char *copy;

	if (!block || block->size - block->used < length + 1) {
		size_t size = length + 1 > BLOCK_SIZE ? length + 1 : BLOCK_SIZE;

		block = malloc(sizeof(*block) + size);
		if (!block)
			return &error_no_memory;
		*block = (struct string_block){ .next = pool->blocks, .size = size };
		pool->blocks = block;
	}
	copy = block->bytes + block->used;
	memcpy(copy, text, length);
	copy[length] = '\0';
	block->used += length + 1;
	*ret = copy;
	return NULL;
}

struct key {
	const struct string_pool *pool;
	const char *text;
	size_t length;
};

static bool same_string(const void *context, uint32_t id)
{
	const struct key *key = context;
	const struct pooled_string *string = &key->pool->strings.data[id];

	return string->length == key->length && !memcmp(string->text, key->text, key->length);
}

struct error *string_pool_add(struct string_pool *pool, const char *text, size_t length,
			      uint32_t *id_ret)
{
	struct key key = { pool, text, strnlen(text, length) };
	uint32_t hash = hash_fold(hash_bytes(HASH_SEED, text, key.length));
	uint32_t id = hash_index_find(&pool->index, hash, same_string, &key);
	struct pooled_string string = { .length = key.length };
	struct error *error = NULL;

	if (id == HASH_INDEX_NONE) {
		if (pool->strings.size >= HASH_INDEX_NONE)
			return &error_no_memory;
		id = pool->strings.size;
		error = store(pool, text, key.length, &string.text);
		if (!error)
			error = pooled_string_vec_append(&pool->strings, &string);
		if (!error)
			error = hash_index_add(&pool->index, hash, id);
	}
	if (!error)
		*id_ret = id;
	return error;
}

void string_pool_deinit(struct string_pool *pool)
{
	while (pool->blocks) {
		struct string_block *next = pool->blocks->next;

		free(pool->blocks);
		pool->blocks = next;
	}
	pooled_string_vec_deinit(&pool->strings);
	hash_index_deinit(&pool->index);
}
