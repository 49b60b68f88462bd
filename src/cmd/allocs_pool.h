/*
 * allocs_pool.h - `allocs --pool`: which file it is, and the names of contexts.
 */
#ifndef ALLOCS_POOL_H
#define ALLOCS_POOL_H

#include "memprobe/cmd.h"
#include "memprobe/runtime.h"
#include "memprobe/pool_file.h"
#include "memprobe/trace.h"

struct allocs_pool {
	struct pool_file *file;		 /* NULL: none */
	struct runtime_objects contexts; /* of a runtime; empty: they have no names */
};

/* --pool: a file, or the name of one that came with memprobe. Nothing without the option. */
struct error *allocs_pool_open(const struct command_context *context, struct allocs_pool *ret);

/* The names of the contexts that there are now, if it is known how to find them. */
struct error *allocs_pool_learn(struct allocs_pool *pool, struct target *target);

/* Frees but the file, which a trace_session may be using. */
void allocs_pool_deinit(struct allocs_pool *pool);

/* What is live of each context, the most first. */
json_t *allocs_pool_json(const struct allocs_pool *pool, const struct trace_data *data);
/* The same in a line for people, after a newline; nothing where there are no names. */
void allocs_pool_summarize(const struct allocs_pool *pool, const struct trace_data *data,
			   struct table_style style, FILE *out);

#endif
