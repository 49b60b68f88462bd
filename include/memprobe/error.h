/*
 * error.h - what a function that can fail returns.
 *
 * `struct error *` is NULL on success. Otherwise the caller owns it: pass it up, or
 * error_destroy() it. Out-of-memory and address faults are also errors, never aborts.
 *
 * Messages follow `cannot WHAT SUBJECT: WHY`: lower case, no full stop. A hint says what the user
 * can do about it.
 */
#ifndef MEMPROBE_ERROR_H
#define MEMPROBE_ERROR_H

#include <stdbool.h>
#include <stdint.h>

#include "memprobe/cleanup.h"

/* The first eight are exit statuses (CLI contract); the rest map to one by error_exit_status(). */
enum error_code {
	ERROR_FAILED = 1,	/* I/O, the target vanished midway, a fault in memprobe */
	ERROR_USAGE = 2,	/* the command line is wrong */
	ERROR_NO_TARGET = 3,	/* no such process, no such core */
	ERROR_PERMISSION = 4,	/* the message names what forbids it */
	ERROR_UNSUPPORTED = 5,	/* this target cannot answer this question */
	ERROR_PARTIAL = 6,	/* done in part */
	ERROR_BUSY = 7,		/* a remote call timed out, or no safe point was found */
	ERROR_NO_MEMORY = 64,	/* memprobe's own; exit status 1 */
	ERROR_FAULT = 65,	/* an address of the target is not readable; exit status 1 */
	ERROR_INTERRUPTED = 66, /* by a signal; the exit status is 128 and its number */
};

struct error {
	enum error_code code;
	int errnum;	  /* errno, or 0 */
	uint64_t address; /* with ERROR_FAULT: the first byte that could not be read */
	char *message;	  /* never NULL */
	char *hint;	  /* NULL where there is none */
};

/* The one static error for out-of-memory. error_destroy() leaves it alone. */
extern struct error error_no_memory;

struct error *error_create(enum error_code code, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

/* Appends `: strerror(errnum)` to the message. */
struct error *error_errno(enum error_code code, int errnum, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/* ERROR_FAULT at @address. Callers catch it by `error_is(error, ERROR_FAULT)`. */
struct error *error_fault(uint64_t address);

/* Sets the hint and returns @error, so that it can stand in a return statement. */
struct error *error_hint(struct error *error, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

/* Puts `format: ` in front of the message and returns @error. */
struct error *error_prefix(struct error *error, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

static inline bool error_is(const struct error *error, enum error_code code)
{
	return error && error->code == code;
}

int error_exit_status(const struct error *error);

void error_destroy(struct error *error);
CLEANUP_DEFINE(error, struct error *, error_destroy)

#endif
