/* guard_target.h - stops threads of a process in a child of ours. Private to cmd/. */
#ifndef GUARD_TARGET_H
#define GUARD_TARGET_H

#include "memprobe/process.h"

/*
 * A wait that a stop has ended must be repaired before the thread goes on, or it fails with EINTR
 * and a seccomp filter may kill for it: see guard.h. First waits for another memprobe that was
 * killed just before and may still be at that.
 */
void guard_target(const struct process *process);

#endif
