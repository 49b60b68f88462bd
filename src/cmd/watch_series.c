#include "watch_series.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "memprobe/num.h"
#include "memprobe/text.h"

/* A change by less, or by less than a hundredth, is no news. */
#define LEAST 1048576.0

static const char *const other_names[] = {
	[OTHER_TRAFFIC] = "bytes read and written",
	[OTHER_CPU] = "CPU time",
	[OTHER_THREADS] = "threads",
	[OTHER_FDS] = "file descriptors",
	[OTHER_FAULTS] = "page faults",
};

/* ---- samples ---- */

static double value_of(uint64_t figure)
{
	return figure == USAGE_UNKNOWN ? 0 : (double)figure;
}

static void add_others(struct watch_series *series, const struct watch_sample *sample)
{
	const struct usage *usage = &sample->usage;
	const double values[] = {
		[OTHER_TRAFFIC] = value_of(usage->read_chars) + value_of(usage->written_chars),
		[OTHER_CPU] = value_of(usage->cpu_us),
		[OTHER_THREADS] = value_of(usage->threads),
		[OTHER_FDS] = value_of(usage->fds),
		[OTHER_FAULTS] = value_of(usage->minor_faults) + value_of(usage->major_faults),
	};

	for (unsigned i = 0; i < WATCH_OTHERS; i++)
		trend_add(&series->others[i], sample->seconds, values[i]);
}

void watch_series_add(struct watch_series *series, const struct watch_sample *sample)
{
	if (series->samples && sample->pid != series->last.pid)
		series->restarts++;
	series->recent_time[series->samples % WATCH_RECENT] = sample->seconds;
	series->recent_rss[series->samples % WATCH_RECENT] = value_of(sample->usage.rss);
	series->samples++;
	series->last = *sample;
	trend_add(&series->memory, sample->seconds, value_of(sample->usage.rss));
	add_others(series, sample);
}

/* Within the looks that are kept; of a longer time, the longest that there is. */
double watch_series_growth(const struct watch_series *series, double seconds)
{
	unsigned kept = series->samples < WATCH_RECENT ? series->samples : WATCH_RECENT;
	unsigned last = (series->samples - 1) % WATCH_RECENT;

	for (unsigned i = 1; i < kept; i++) {
		unsigned at = (series->samples - 1 - i) % WATCH_RECENT;
		double span = series->recent_time[last] - series->recent_time[at];

		if (span >= seconds || (i + 1 == WATCH_RECENT && span > 0))
			return (series->recent_rss[last] - series->recent_rss[at]) / span;
	}
	return NAN;
}

/* ---- the verdict ---- */

struct summary {
	struct trend trend;
	double forecast; /* seconds to the limit; NaN: none */
	double correlations[WATCH_OTHERS];
	bool sure[WATCH_OTHERS];
};

static void summarize(const struct watch_series *series, struct summary *ret)
{
	const struct watch_sample *last = &series->last;
	double least = fmax(LEAST, value_of(last->usage.rss) / 100);

	trend_judge(&series->memory, least, &ret->trend);
	ret->forecast = NAN;
	if (ret->trend.verdict == TREND_GROWING && last->has_group && ret->trend.slope > 0 &&
	    last->group_limit != CGROUP_UNKNOWN && last->group_usage <= last->group_limit)
		ret->forecast = (double)(last->group_limit - last->group_usage) / ret->trend.slope;
	for (unsigned i = 0; i < WATCH_OTHERS; i++)
		ret->correlations[i] =
			trend_moves_with(&series->memory, &series->others[i], &ret->sure[i]);
}

static json_t *moves_json(const struct summary *summary)
{
	json_t *array = json_array();

	for (unsigned i = 0; i < WATCH_OTHERS; i++)
		if (summary->sure[i])
			json_array_append_new(array,
					      json_pack("{s:s, s:f}", "what", other_names[i],
							"correlation", summary->correlations[i]));
	return array;
}

