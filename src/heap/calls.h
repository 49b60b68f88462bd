/*
 * calls.h - what the allocators' ops that run functions in the target have in common.
 */
#ifndef CALLS_H
#define CALLS_H

#include "memprobe/allocator_calls.h"

/*
 * A script that writes text into a fresh mapping of the target:
 *
 *	call_buffer_begin(caller, size, attempt, &script, &buffer);
 *	... call_add_function() with buffer.address, or call_buffer_add_file() ...
 *	call_buffer_run(caller, &script, &buffer, options, &text);
 */
struct call_buffer {
	uint64_t address, size;
	bool has_file;
	size_t file;   /* data offset of the forged FILE */
	size_t mapped; /* of the mmap's result */
	bool full;     /* after the run: the text did not fit */
	bool taken;    /* after the run: somebody else had mapped the place; try again */
	struct call_result result;
	/* while it runs */
	struct call_text text;
	struct target *target;
};

struct error *call_buffer_begin(struct allocator_caller *caller, uint64_t size, unsigned attempt,
				struct call_script *script, struct call_buffer *ret);

/*
 * A stdio FILE of the libc in @module (NULL: the program's) in the script's data whose buffer is
 * the mapping: functions print into it without taking memory, a lock or a descriptor. Its data
 * offset is in buffer->file. ERROR_UNSUPPORTED if the target has no glibc stdio.
 */
struct error *call_buffer_add_file(struct allocator_caller *caller, struct module *module,
				   struct call_script *script, struct call_buffer *buffer);

/*
 * Adds the marker and the unmapping, runs it, and takes what was written: up to the FILE's write
 * pointer, or without FILE up to the first NUL. With buffer->full or buffer->taken *ret is left
 * alone.
 */
struct error *call_buffer_run(struct allocator_caller *caller, struct call_script *script,
			      struct call_buffer *buffer, struct call_options options,
			      struct call_text *ret);

/* A whole run: builds by @add_steps and grows the buffer from @size until the text fits. */
typedef struct error *call_add_steps(struct allocator_caller *caller, struct call_script *script,
				     struct call_buffer *buffer, void *data);

struct error *call_for_text(struct allocator_caller *caller, uint64_t size,
			    struct call_options options, call_add_steps *add_steps, void *data,
			    struct call_text *ret, struct call_result *result_ret);

/* call_find_function() of the allocator's prefix + @name. */
struct error *find_own_function(struct allocator_caller *caller, const char *name, uint64_t *ret);

/* Fails if a script came to an end before its marker; @what is what it was to do. */
struct error *check_completed(const struct call_result *result, const char *what);

#endif
