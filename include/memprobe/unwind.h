/*
 * unwind.h - call stacks out of copied registers and stack bytes.
 *
 * By libdwfl with the call frame information of the target's modules. Memory comes from the
 * copied stack and, beyond it, from mappings that nobody can write to. A target of any
 * architecture that libdwfl knows is unwound by any memprobe.
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
	/* The last frame, and its caller could not be found: the stack goes on. */
	bool is_cut;
};

VEC_DEFINE(frame_vec, struct frame)

struct unwinder;

/* Shares the modules that @symbolizer has opened; it must outlive the unwinder. */
struct error *unwinder_create(struct symbolizer *symbolizer, struct unwinder **ret);
void unwinder_destroy(struct unwinder *unwinder);
CLEANUP_DEFINE(unwinder, struct unwinder *, unwinder_destroy)

/* Appends the frames of a thread, innermost first; at least one. */
struct error *unwind_thread(struct unwinder *unwinder, const struct thread_state *state,
			    struct frame_vec *frames);

#endif
