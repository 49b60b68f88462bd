/* The words by which the agent is told what to do. */
#include "agent_recorder.h"

#include <unistd.h>
#include <x86intrin.h>

#include "memprobe/clock.h"
#include "memprobe/num.h"

#define CTL(member) offsetof(struct agent_ctl, member)

uint32_t agent_now(const struct agent_recorder *agent)
{
	return (uint32_t)((clock_us() - agent->clock_us_0) / 1000);
}

bool control_put(const struct agent_recorder *agent, uint64_t offset, const void *bytes,
		 size_t size)
{
	return pwrite(agent->memory, bytes, size,
		      (off_t)(agent->image + AGENT_IMAGE_SPACE + offset)) == (ssize_t)size;
}

bool control_put_32(const struct agent_recorder *agent, uint64_t offset, uint32_t value)
{
	return control_put(agent, offset, &value, sizeof(value));
}

bool control_put_64(const struct agent_recorder *agent, uint64_t offset, uint64_t value)
{
	return control_put(agent, offset, &value, sizeof(value));
}

bool control_get(const struct agent_recorder *agent, uint64_t offset, void *bytes, size_t size)
{
	return pread(agent->memory, bytes, size,
		     (off_t)(agent->image + AGENT_IMAGE_SPACE + offset)) == (ssize_t)size;
}

/* In the unit of the agent's clock. */
static uint64_t deadline(const struct agent_recorder *agent)
{
	uint64_t elapsed = max_u64(clock_us() - agent->clock_us_0, 1);
	uint64_t tsc = __rdtsc();
	double per_us = (double)(tsc - agent->tsc_0) / (double)elapsed;

	if (agent->clock.address)
		return lease_clock_now(&agent->clock) + UINT64_C(1000) * TRACE_LEASE_US;
	return tsc + (uint64_t)(per_us * TRACE_LEASE_US);
}

bool control_renew_lease(const struct agent_recorder *agent)
{
	return control_put_64(agent, CTL(deadline), deadline(agent)) &&
	       control_put_32(agent, CTL(now), agent_now(agent));
}

bool control_put_limits(const struct agent_recorder *agent)
{
	return control_put_64(agent, CTL(frames_limit), agent->tables.frames_ready) &&
	       control_put_32(agent, CTL(live_levels), agent->tables.live_ready) &&
	       control_put_32(agent, CTL(stack_levels), agent->tables.stack_ready);
}

bool control_put_range(const struct agent_recorder *agent, uint64_t min_size, uint64_t max_size)
{
	return control_put_64(agent, CTL(min_size), min_size) &&
	       control_put_64(agent, CTL(max_size), max_size);
}

uint32_t control_mode(const struct agent_recorder *agent)
{
	return agent->report->rate <= 1 ? AGENT_EXACT : AGENT_SAMPLING;
}

void agent_end(struct agent_recorder *agent)
{
	if (!agent->end_us)
		agent->end_us = clock_us();
}

uint64_t agent_mark(void *recorder)
{
	struct agent_recorder *agent = recorder;
	uint32_t now;

	control_renew_lease(agent);
	now = agent_now(agent);
	if (agent->tables.contexts_count)
		return tables_shm(&agent->tables)->sequence;
	/* Blocks are told apart by their time: let the next millisecond begin. */
	control_put_32(agent, CTL(now), now + 1);
	return now;
}
