/* fork_reap.h - the end of a fork whose parent has begun to run another program. Private to live/.
 */
#ifndef FORK_REAP_H
#define FORK_REAP_H

#include <sys/types.h>

#include "memprobe/target.h"

/*
 * exec() ends the helper thread that would have waited for @fork, which has ended: if it stays a
 * zombie, a child of @target's new program, that waits for it in one remote call. @fork_id: what
 * the target calls it. What cannot be done is left.
 */
void fork_reap(const struct target *target, pid_t fork, pid_t fork_id);

#endif
