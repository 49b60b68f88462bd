/*
 * unwinder.h - what the two ways of unwinding share: the bytes of a stopped thread. Private to
 * stack/.
 */
#ifndef MEMPROBE_STACK_UNWINDER_H
#define MEMPROBE_STACK_UNWINDER_H

#include "memprobe/unwind.h"
#include "symbolizer.h"

/* ---- stack_memory.c ---- */

/* Memory as it was when the thread was stopped. */
struct stack_memory {
	struct target *target;
	struct mapping_vec maps; /* read when memory beyond a copied stack is first asked for */
	bool maps_known;
	const struct thread_state *state; /* the thread at work */
};

void stack_memory_deinit(struct stack_memory *memory);

/* A word of @size bytes of the copied stacks; false: it is not in them. */
bool stack_memory_copied(const struct stack_memory *memory, uint64_t address, size_t size,
			 uint64_t *ret);

/* @size bytes of memory that nobody can have changed since the stop. */
bool stack_memory_constant(struct stack_memory *memory, uint64_t address, void *ret, size_t size);

/* Whether code may be run at @address. */
bool stack_memory_is_code(struct stack_memory *memory, uint64_t address);

/* A word of either. */
bool stack_memory_read(struct stack_memory *memory, uint64_t address, size_t size, uint64_t *ret);

/* ---- unwind_libdwfl.c ---- */

struct libdwfl_unwinder;

struct error *libdwfl_unwinder_create(struct symbolizer *symbolizer, struct stack_memory *memory,
				      struct libdwfl_unwinder **ret);
void libdwfl_unwinder_destroy(struct libdwfl_unwinder *unwinder);

/* As unwind_thread(), of memory->state. */
struct error *libdwfl_unwind(struct libdwfl_unwinder *unwinder, struct frame_vec *frames);

/* ---- unwind_libunwind.c ---- */

struct libunwind_unwinder;

/* *@ret is NULL if the target is not of memprobe's own architecture. */
struct error *libunwind_unwinder_create(struct target *target, struct stack_memory *memory,
					struct libunwind_unwinder **ret);
void libunwind_unwinder_destroy(struct libunwind_unwinder *unwinder);
struct error *libunwind_unwind(struct libunwind_unwinder *unwinder, struct frame_vec *frames);

/* ---- cfi_find.c ---- */

/* What describes the code at an address of the target. */
struct cfi_function {
	uint64_t start, end; /* of the function */
	uint64_t fde;	     /* address of its description */
	bool is_signal, is_usual;
};

struct cfi_finder;

struct error *cfi_finder_create(struct target *target, struct cfi_finder **ret);
void cfi_finder_destroy(struct cfi_finder *finder);

/* By the target's modules, whose call frame information is read when it is first asked for. */
bool cfi_find(struct cfi_finder *finder, uint64_t pc, struct cfi_function *ret);

/* Whether there is any in the module of the address that was asked for last. */
bool cfi_is_described(const struct cfi_finder *finder);

/* A word of the call frame information that was found last; what of it lies beyond is 0. */
bool cfi_read(const struct cfi_finder *finder, uint64_t address, uint64_t *ret);

#endif
