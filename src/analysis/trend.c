#include "memprobe/trend.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Slopes between all pairs of so many points are sorted: 20,000. */
#define PAIRED 200u
/* Of the normal distribution, two-sided. Of the 95 % (1.96) a little more: the autocorrelation is
 * but an estimate. */
#define Z_95 2.3
#define Z_99 2.576
/* Fewer points tell nothing. */
#define POINTS_LEAST 8u
/* A fall by so much of the range is a tooth's end. */
#define TOOTH	    0.25
#define TEETH_LEAST 2u

/* ---- the series ---- */

/* Keeps every second point. */
static void thin_out(struct trend_series *series)
{
	for (size_t i = 0; 2 * i < series->count; i++) {
		series->time[i] = series->time[2 * i];
		series->value[i] = series->value[2 * i];
	}
	series->count = (series->count + 1) / 2;
	series->every *= 2;
}

void trend_add(struct trend_series *series, double time, double value)
{
	if (!series->every)
		series->every = 1;
	if (series->count && !(time > series->time[series->count - 1]))
		return;
	if (++series->skipped < series->every && series->count)
		return;
	if (series->count == TREND_POINTS)
		thin_out(series);
	series->skipped = 0;
	series->time[series->count] = time;
	series->value[series->count] = value;
	series->count++;
}

/* ---- the slope ---- */

struct points {
	double time[PAIRED], value[PAIRED];
	size_t count;
};

/* Points [first, end) of @series, evenly fewer where there are many. */
static void choose_points(const struct trend_series *series, size_t first, size_t end,
			  struct points *ret)
{
	size_t step = (end - first + PAIRED - 1) / PAIRED;

	ret->count = 0;
	for (size_t i = first; step && i < end; i += step) {
		ret->time[ret->count] = series->time[i];
		ret->value[ret->count] = series->value[i];
		ret->count++;
	}
}

static int compare_doubles(const void *left, const void *right)
{
	double a = *(const double *)left, b = *(const double *)right;

	return a < b ? -1 : a > b;
}

static double median_of(double *values, size_t count)
{
	qsort(values, count, sizeof(*values), compare_doubles);
	return count % 2 ? values[count / 2] : (values[count / 2 - 1] + values[count / 2]) / 2;
}

/* Of the residuals from the line, from one point to the next. */
static double autocorrelation(const struct points *points, double slope)
{
	double residuals[PAIRED], sorted[PAIRED], middle, own = 0, next = 0, r;
	size_t count = points->count;

	for (size_t i = 0; i < count; i++)
		residuals[i] = points->value[i] - slope * points->time[i];
	memcpy(sorted, residuals, sizeof(sorted));
	middle = median_of(sorted, count);
	for (size_t i = 0; i < count; i++) {
		own += (residuals[i] - middle) * (residuals[i] - middle);
		if (i)
			next += (residuals[i] - middle) * (residuals[i - 1] - middle);
	}
	if (own <= 0)
		return 0;
	r = next / own;
	/* Short series show less of it than there is (Kendall 1954). */
	r += (1 + 4 * r) / (double)count;
	return r < 0 ? 0 : r > 0.98 ? 0.98 : r;
}

struct slope {
	double value, low, high;
};

static void find_interval(const struct points *points, const double *slopes, size_t pairs,
			  struct slope *ret)
{
	double n = (double)points->count, r = autocorrelation(points, ret->value);
	double variance = n * (n - 1) * (2 * n + 5) / 18 * (1 + r) / (1 - r);
	double reach = Z_95 * sqrt(variance);
	double low = ((double)pairs - reach) / 2, high = ((double)pairs + reach) / 2 + 1;

	ret->low = slopes[low < 0 ? 0 : (size_t)low];
	ret->high = slopes[high >= (double)pairs ? pairs - 1 : (size_t)high];
	/* Even all of them are too few for it. */
	if (low < 0) {
		double spread = ret->high - ret->low;

		ret->low -= spread * (reach / (double)pairs - 1);
		ret->high += spread * (reach / (double)pairs - 1);
	}
}

static bool find_slope(const struct points *points, struct slope *ret)
{
	size_t count = points->count, pairs = 0;
	double *slopes;

	memset(ret, 0, sizeof(*ret));
	if (count < 3)
		return false;
	slopes = malloc(count * (count - 1) / 2 * sizeof(*slopes));
	if (!slopes)
		return false;
	for (size_t i = 0; i < count; i++)
		for (size_t j = i + 1; j < count; j++)
			slopes[pairs++] = (points->value[j] - points->value[i]) /
					  (points->time[j] - points->time[i]);
	ret->value = median_of(slopes, pairs);
	find_interval(points, slopes, pairs, ret);
	free(slopes);
	return true;
}

