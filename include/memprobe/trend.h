/*
 * trend.h - a figure over time: whether it grows, how fast, and how sure that is.
 *
 * The slope is Theil's and Sen's: the median of the slopes between all pairs of points (Sen 1968,
 * Estimates of the regression coefficient based on Kendall's tau). Its interval is by Kendall's
 * variance, widened by as much as the residuals are autocorrelated (Hamed and Rao 1998).
 */
#ifndef MEMPROBE_TREND_H
#define MEMPROBE_TREND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "memprobe/error.h"

/* Points that are kept; when they are used up, every second one goes. */
#define TREND_POINTS 512u

struct trend_series {
	double time[TREND_POINTS], value[TREND_POINTS]; /* seconds; any unit */
	size_t count;
	size_t every, skipped; /* one of so many points is kept */
};

enum trend_verdict {
	TREND_STEADY,
	TREND_GROWING,
	TREND_SAW_TOOTH,
	TREND_PLATEAU,	  /* it grew, and has stopped */
	TREND_WARMING_UP, /* it grows more and more slowly, or has not been watched for long */
};

struct trend {
	enum trend_verdict verdict;
	double slope, slope_low, slope_high; /* units a second; 95 % interval */
	double first, last, lowest, highest;
	double seconds;
	size_t points;
};

/* Zeroed is empty. Times that do not grow are left out. */
void trend_add(struct trend_series *series, double time, double value);

/* @least: a change that is no news, in the unit. */
void trend_judge(const struct trend_series *series, double least, struct trend *ret);

const char *trend_verdict_name(enum trend_verdict verdict);

/* Pearson's correlation of the increments of two series that got the same times; 0: too few, or one
 * of them does not change. *is_sure_ret: it is unlikely to be chance (p < 0.01). */
double trend_moves_with(const struct trend_series *series, const struct trend_series *other,
			bool *is_sure_ret);

#endif
