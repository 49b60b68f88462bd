/*
 * How often is sampled. Unless the user said it, the rate follows what the target allocates: a
 * sample costs it about 2 us, and a thousand of them a second 0.2 % of a core. Every block is
 * weighed by the rate that it was sampled at, so estimates stay unbiased whatever the rate does.
 */
#include "agent_recorder.h"

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
static unsigned index_of(struct agent_recorder *agent)
{
	unsigned i = 0;

	while (i < agent->rate_count && agent->rates[i] != agent->report->rate)
		i++;
	if (i == AGENT_RATES_MAX)
		return AGENT_RATES_MAX - 1;
	if (i == agent->rate_count)
		agent->rates[agent->rate_count++] = agent->report->rate;
	return i;
}

bool rate_put(struct agent_recorder *agent)
{
	uint64_t index = index_of(agent);

	return control_put_64(agent, CTL(rate), index << AGENT_RATE_BITS | agent->rates[index]);
}

uint64_t rate_of(const struct agent_recorder *agent, unsigned index)
{
	return index < agent->rate_count ? agent->rates[index] : agent->report->rate;
}

double rate_estimate(const struct agent_recorder *agent, uint64_t allocs, uint64_t bytes)
{
	const struct rate_former *former = &agent->former;
	double rest = (double)(bytes - former->bytes);
	double mean =
		fmax(allocs != former->allocs ? rest / (double)(allocs - former->allocs) : 0, 1);

	if (agent->report->rate <= 1)
		return rest;
	return former->estimate - rest / expm1(-mean / (double)agent->report->rate);
}

void rate_begin(struct agent_recorder *agent)
{
	agent->report->rate = agent->options->rate ? agent->options->rate : RATE_MIN;
}

uint64_t rate_samples(const struct trace_counters *counters)
{
	return counters->recorded + counters->filtered + counters->lost_allocs;
}

void rate_slow_down(struct agent_recorder *agent, uint64_t samples, uint64_t us)
{
	double speed = (double)samples * 1e6 / (double)max_u64(us, 1);

	for (; agent->report->rate < RATE_MAX && speed > SAMPLES_PER_SECOND; speed /= 2)
		agent->report->rate *= 2;
}

/* What was entered while every block was recorded is in no filter: each free is to be looked up. */
static bool put_full_filters(const struct agent_recorder *agent)
{
	cleanup(free) uint8_t *full = malloc(AGENT_FILTER_SIZE);

	if (!full)
		return false;
	memset(full, 0xff, AGENT_FILTER_SIZE);
	return control_put(agent, CTL(filter), full, AGENT_FILTER_SIZE) &&
	       control_put(agent, CTL(sieve), full, 1u << AGENT_SIEVE_BITS) &&
	       control_put(agent, CTL(contexts), full, AGENT_CONTEXTS_SIZE);
}

void rate_thin_out(struct agent_recorder *agent, const struct trace_counters *counters)
{
	unsigned filled = agent->tables.filled;
	double mean =
		counters->recorded ? (double)agent->recorded_bytes / (double)counters->recorded : 1;
	bool exact = agent->report->rate <= 1;
	bool limited = agent->tables.allocated_max == agent->tables.limit;
	char size[SIZE_TEXT_MAX], rate[SIZE_TEXT_MAX];

	if (!filled || filled < agent->thin_at)
		return;
	if (exact && !put_full_filters(agent))
		return;
	agent->former = (struct rate_former){
		.estimate = counters->bytes,
		.allocs = counters->recorded,
		.bytes = agent->recorded_bytes,
		.samples = rate_samples(counters),
		.since = clock_us(),
	};
	/* Of blocks of the mean size every fourth. */
	agent->report->rate = exact ? (uint64_t)fmax(4 * mean, 16) : agent->report->rate * 4;
	rate_put(agent);
	control_put_32(agent, CTL(epoch), ++agent->epoch);
	control_put_32(agent, CTL(active), control_mode(agent));
	if (!agent->report->thinned)
		log_warn("the recording has reached %s (%s%s): a sample is taken every %s from "
			 "here on, or less often",
			 limited ? "its limit of memory" : "what its memory cgroups leave to it",
			 format_size(agent->tables.allocated_max, size),
			 limited ? ", --max-memory" : "", format_size(agent->report->rate, rate));
	agent->report->thinned = true;
	agent->thin_at = filled + (unsigned)max_u64((100 - min_u64(filled, 100)) / 4, 1);
}

void rate_follow(struct agent_recorder *agent, const struct trace_counters *counters)
{
	struct rate_former *former = &agent->former;
	uint64_t now = clock_us(), us = now - former->since, rate = agent->report->rate;
	uint64_t samples = rate_samples(counters) - former->samples;
	struct rate_former next = {
		.estimate = counters->bytes,
		.allocs = counters->recorded,
		.bytes = agent->recorded_bytes,
		.samples = former->samples + samples,
		.since = now,
	};
	char text[SIZE_TEXT_MAX];

	if (agent->options->rate || us < FEWER_EVERY_US)
		return;
	if (samples > 2 * SAMPLES_PER_SECOND * us / 1000000)
		rate_slow_down(agent, samples, us);
	else if (us < MORE_EVERY_US)
		return;
	else if (samples < SAMPLES_PER_SECOND / 4 * us / 1000000 && rate > RATE_MIN &&
		 !agent->report->thinned)
		agent->report->rate /= 2;
	*former = next;
	if (rate == agent->report->rate)
		return;
	rate_put(agent);
	log_debug("a sample is taken every %s now", format_size(agent->report->rate, text));
}
