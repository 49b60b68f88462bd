/*
 * stack_use.h - how much of its stack a thread has used, from the pages that are there.
 */
#ifndef MEMPROBE_STACK_USE_H
#define MEMPROBE_STACK_USE_H

#include "memprobe/maps.h"
#include "memprobe/target.h"

struct stack_use {
	bool known; /* false: the stack was not found, is shared with another thread's (as in Go),
		       or its pages may not be asked for */
	uint64_t size;	/* reserved, without guard; bytes */
	uint64_t rss;	/* present or swapped out */
	uint64_t depth; /* from the lowest such page to the top: the deepest use so far */
};

VEC_DEFINE(stack_use_vec, struct stack_use)

/* One for each thread, in their order. Nothing is stopped. Fails for lack of memory only. */
struct error *stack_use_read(struct target *target, const struct thread_vec *threads,
			     struct stack_use_vec *ret);

struct stack_use stack_use_total(const struct stack_use_vec *uses);

/*
 * The address space of a 32-bit process: 4 GiB under a 64-bit kernel, 3 GiB under a 32-bit one (and
 * with the personality ADDR_LIMIT_3GB). Told by whether anything is mapped above 3 GiB, as the
 * first stack is under a 64-bit kernel: so it can be told from a core, too.
 */
uint64_t stack_use_space_32(const struct mapping_vec *maps);

/* Whether stacks reserve so much more than they use that it deserves a word: a quarter of @space
 * (0: of a 64-bit process), or elsewhere at least a GiB and 64 times the use. */
bool stack_use_is_wasteful(const struct stack_use *total, uint64_t space);

#endif