json_t *watch_series_json(const struct watch_series *series)
{
	struct summary summary;
	json_t *object = json_object();

	summarize(series, &summary);
	json_object_set_new(object, "pid", json_integer(series->last.pid));
	json_object_set_new(object, "name", json_text(series->last.usage.name));
	json_object_set_new(object, "verdict",
			    json_string(trend_verdict_name(summary.trend.verdict)));
	json_object_set_new(object, "slope", json_real(summary.trend.slope));
	json_object_set_new(object, "slope_low", json_real(summary.trend.slope_low));
	json_object_set_new(object, "slope_high", json_real(summary.trend.slope_high));
	json_object_set_new(object, "limit",
			    series->last.has_group ? json_number(series->last.group_limit)
						   : json_null());
	json_object_set_new(object, "forecast_s",
			    isnan(summary.forecast) ? json_null() : json_real(summary.forecast));
	json_object_set_new(object, "restarts", json_integer(series->restarts));
	json_object_set_new(object, "moves_with", moves_json(&summary));
	json_object_set_new(object, "rss_first", json_real(summary.trend.first));
	json_object_set_new(object, "rss_last", json_real(summary.trend.last));
	json_object_set_new(object, "duration", json_real(summary.trend.seconds));
	json_object_set_new(object, "ended", json_boolean(series->ended));
	return object;
}

/* ---- in words ---- */

static const char *rate_text(double rate, char buffer[TABLE_SIZE_MAX + 8])
{
	char size[SIZE_TEXT_MAX];

	snprintf(buffer, TABLE_SIZE_MAX + 8, "%s%s/s", rate < 0 ? "-" : "",
		 format_size((uint64_t)fabs(rate), size));
	return buffer;
}

static void print_growing(FILE *out, const struct watch_series *series,
			  const struct summary *summary)
{
	char rates[3][TABLE_SIZE_MAX + 8], limit[SIZE_TEXT_MAX], time[TIME_TEXT_MAX];

	fprintf(out, "grows by %s (95%% sure: %s to %s)", rate_text(summary->trend.slope, rates[0]),
		rate_text(summary->trend.slope_low, rates[1]),
		rate_text(summary->trend.slope_high, rates[2]));
	if (!isnan(summary->forecast))
		fprintf(out, "; it reaches the limit of %s in %s",
			format_size(series->last.group_limit, limit),
			format_time((uint64_t)(summary->forecast * 1e6), time));
}

static void print_verdict(FILE *out, struct table_style style, const struct watch_series *series,
			  const struct summary *summary)
{
	char sizes[3][TABLE_SIZE_MAX], rate[TABLE_SIZE_MAX + 8];
	const struct trend *trend = &summary->trend;

	table_size(style, (uint64_t)trend->last, sizes[0]);
	table_size(style, (uint64_t)trend->lowest, sizes[1]);
	table_size(style, (uint64_t)trend->highest, sizes[2]);
	switch (trend->verdict) {
	case TREND_GROWING:
		print_growing(out, series, summary);
		break;
	case TREND_SAW_TOOTH:
		fprintf(out, "rises and falls again and again (saw-tooth) between %s and %s",
			sizes[1], sizes[2]);
		break;
	case TREND_PLATEAU:
		fprintf(out, "grew to %s and has stopped there (plateau)", sizes[0]);
		break;
	case TREND_WARMING_UP:
		fprintf(out,
			"is warming up: it grows by %s, more slowly than at first, or has not "
			"been watched for long",
			rate_text(trend->slope, rate));
		break;
	case TREND_STEADY:
		fprintf(out, "is steady at %s", sizes[0]);
		if (trend->highest - trend->lowest >= LEAST)
			fprintf(out, " (between %s and %s)", sizes[1], sizes[2]);
		break;
	}
}

void watch_series_print(FILE *out, struct table_style style, const struct watch_series *series)
{
	cleanup(free) char *name = text_printable(series->last.usage.name);
	char time[TIME_TEXT_MAX];
	struct summary summary;
	bool first = true;

	if (!series->samples)
		return;
	summarize(series, &summary);
	fprintf(out, "watch: %s (%d) ", name ? name : "", series->last.pid);
	print_verdict(out, style, series, &summary);
	fprintf(out, "; watched for %s",
		format_time((uint64_t)(summary.trend.seconds * 1e6), time));
	if (series->restarts)
		fprintf(out, ", restarted %u %s", series->restarts,
			series->restarts == 1 ? "time" : "times");
	fputc('\n', out);
	for (unsigned i = 0; i < WATCH_OTHERS; i++) {
		if (!summary.sure[i])
			continue;
		fprintf(out, "%s%s (%.2f)", first ? "RSS moves with " : ", ", other_names[i],
			summary.correlations[i]);
		first = false;
	}
	if (!first)
		fputc('\n', out);
}
