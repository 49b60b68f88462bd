/*
 * call_expression.h - reads `FUNCTION(ARGUMENT, ...)` as a user types it.
 *
 * Arguments: integers as in C (decimal, 0x hexadecimal, 0 octal, signs, suffixes u and l), 'c',
 * "text" with the escapes of C, NULL, true, false.
 */
#ifndef MEMPROBE_CALL_EXPRESSION_H
#define MEMPROBE_CALL_EXPRESSION_H

#include <stddef.h>
#include <stdint.h>

#include "memprobe/error.h"

#define CALL_ARGUMENTS_MAX 6

enum call_argument_kind { ARGUMENT_INTEGER, ARGUMENT_STRING };

struct call_argument {
	enum call_argument_kind kind;
	uint64_t value; /* of an integer; negative ones in two's complement */
	char *bytes;	/* of a string: owned, NUL-terminated, may hold NULs */
	size_t size;	/* of a string, without that NUL */
};

struct call_expression {
	char *function; /* owned; a name, or an address that begins with 0x */
	size_t count;
	struct call_argument arguments[CALL_ARGUMENTS_MAX];
};

/* ERROR_USAGE names the column (from 1). */
struct error *call_expression_parse(const char *text, struct call_expression *ret);
void call_expression_deinit(struct call_expression *expression);

#endif
