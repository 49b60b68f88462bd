/*
 * profiles.h - profiles made of words, for the tests of their readers and writers.
 */
#ifndef TESTS_PROFILES_H
#define TESTS_PROFILES_H

#include "memprobe/profile_format.h"

/* Asserts that all goes well. */
struct profile *profiles_new(void);

/* Adds a site; @stack is labels with `;` between them, root first. */
void profiles_add(struct profile *profile, const char *stack, int64_t count, int64_t bytes);

/* What a format makes of it; NULL @options: none. The caller frees it. */
char *profiles_written(const struct profile *profile, const char *format,
		       const struct profile_options *options, size_t *size_ret);

#endif
