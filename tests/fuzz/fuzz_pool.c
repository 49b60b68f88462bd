/* libFuzzer: any bytes as the description of a pool allocator. */
#include <assert.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "memprobe/pool_file.h"

#define ARGS 6

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

static void check_value(const struct pool_value *value)
{
	assert(value->form <= POOL_VALUE_ASK && value->arg < ARGS);
	assert((value->form != POOL_VALUE_GLOBAL && value->form != POOL_VALUE_ASK) || value->name);
	assert(value->form != POOL_VALUE_NONE || (!value->name && !value->has_offset));
	assert(value->offset % 8 == 0 && (value->has_offset || !value->offset));
	assert(!value->name || *value->name);
}

static bool is_plain_arg(const struct pool_value *value)
{
	return value->form == POOL_VALUE_ARG && !value->has_offset;
}

/* Of what is allocated, also what only the block itself tells. */
static bool is_size(const struct pool_function *function)
{
	const struct pool_value *size = &function->size;

	return is_plain_arg(size) ||
	       (function->kind == POOL_ALLOC &&
		((size->form == POOL_VALUE_RETURN && size->has_offset) ||
		 (size->form == POOL_VALUE_ASK && !strcmp(size->name, "string"))));
}

static void check_function(const struct pool_function *function)
{
	assert(function->name && *function->name && function->line && function->column);
	assert(function->kind <= POOL_MOVE);
	check_value(&function->pointer);
	check_value(&function->size);
	check_value(&function->count);
	check_value(&function->context);
	check_value(&function->parent);
	check_value(&function->next);
	/* What the agent's tables take for granted. */
	if (function->kind == POOL_ALLOC || function->kind == POOL_REALLOC)
		assert(is_size(function));
	if (function->kind == POOL_FREE || function->kind == POOL_REALLOC ||
	    function->kind == POOL_FREE_CHAIN)
		assert(is_plain_arg(&function->pointer));
	if (function->kind == POOL_FREE_CHAIN)
		assert(is_plain_arg(&function->next));
	if (function->kind >= POOL_RESET)
		assert(function->context.form != POOL_VALUE_NONE &&
		       function->context.form != POOL_VALUE_RETURN &&
		       function->context.form != POOL_VALUE_ASK);
}

/* An error says where: the line and the column are in the text. */
static void check_error(const struct error *error, const char *text, size_t size)
{
	unsigned line, column, lines = 1;
	size_t length = 0;

	assert(error->code == ERROR_USAGE || error == &error_no_memory);
	if (sscanf(error->message, "fuzz.pool:%u:%u: ", &line, &column) != 2)
		return;
	for (size_t i = 0; i < size && lines < line; i++)
		lines += text[i] == '\n';
	assert(lines == line && column);
	for (size_t i = 0; i < size && lines; i++) {
		if (line == 1)
			length++;
		if (text[i] == '\n' && !--line)
			break;
	}
	assert(column <= length + 1);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
	char *text = malloc(size ? size : 1);
	struct pool_file *file = NULL;
	struct error *error;

	if (!text)
		abort();
	if (size)
		memcpy(text, bytes, size);
	error = pool_file_parse("fuzz.pool", text, size, &file);
	if (error) {
		assert(!file);
		check_error(error, text, size);
	} else {
		assert(file->functions.size);
		vec_for_each (function, &file->functions)
			check_function(function);
		vec_for_each (tree, &file->trees)
			assert(tree->child % 8 == 0 && tree->next % 8 == 0 && tree->node % 8 == 0);
	}
	error_destroy(error);
	pool_file_destroy(file);
	free(text);
	return 0;
}
