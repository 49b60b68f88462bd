/*
 * string_pool.h - strings stored once each, numbered in the order of their coming.
 *
 * A zeroed struct is an empty pool. Texts never move until string_pool_deinit().
 */
#ifndef REPORT_STRING_POOL_H
#define REPORT_STRING_POOL_H

#include "memprobe/hash_index.h"
#include "memprobe/vec.h"

struct pooled_string {
	const char *text;
	size_t length;
};

VEC_DEFINE(pooled_string_vec, struct pooled_string)

struct string_pool {
	struct pooled_string_vec strings; /* by id */
	struct hash_index index;
	struct string_block *blocks;
};

/* The id of @length bytes of @text, up to a NUL among them. */
struct error *string_pool_add(struct string_pool *pool, const char *text, size_t length,
			      uint32_t *id_ret);
void string_pool_deinit(struct string_pool *pool);

static inline const char *string_pool_text(const struct string_pool *pool, uint32_t id)
{
	return pool->strings.data[id].text;
}

#endif
