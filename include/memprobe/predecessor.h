/*
 * predecessor.h - a memprobe that was killed, and whose child still finishes what it must
 * (guard.h).
 */
#ifndef MEMPROBE_PREDECESSOR_H
#define MEMPROBE_PREDECESSOR_H

#include <stdbool.h>
#include <sys/types.h>

/* For how long it is waited for: what it finishes is short, but the machine may be busy. */
#define PREDECESSOR_WAIT_US 10000000
#define PREDECESSOR_LOOK_US 2000

/*
 * Whether @tid, which traces, is a thread of such a child. It is one of this same binary, and its
 * parent is not (of a memprobe that lives, the parent is one, too). True also of any process that
 * is ending, whose program cannot be told any more.
 */
bool predecessor_is_ending(pid_t tid);

#endif
