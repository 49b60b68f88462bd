/*
 * heap_contexts.h - `heap --by context`: PostgreSQL's memory contexts as a tree.
 */
#ifndef HEAP_CONTEXTS_H
#define HEAP_CONTEXTS_H

#include "memprobe/cmd.h"
#include "profile_output.h"

/* A live target is read as it runs; only if it does not keep still for that, a snapshot of it. */
struct error *heap_contexts_run(struct command_context *context,
				const struct profile_output *output);

#endif
