/*
 * memory_room.h - how much more a process may take before the kernel kills for it or refuses it:
 * memory, tasks, commitment.
 */
#ifndef MEMPROBE_MEMORY_ROOM_H
#define MEMPROBE_MEMORY_ROOM_H

#include "memprobe/process.h"

/*
 * Bytes: the least of what the machine has (MemAvailable) and of what the limits of the process's
 * memory cgroups leave (version 1 and 2, all levels up), where page cache that nobody uses counts
 * as free, and memory.high is a limit. UINT64_MAX: no limit is known. Takes some tens of
 * microseconds.
 */
uint64_t memory_room(const struct process *process);

/* Processes and threads, by the machine's limits and those of its cgroups (pids.max). */
uint64_t task_room(const struct process *process);
/* By its user's limit (RLIMIT_NPROC). May read the status of every process. */
uint64_t user_task_room(const struct process *process, const struct process_status *status);

/* Bytes that may yet be committed where the kernel keeps strict account (vm.overcommit_memory 2),
 * else UINT64_MAX. */
uint64_t commit_room(void);

#endif
