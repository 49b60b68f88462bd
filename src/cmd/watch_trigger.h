/*
 * watch_trigger.h - runs a command when a condition of `watch --when` holds.
 */
#ifndef WATCH_TRIGGER_H
#define WATCH_TRIGGER_H

#include "memprobe/watch_condition.h"
#include "watch_series.h"

struct watch_trigger {
	struct watch_condition condition;
	const char *command; /* for /bin/sh -c; lent; NULL: there is none */
	uint64_t every_us;   /* run again at most so often; 0: once for each series */
};

/* Of one series; zeroed at first. */
struct watch_trigger_state {
	double since, last; /* seconds; valid with the bits */
	bool holds, has_run;
};

/* Looks at the last sample of @series, and starts the command if it is time. Says so. */
void watch_trigger_look(const struct watch_trigger *trigger, const struct watch_series *series,
			struct watch_trigger_state *state);

/* Says how commands that have ended did. @wait: until all have, or Ctrl-C. */
void watch_trigger_reap(bool wait);

#endif
