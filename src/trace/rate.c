/*
 * How often is sampled. Unless the user said it, the rate follows what the target allocates: a
 * sample costs it about 2 us, and a thousand of them a second 0.2 % of a core. Every block is
 * weighed by the rate that it was sampled at, so estimates stay unbiased whatever the rate does.
 */
#include "session.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "memprobe/clock.h"
#include "memprobe/log.h"
#include "memprobe/num.h"

#define CTL(member) offsetof(struct agent_ctl, member)

#define SAMPLES_PER_SECOND 1000
#define RATE_MIN	   (64u << 10)
#define RATE_MAX	   (UINT64_C(64) << 20)

/* Too many samples are noticed soon, too few not before there can be no doubt. */
#define FEWER_EVERY_US 200000
#define MORE_EVERY_US  2000000

/* The index of the current rate, added if it is new. */
static unsigned index_of(struct trace_session *session)
{
	unsigned i = 0;

	while (i < session->rate_count && session->rates[i] != session->report.rate)
		i++;
	if (i == TRACE_RATES)
		return TRACE_RATES - 1;
	if (i == session->rate_count)
		session->rates[session->rate_count++] = session->report.rate;
	return i;
}

bool rate_put(struct trace_session *session)
{
	uint64_t index = index_of(session);

	return control_put_64(session, CTL(rate), index << AGENT_RATE_BITS | session->rates[index]);
}

uint64_t rate_of(const struct trace_session *session, unsigned index)
{
	return index < session->rate_count ? session->rates[index] : session->report.rate;
}

double rate_estimate(const struct trace_session *session, uint64_t allocs, uint64_t bytes)
{
	const struct trace_former *former = &session->former;
	double rest = (double)(bytes - former->bytes);
	double mean =
		fmax(allocs != former->allocs ? rest / (double)(allocs - former->allocs) : 0, 1);

	if (session->report.rate <= 1)
		return rest;
	return former->estimate - rest / expm1(-mean / (double)session->report.rate);
}

void rate_begin(struct trace_session *session)
{
	session->report.rate = session->options.rate ? session->options.rate : RATE_MIN;
}

uint64_t rate_samples(const struct trace_counters *counters)
{
	return counters->recorded + counters->filtered + counters->lost_allocs;
}

void rate_slow_down(struct trace_session *session, uint64_t samples, uint64_t us)
{
	double speed = (double)samples * 1e6 / (double)max_u64(us, 1);

	for (; session->report.rate < RATE_MAX && speed > SAMPLES_PER_SECOND; speed /= 2)
		session->report.rate *= 2;
}

/* What was entered while every block was recorded is in no filter: each free is to be looked up. */
static bool put_full_filters(const struct trace_session *session)
{
	cleanup(free) uint8_t *full = malloc(AGENT_FILTER_SIZE);

	if (!full)
		return false;
	memset(full, 0xff, AGENT_FILTER_SIZE);
	return control_put(session, CTL(filter), full, AGENT_FILTER_SIZE) &&
	       control_put(session, CTL(sieve), full, 1u << AGENT_SIEVE_BITS) &&
	       control_put(session, CTL(contexts), full, AGENT_CONTEXTS_SIZE);
}

void rate_thin_out(struct trace_session *session, const struct trace_counters *counters)
{
	unsigned filled = session->tables.filled;
	double mean = counters->recorded
			      ? (double)session->recorded_bytes / (double)counters->recorded
			      : 1;
	bool exact = session->report.rate <= 1;
	bool limited = session->tables.allocated_max == session->tables.limit;
	char size[SIZE_TEXT_MAX], rate[SIZE_TEXT_MAX];

	if (!filled || filled < session->thin_at)
		return;
	if (exact && !put_full_filters(session))
		return;
	session->former = (struct trace_former){
		.estimate = counters->bytes,
		.allocs = counters->recorded,
		.bytes = session->recorded_bytes,
		.samples = rate_samples(counters),
		.since = clock_us(),
	};
	/* Of blocks of the mean size every fourth. */
	session->report.rate = exact ? (uint64_t)fmax(4 * mean, 16) : session->report.rate * 4;
	rate_put(session);
	control_put_32(session, CTL(epoch), ++session->epoch);
	control_put_32(session, CTL(active), control_mode(session));
	if (!session->report.thinned)
		log_warn("the recording has reached %s (%s%s): a sample is taken every %s from "
			 "here on, or less often",
			 limited ? "its limit of memory" : "what its memory cgroups leave to it",
			 format_size(session->tables.allocated_max, size),
			 limited ? ", --max-memory" : "", format_size(session->report.rate, rate));
	session->report.thinned = true;
	session->thin_at = filled + (unsigned)max_u64((100 - min_u64(filled, 100)) / 4, 1);
}

void rate_follow(struct trace_session *session, const struct trace_counters *counters)
{
	struct trace_former *former = &session->former;
	uint64_t now = clock_us(), us = now - former->since, rate = session->report.rate;
	uint64_t samples = rate_samples(counters) - former->samples;
	struct trace_former next = {
		.estimate = counters->bytes,
		.allocs = counters->recorded,
		.bytes = session->recorded_bytes,
		.samples = former->samples + samples,
		.since = now,
	};
	char text[SIZE_TEXT_MAX];

	if (session->options.rate || us < FEWER_EVERY_US)
		return;
	if (samples > 2 * SAMPLES_PER_SECOND * us / 1000000)
		rate_slow_down(session, samples, us);
	else if (us < MORE_EVERY_US)
		return;
	else if (samples < SAMPLES_PER_SECOND / 4 * us / 1000000 && rate > RATE_MIN &&
		 !session->report.thinned)
		session->report.rate /= 2;
	*former = next;
	if (rate == session->report.rate)
		return;
	rate_put(session);
	log_debug("a sample is taken every %s now", format_size(session->report.rate, text));
}
