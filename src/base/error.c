#include "memprobe/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct error error_no_memory = {
	.code = ERROR_NO_MEMORY,
	.message = (char *)"out of memory",
};

static struct error *error_new(enum error_code code, int errnum, const char *format, va_list args)
{
	struct error *error = calloc(1, sizeof(*error));

	if (!error)
		return &error_no_memory;
	error->code = code;
	error->errnum = errnum;
	if (vasprintf(&error->message, format, args) < 0) {
		free(error);
		return &error_no_memory;
	}
	return error;
}

struct error *error_create(enum error_code code, const char *format, ...)
{
	struct error *error;
	va_list args;

	va_start(args, format);
	error = error_new(code, 0, format, args);
	va_end(args);
	return error;
}

struct error *error_errno(enum error_code code, int errnum, const char *format, ...)
{
	struct error *error;
	va_list args;
	char *message;

	va_start(args, format);
	error = error_new(code, errnum, format, args);
	va_end(args);
	if (error == &error_no_memory)
		return error;
	if (asprintf(&message, "%s: %s", error->message, strerror(errnum)) < 0)
		return error;
	free(error->message);
	error->message = message;
	/* The C library's texts begin with a capital; ours do not. */
	message = error->message + strlen(error->message) - strlen(strerror(errnum));
	if (message[0] >= 'A' && message[0] <= 'Z' && !(message[1] >= 'A' && message[1] <= 'Z'))
		message[0] += 'a' - 'A';
	return error;
}

struct error *error_fault(uint64_t address)
{
	struct error *error = error_create(ERROR_FAULT, "cannot read memory at 0x%llx",
					   (unsigned long long)address);

	if (error != &error_no_memory)
		error->address = address;
	return error;
}

struct error *error_hint(struct error *error, const char *format, ...)
{
	va_list args;
	char *hint;
	int length;

	if (!error || error == &error_no_memory)
		return error;
	va_start(args, format);
	length = vasprintf(&hint, format, args);
	va_end(args);
	if (length >= 0) {
		free(error->hint);
		error->hint = hint;
	}
	return error;
}

struct error *error_prefix(struct error *error, const char *format, ...)
{
	cleanup(free) char *prefix = NULL;
	char *message;
	va_list args;
	int length;

	if (!error || error == &error_no_memory)
		return error;
	va_start(args, format);
	length = vasprintf(&prefix, format, args);
	va_end(args);
	if (length < 0) {
		prefix = NULL;
		return error;
	}
	if (asprintf(&message, "%s: %s", prefix, error->message) >= 0) {
		free(error->message);
		error->message = message;
	}
	return error;
}

int error_exit_status(const struct error *error)
{
	if (!error)
		return 0;
	return error->code <= ERROR_BUSY ? (int)error->code : ERROR_FAILED;
}

void error_destroy(struct error *error)
{
	if (!error || error == &error_no_memory)
		return;
	free(error->message);
	free(error->hint);
	free(error);
}
