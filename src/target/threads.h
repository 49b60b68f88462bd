/* threads.h - finds the stacks of threads, for the backends. */
#ifndef MEMPROBE_TARGET_THREADS_H
#define MEMPROBE_TARGET_THREADS_H

#include "memprobe/target.h"

/*
 * For threads->data[first...]: their stacks and control blocks, from their ids, stack pointers and,
 * where these are known, thread pointers. Fails for lack of memory only.
 */
struct error *threads_find_stacks(struct target *target, struct thread_vec *threads, size_t first);

#endif
