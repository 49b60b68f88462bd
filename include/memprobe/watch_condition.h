/*
 * watch_condition.h - `rss>2G`, `growth>10M/s for 60s`, `limit>90%`: when something is to be done.
 */
#ifndef MEMPROBE_WATCH_CONDITION_H
#define MEMPROBE_WATCH_CONDITION_H

#include <stdbool.h>
#include <stdint.h>

#include "memprobe/error.h"

enum watch_metric {
	WATCH_RSS,
	WATCH_ANON,
	WATCH_SWAP,
	WATCH_SHMEM,
	WATCH_THREADS, /* a number */
	WATCH_FDS,
	WATCH_GROWTH, /* of rss, bytes a second */
	WATCH_LIMIT,  /* use of the control group, in percent of its limit */
};

struct watch_condition {
	enum watch_metric metric;
	bool below;	 /* `<` */
	double value;	 /* bytes, bytes a second, percent, or a number */
	uint64_t for_us; /* how long it has to hold; 0: one look is enough */
};

/* ERROR_USAGE: @text is none. */
struct error *watch_condition_parse(const char *text, struct watch_condition *ret);

/* Whether @value, of the metric, fulfils it; NaN does not. */
bool watch_condition_holds(const struct watch_condition *condition, double value);

/*
 * @command with {pid}, {name} and {time} replaced, and {name} quoted for a shell; the caller frees
 * it. NULL: out of memory. Other braces stay.
 */
char *watch_command_fill(const char *command, int pid, const char *name, const char *time);

#endif
