/*
 * allocator.h - which malloc a target runs on.
 *
 * To add an allocator: 1. a kind here; 2. a row with its marks in src/heap/allocator.c.
 */
#ifndef MEMPROBE_ALLOCATOR_H
#define MEMPROBE_ALLOCATOR_H

#include "memprobe/target.h"

enum allocator_kind {
	ALLOCATOR_UNKNOWN,
	ALLOCATOR_PTMALLOC, /* glibc's */
	ALLOCATOR_JEMALLOC,
	ALLOCATOR_TCMALLOC,
	ALLOCATOR_MIMALLOC,
	ALLOCATOR_MUSL, /* oldmalloc or mallocng */
};

struct allocator {
	enum allocator_kind kind;
	const char *name; /* static; as in the JSON's target.allocator; NULL: unknown */
	const char
		*prefix; /* static; before its own functions' names: `je_` as in je_mallctl; "" */
	struct module *module; /* that holds it; NULL: not found */
};

/*
 * The allocator that the program's malloc() calls end up in: the module whose `malloc` comes first
 * in link-map order, told by what else it exports; a jemalloc of prefixed names that the program
 * brings along counts before libc's. Static programs without symbols go by their libc. Reads ELF
 * files only. An unknown allocator is no error.
 */
struct error *allocator_detect(struct target *target, struct allocator *ret);

#endif
