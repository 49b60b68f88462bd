/*
 * signal_frames.h - where signals interrupted a thread, by what the kernel left on its stack.
 * Private to live/.
 */
#ifndef SIGNAL_FRAMES_H
#define SIGNAL_FRAMES_H

#include <stdbool.h>

#include "memprobe/target.h"
#include "memprobe/thread_state.h"

/*
 * The next signal frame in @stack from *@offset on; *@offset is then behind its beginning. It is
 * known by its registers and by the code that its handler returns to; a stale one looks the same.
 * Only that code is read from @target, and only for what is a frame in all else: this is for use
 * while the thread is stopped.
 */
bool signal_frame_next(struct target *target, const struct stack_copy *stack, size_t *offset,
		       uint64_t *sp_ret);

/* Whether what begins at @address looks like one; *sp_ret: the stack pointer that was interrupted.
 */
bool signal_frame_sp(struct target *target, uint64_t address, uint64_t *sp_ret);

#endif
