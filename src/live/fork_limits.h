/* fork_limits.h - whether a process can be forked without harm to it. Private to live/. */
#ifndef FORK_LIMITS_H
#define FORK_LIMITS_H

#include "memprobe/process.h"

/*
 * NULL, or why not: it has asked to be told of forks (userfaultfd), or has private huge pages of
 * the pool, or a limit leaves too little for the fork and for what the process may want meanwhile.
 */
struct error *fork_check(const struct process *process, const struct process_status *status);

/* While the fork is there: whether the process still has what it needs. */
bool fork_leaves_room(const struct process *process);

#endif