static bool slope_between(const struct trend_series *series, size_t first, size_t end,
			  struct slope *ret)
{
	struct points points;

	choose_points(series, first, end, &points);
	return find_slope(&points, ret);
}

/* ---- the verdict ---- */

/* Teeth rise slowly and fall at once; noise does both alike. */
static bool rises_mostly(const struct trend_series *series)
{
	size_t rises = 0, falls = 0;

	for (size_t i = 1; i < series->count; i++) {
		rises += series->value[i] > series->value[i - 1];
		falls += series->value[i] < series->value[i - 1];
	}
	return rises >= 2 * falls;
}

static unsigned count_teeth(const struct trend_series *series, double range)
{
	double top = series->value[0], bottom = top;
	unsigned teeth = 0;

	for (size_t i = 1; i < series->count; i++) {
		double value = series->value[i];

		if (value > top)
			top = value;
		if (top - value > TOOTH * range && top - bottom > TOOTH * range) {
			teeth++;
			top = bottom = value;
		}
		if (value < bottom)
			bottom = value;
	}
	return teeth;
}

static enum trend_verdict judge(const struct trend_series *series, double least,
				const struct trend *trend)
{
	double range = trend->highest - trend->lowest, growth = trend->slope * trend->seconds;
	size_t count = series->count;
	struct slope early, late;

	if (range < least)
		return TREND_STEADY;
	if (count < POINTS_LEAST)
		return trend->last - trend->first >= least ? TREND_WARMING_UP : TREND_STEADY;
	if (count_teeth(series, range) >= TEETH_LEAST && rises_mostly(series) &&
	    (trend->slope_low <= 0 || growth < range / 2))
		return TREND_SAW_TOOTH;
	if (!slope_between(series, 0, count / 3, &early) ||
	    !slope_between(series, count / 2, count, &late))
		return TREND_STEADY;
	/* What it gained, it gained early. */
	if (trend->last - trend->first >= least && early.value > 0 &&
	    late.value * trend->seconds / 2 < least && late.value < early.value / 10)
		return TREND_PLATEAU;
	if (trend->slope_low <= 0 || growth < least)
		return TREND_STEADY;
	return late.high < early.low && late.value < early.value / 2 ? TREND_WARMING_UP
								     : TREND_GROWING;
}

void trend_judge(const struct trend_series *series, double least, struct trend *ret)
{
	struct slope slope;

	memset(ret, 0, sizeof(*ret));
	if (!series->count)
		return;
	ret->points = series->count;
	ret->first = ret->lowest = ret->highest = series->value[0];
	ret->last = series->value[series->count - 1];
	ret->seconds = series->time[series->count - 1] - series->time[0];
	for (size_t i = 1; i < series->count; i++) {
		ret->lowest = fmin(ret->lowest, series->value[i]);
		ret->highest = fmax(ret->highest, series->value[i]);
	}
	if (slope_between(series, 0, series->count, &slope)) {
		ret->slope = slope.value;
		ret->slope_low = slope.low;
		ret->slope_high = slope.high;
	}
	ret->verdict = judge(series, least, ret);
}

const char *trend_verdict_name(enum trend_verdict verdict)
{
	static const char *const names[] = {
		[TREND_STEADY] = "steady",	   [TREND_GROWING] = "growing",
		[TREND_SAW_TOOTH] = "saw-tooth",   [TREND_PLATEAU] = "plateau",
		[TREND_WARMING_UP] = "warming-up",
	};

	return names[verdict];
}

/* ---- what it moves with ---- */

double trend_moves_with(const struct trend_series *series, const struct trend_series *other,
			bool *is_sure_ret)
{
	size_t count = series->count < other->count ? series->count : other->count;
	double n = 0, x = 0, y = 0, xx = 0, yy = 0, xy = 0, r;

	*is_sure_ret = false;
	for (size_t i = 1; i < count; i++) {
		double a = series->value[i] - series->value[i - 1];
		double b = other->value[i] - other->value[i - 1];

		n++;
		x += a;
		y += b;
		xx += a * a;
		yy += b * b;
		xy += a * b;
	}
	if (n < POINTS_LEAST || xx * n - x * x <= 0 || yy * n - y * y <= 0)
		return 0;
	r = (n * xy - x * y) / sqrt((n * xx - x * x) * (n * yy - y * y));
	/* Fisher's transformation. */
	*is_sure_ret =
		n > 3 && fabs(atanh(fmin(fmax(r, -0.999999), 0.999999))) * sqrt(n - 3) > Z_99;
	return r;
}
