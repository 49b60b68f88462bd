/*
 * cleanup.h - scope-bound release of descriptors, files and memory.
 *
 * `cleanup(free)` before a declaration calls free_cleanup(&variable) when the variable goes out of
 * scope. CLEANUP_DEFINE makes such a function for any `x_destroy(type *)`. NULL is always legal.
 */
#ifndef MEMPROBE_CLEANUP_H
#define MEMPROBE_CLEANUP_H

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define cleanup(name) __attribute__((cleanup(name##_cleanup)))

#define CLEANUP_DEFINE(name, type, function)             \
	static inline void name##_cleanup(type *pointer) \
	{                                                \
		if (*pointer)                            \
			function(*pointer);              \
	}

/* Takes the value out of a variable with a cleanup, so that the scope's end leaves it alone. */
#define take_pointer(variable)                            \
	({                                                \
		__typeof__(variable) taken_ = (variable); \
		(variable) = NULL;                        \
		taken_;                                   \
	})

static inline void free_cleanup(void *pointer)
{
	free(*(void **)pointer);
}

static inline void fclose_cleanup(FILE **file)
{
	if (*file)
		fclose(*file);
}

/* Initialise the descriptor with -1. */
static inline void close_cleanup(int *fd)
{
	if (*fd >= 0)
		close(*fd);
}

static inline int take_fd(int *fd)
{
	int taken = *fd;

	*fd = -1;
	return taken;
}

#endif
