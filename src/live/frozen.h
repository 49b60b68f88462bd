/* frozen.h - the target view of a frozen fork. Private to live/. */
#ifndef FROZEN_H
#define FROZEN_H

#include <stdatomic.h>

#include "memprobe/target.h"
#include "memprobe/thread_state.h"

enum fork_loss {
	FORK_KEPT,
	FORK_LOST_ROOM,	  /* it would have taken what the target needs */
	FORK_LOST_TARGET, /* the target has ended or runs another program */
};

/*
 * A target that reads the memory of @fork, and of @origin where the fork got none. The threads are
 * those of @origin with the registers of @states, both of which must outlive it. *live_bytes_ret:
 * the size of what is read from @origin or shared with it. @loss, an enum fork_loss which must
 * outlive it, too, tells that the fork had to go before its time.
 */
struct error *frozen_target_create(struct target *origin, pid_t fork,
				   const struct thread_state_vec *states, const atomic_int *loss,
				   struct target **ret, uint64_t *live_bytes_ret);

#endif
