/*
 * beat.h - a thread that does nothing but look at the clock: the longest time between two looks is
 * how long the process did not run.
 */
#ifndef BEAT_H
#define BEAT_H

#include "../victims/victim.h"

#include <pthread.h>
#include <time.h>

static _Atomic uint64_t longest_gap; /* ns */
static atomic_uint measurement;

static inline uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static inline void *beat(void *data)
{
	unsigned seen = measurement;
	uint64_t last = now_ns();

	for (;;) {
		uint64_t now = now_ns();

		if (seen != measurement) {
			seen = measurement;
			longest_gap = 0;
		} else if (now - last > longest_gap) {
			longest_gap = now - last;
		}
		last = now;
	}
	return data;
}

/* Commands: `beat` begins a measurement, `gap` prints `gap MICROSECONDS`. */
static inline bool beat_command(const char *line)
{
	if (!strcmp(line, "beat")) {
		longest_gap = 0;
		measurement++;
		say("beating");
	} else if (!strcmp(line, "gap")) {
		say("gap %llu", (unsigned long long)longest_gap / 1000);
	} else {
		return false;
	}
	return true;
}

#endif
