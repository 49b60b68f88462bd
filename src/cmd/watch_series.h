/*
 * watch_series.h - what `watch` makes of the samples of one process, and of those that come after
 * it under the same name.
 */
#ifndef WATCH_SERIES_H
#define WATCH_SERIES_H

#include "memprobe/trend.h"
#include "watch_sample.h"

/* Against which the memory is held: figures that only grow, but for numbers of threads and fds. */
enum watch_other {
	OTHER_TRAFFIC, /* bytes read and written */
	OTHER_CPU,
	OTHER_THREADS,
	OTHER_FDS,
	OTHER_FAULTS,
	WATCH_OTHERS,
};

/* Looks that are kept one by one, for rates of a short time. */
#define WATCH_RECENT 1024u

struct watch_series {
	double recent_time[WATCH_RECENT], recent_rss[WATCH_RECENT]; /* a ring, by samples */
	struct trend_series memory;
	struct trend_series others[WATCH_OTHERS];
	struct watch_sample last;
	unsigned samples, restarts;
	bool ended;
};

void watch_series_add(struct watch_series *series, const struct watch_sample *sample);

/* Bytes a second between the last points that are at least @seconds apart; NaN: there are none. */
double watch_series_growth(const struct watch_series *series, double seconds);

/* {verdict, slope, slope_low, slope_high, limit, forecast_s, restarts, moves_with ...}. */
json_t *watch_series_json(const struct watch_series *series);

/* A line, the verdict in words, and one of what it moves with. */
void watch_series_print(FILE *out, struct table_style style, const struct watch_series *series);

#endif
