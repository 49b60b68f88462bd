/* guard_filtered.h - works on filtered processes in a child. Private to cmd/. */
#ifndef GUARD_FILTERED_H
#define GUARD_FILTERED_H

#include "memprobe/process.h"

/*
 * A thread under a seccomp filter that is stopped in a sleep may be killed by the filter unless
 * that is seen to: see guard.h. First waits for another memprobe that was killed just before and
 * may still be at it.
 */
void guard_filtered(const struct process *process);

#endif
