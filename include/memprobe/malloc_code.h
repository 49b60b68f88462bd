/*
 * malloc_code.h - how the code of an allocator is told by its symbols.
 *
 * The remote call runs nothing in a thread that may be inside an allocator. Which there are is
 * known further up, in src/heap/: it comes from there as plain data, linked in and not handed over,
 * so that nobody can forget it.
 */
#ifndef MEMPROBE_MALLOC_CODE_H
#define MEMPROBE_MALLOC_CODE_H

#include <stdint.h>

struct malloc_code {
	/* Functions, one of which says that it is there: in a library, or linked into an
	 * executable. NULL at the end; NULL: it is libc's own, and told by that. */
	const char *const *marks;
	/* In an executable: how the names of its functions begin; NULL at the end. */
	const char *const *prefixes;
	uint64_t reach; /* no function of it lies further from a mark */
};

/* Of every allocator that is known; NULL at the end. */
extern const struct malloc_code *const malloc_codes[];

#endif
