/*
 * watch_guard.h - `watch --guard DIR`: keeps a report of a process that runs out of memory.
 *
 * Before: when its control group is nearly full, or the machine is, memprobe's own commands write
 * what holds the memory. After: the recording of its allocations, which has been on all along, and
 * the kernel's account of the kill. The work is done by children: the looks go on.
 */
#ifndef WATCH_GUARD_H
#define WATCH_GUARD_H

#include "watch_series.h"

struct watch_guard;

/* @folder is made if it is not there. ERROR_FAILED: nothing can be written there. */
struct error *watch_guard_create(const char *folder, struct watch_guard **ret);

/* After each look at target @index. */
void watch_guard_look(struct watch_guard *guard, unsigned index, const struct watch_series *series);
/* It has ended. @killed: for want of memory, as its control group says. */
void watch_guard_ended(struct watch_guard *guard, unsigned index, const struct watch_series *series,
		       bool killed);

/* Waits for reports that are being written, and ends the recordings. NULL is fine. */
void watch_guard_destroy(struct watch_guard *guard);

#endif
