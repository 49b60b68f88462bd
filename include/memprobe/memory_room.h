/*
 * memory_room.h - how much more memory a process may take before the kernel kills for it.
 */
#ifndef MEMPROBE_MEMORY_ROOM_H
#define MEMPROBE_MEMORY_ROOM_H

#include "memprobe/process.h"

/*
 * Bytes: the least of what the machine has (MemAvailable) and of what the limits of the process's
 * memory cgroups leave (version 1 and 2, all levels up), where page cache that nobody uses counts
 * as free. UINT64_MAX: no limit is known. Takes some tens of microseconds.
 */
uint64_t memory_room(const struct process *process);

#endif
