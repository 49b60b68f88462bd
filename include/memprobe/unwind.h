/*
 * unwind.h - call stacks out of copied registers and stack bytes.
 *
 * By libunwind and by libdwfl, with the call frame information of the target's modules; code
 * without it by frame pointers. Memory comes from the copied stacks and, beyond them, from mappings
 * that nobody can write to. Where the libraries differ, the chain that ends in a thread's start
 * is taken, of two such chains the longer one. A target of another architecture than memprobe's,
 * as i386, is unwound by libdwfl alone.
 */
#ifndef MEMPROBE_UNWIND_H
#define MEMPROBE_UNWIND_H

#include <stdbool.h>
#include <stdint.h>

#include "memprobe/symbols.h"
#include "memprobe/thread_state.h"
#include "memprobe/vec.h"

#define UNWIND_FRAMES_MAX 1024

struct frame {
	uint64_t pc;
	uint64_t cfa; /* the caller's stack pointer; 0: unknown */
	/* @pc was interrupted there; else it is a return address and the call is in front of it. */
	bool is_activation;
	/* Found by frame pointers, without call frame information: others may be missing between
	 * it and the one below. */
	bool is_guessed;
	/* The last frame, and its caller could not be found: the stack goes on. */
	bool is_cut;
};

VEC_DEFINE(frame_vec, struct frame)

struct unwinder;

/* Shares the modules that @symbolizer has opened; it must outlive the unwinder. */
struct error *unwinder_create(struct symbolizer *symbolizer, struct unwinder **ret);
void unwinder_destroy(struct unwinder *unwinder);
CLEANUP_DEFINE(unwinder, struct unwinder *, unwinder_destroy)

/* For tests and measurements: by one library alone. */
enum unwind_library { UNWIND_BOTH, UNWIND_LIBUNWIND, UNWIND_LIBDWFL };
void unwinder_use(struct unwinder *unwinder, enum unwind_library library);

/* Whether the libraries found different stacks of the last thread, both to its start, or neither.
 */
bool unwinder_differed(const struct unwinder *unwinder);

/* Appends the frames of a thread, innermost first; at least one. */
struct error *unwind_thread(struct unwinder *unwinder, const struct thread_state *state,
			    struct frame_vec *frames);

#endif
