/* The words by which the agent is told what to do. */
#include "session.h"

#include <unistd.h>
#include <x86intrin.h>

#include "memprobe/clock.h"
#include "memprobe/num.h"

#define CTL(member) offsetof(struct agent_ctl, member)

uint32_t trace_now(const struct trace_session *session)
{
	return (uint32_t)((clock_us() - session->clock_us_0) / 1000);
}

bool control_put(const struct trace_session *session, uint64_t offset, const void *bytes,
		 size_t size)
{
	return pwrite(session->memory, bytes, size,
		      (off_t)(session->image + AGENT_IMAGE_SPACE + offset)) == (ssize_t)size;
}

bool control_put_32(const struct trace_session *session, uint64_t offset, uint32_t value)
{
	return control_put(session, offset, &value, sizeof(value));
}

bool control_put_64(const struct trace_session *session, uint64_t offset, uint64_t value)
{
	return control_put(session, offset, &value, sizeof(value));
}

bool control_get(const struct trace_session *session, uint64_t offset, void *bytes, size_t size)
{
	return pread(session->memory, bytes, size,
		     (off_t)(session->image + AGENT_IMAGE_SPACE + offset)) == (ssize_t)size;
}

/* In the unit of the agent's clock. */
static uint64_t deadline(const struct trace_session *session)
{
	uint64_t elapsed = max_u64(clock_us() - session->clock_us_0, 1);
	uint64_t tsc = __rdtsc();
	double per_us = (double)(tsc - session->tsc_0) / (double)elapsed;

	if (session->clock.address)
		return lease_clock_now(&session->clock) + UINT64_C(1000) * TRACE_LEASE_US;
	return tsc + (uint64_t)(per_us * TRACE_LEASE_US);
}

bool control_renew_lease(const struct trace_session *session)
{
	return control_put_64(session, CTL(deadline), deadline(session)) &&
	       control_put_32(session, CTL(now), trace_now(session));
}

bool control_put_limits(const struct trace_session *session)
{
	return control_put_64(session, CTL(frames_limit), session->tables.frames_ready) &&
	       control_put_32(session, CTL(live_levels), session->tables.live_ready) &&
	       control_put_32(session, CTL(stack_levels), session->tables.stack_ready);
}

bool control_put_range(const struct trace_session *session, uint64_t min_size, uint64_t max_size)
{
	return control_put_64(session, CTL(min_size), min_size) &&
	       control_put_64(session, CTL(max_size), max_size);
}

uint32_t control_mode(const struct trace_session *session)
{
	return session->report.rate <= 1 ? AGENT_EXACT : AGENT_SAMPLING;
}

void trace_end(struct trace_session *session)
{
	if (!session->end_us)
		session->end_us = clock_us();
}

uint64_t trace_number(struct trace_session *session)
{
	uint32_t now;

	if (session->uprobe)
		return clock_ns();
	control_renew_lease(session);
	now = trace_now(session);
	if (session->tables.contexts_count)
		return tables_shm(&session->tables)->sequence;
	/* Blocks are told apart by their time: let the next millisecond begin. */
	control_put_32(session, CTL(now), now + 1);
	return now;
}

void trace_area(const struct trace_session *session, uint64_t *start_ret, uint64_t *end_ret)
{
	*start_ret = session->image;
	*end_ret = session->image ? session->image + AGENT_IMAGE_SPACE + sizeof(struct agent_ctl) +
					    session->tables.size
				  : 0;
}
