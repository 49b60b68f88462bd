/*
 * pool_file.h - the description of a pool allocator: memprobe-allocs(1).
 *
 * Names the functions that give out and take back memory of their own, and where their arguments
 * have what matters. Plain data: nothing is looked up in a target here (see trace.h).
 */
#ifndef MEMPROBE_POOL_FILE_H
#define MEMPROBE_POOL_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "memprobe/error.h"
#include "memprobe/vec.h"

enum pool_kind {
	POOL_ALLOC,
	POOL_REALLOC,
	POOL_FREE,
	POOL_FREE_CHAIN,     /* ... a list of blocks */
	POOL_RESET,	     /* empties a context, and those below it */
	POOL_RESET_ONLY,     /* ... alone */
	POOL_RESET_CHILDREN, /* those below it, not itself */
	POOL_DELETE,	     /* as POOL_RESET, and it is gone */
	POOL_MOVE,	     /* gives it another parent */
};

enum pool_value_form {
	POOL_VALUE_NONE,
	POOL_VALUE_ARG,	    /* arg0: an integer argument; arg0[-8]: the word there + offset */
	POOL_VALUE_RETURN,  /* what the function returns; return[-8]: the word there + offset */
	POOL_VALUE_THROUGH, /* *arg0: written where the argument points to */
	POOL_VALUE_GLOBAL,  /* *NAME: the word at a variable */
	POOL_VALUE_ASK,	    /* NAME(return): what this function says of what is returned */
};

struct pool_value {
	enum pool_value_form form;
	uint8_t arg;
	bool has_offset; /* the word there, not the argument or what is returned itself */
	int32_t offset;
	char *name; /* owned; a variable or function, or a parameter: the argument */
	unsigned column;
};

/* Symbols that have to be there, or not to be, for a line to count. Owned; NULL: none. */
struct pool_condition {
	char *present, *absent;
};

struct pool_function {
	enum pool_kind kind;
	char *name; /* owned */
	struct pool_value pointer, size, count, context, parent, next;
	struct pool_condition condition;
	bool is_optional; /* it may be missing, or not be hooked */
	bool may_refuse;  /* POOL_FREE: has freed if it returns 0 */
	unsigned line, column;
};

VEC_DEFINE(pool_function_vec, struct pool_function)

/* Links between contexts: struct agent_pools tells what they mean. */
struct pool_tree {
	int32_t child, next, node, parent;
	bool is_blocks, has_parent;
	struct pool_condition condition;
	unsigned line;
};

VEC_DEFINE(pool_tree_vec, struct pool_tree)

struct pool_file {
	char *name; /* owned; for messages */
	struct pool_function_vec functions;
	struct pool_tree_vec trees;
};

/* ERROR_USAGE with `NAME:LINE:COLUMN: ` in front for whatever is wrong in @text. */
struct error *pool_file_parse(const char *name, const char *text, size_t size,
			      struct pool_file **ret);

/* A path if there is a slash or a dot in @name; else NAME.pool in @directory. */
struct error *pool_file_open(const char *name, const char *directory, struct pool_file **ret);

void pool_file_destroy(struct pool_file *file);
CLEANUP_DEFINE(pool_file, struct pool_file *, pool_file_destroy)

/* Puts `NAME:LINE:COLUMN: ` in front. */
struct error *pool_file_error(const struct pool_file *file, unsigned line, unsigned column,
			      struct error *error);

#endif
