/* sharers.h - processes that run in the memory of another one. Private to record/. */
#ifndef RECORD_SHARERS_H
#define RECORD_SHARERS_H

#include "memprobe/target.h"
#include "memprobe/vec.h"

/* The last process or thread that the kernel had made; 0: not known. */
pid_t sharers_last_pid(void);

/*
 * A process that runs in the memory of @tid, a thread of @target, without being one of its threads:
 * a child of vfork(2), or of clone(2) with CLONE_VM. No stop holds it. 0: there is none. Only those
 * made after @last (of sharers_last_pid()) are looked at; 0: all of them.
 */
pid_t sharers_find(struct target *target, pid_t tid, pid_t last);

#endif
