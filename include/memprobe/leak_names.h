/*
 * leak_names.h - what a root of the leak search is, in the words of the program: which variable of
 * which module, which function's frame on whose stack.
 */
#ifndef MEMPROBE_LEAK_NAMES_H
#define MEMPROBE_LEAK_NAMES_H

#include "memprobe/leaks.h"

struct leak_names;

/* @heap and what @options point to must outlive it. */
struct error *leak_names_create(const struct heap *heap, const struct leak_options *options,
				struct leak_names **ret);
void leak_names_destroy(struct leak_names *names);
CLEANUP_DEFINE(leak_names, struct leak_names *, leak_names_destroy)

struct leak_name {
	/* Owned. `sessions+0x10 in .bss of mapgrow`, `stack of thread 12 "worker", in run`,
	 * `register rbx of thread 12 "worker"`, `thread-local cache of thread 12 "worker"` ... */
	char *text;
	char *symbol; /* owned; of the variable, or of the function; NULL: unknown */
	char *module; /* owned; path as the target sees it; NULL: in none, or unknown */
};

/* Of a step that is no block. */
struct error *leak_names_find(struct leak_names *names, const struct retain_step *step,
			      struct leak_name *ret);
void leak_name_deinit(struct leak_name *name);

#endif
