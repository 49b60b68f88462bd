/*
 * pause.h - how long a stop of a target is expected to last, and whether that is too long.
 *
 * Estimates are made before anything is stopped, from what the kernel says of the process.
 */
#ifndef MEMPROBE_PAUSE_H
#define MEMPROBE_PAUSE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "memprobe/error.h"
#include "memprobe/process.h"

/* The default of --max-pause. */
#define PAUSE_MAX_DEFAULT_US 1000000u

/* Of stopping that many threads at one instant, copying that much of their stacks, and resuming
 * them. */
uint64_t pause_of_stop(size_t threads, uint64_t stack_bytes);

/* Of a fork, with all threads stopped: the page tables of what is private are copied. */
uint64_t pause_of_fork(const struct process_status *status);

/* Of reading all that is resident, and of working on it, while the process is stopped. @can_scan:
 * pagemap_can_scan(). */
uint64_t pause_of_reading(const struct process_status *status, bool can_scan);

/*
 * ERROR_BUSY if @expected_us is more than @max_us; 0: there is no limit. The message names both
 * times, the hint the value of --max-pause that would do. @what: `copying its page tables`.
 */
struct error *pause_check(pid_t pid, const char *what, uint64_t expected_us, uint64_t max_us);

#endif
