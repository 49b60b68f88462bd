/* fork_events.h - whether a fork would be noticed. Private to live/. */
#ifndef FORK_EVENTS_H
#define FORK_EVENTS_H

#include <stdbool.h>

#include "memprobe/process.h"

/*
 * Whether the process has a userfaultfd with UFFD_FEATURE_EVENT_FORK: whoever forks then waits
 * until that has been read, and its reader gets a descriptor for the child.
 */
bool process_tells_of_forks(const struct process *process);

#endif
