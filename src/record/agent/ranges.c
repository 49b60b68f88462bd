/*
 * What the agent may read: the target's writable memory, by its maps. Where stacks are, and where a
 * guess would lead out of them.
 */
#include "agent_recorder.h"

#include <stdlib.h>
#include <string.h>

#include "memprobe/num.h"

#define CTL(member) offsetof(struct agent_ctl, member)

AGENT_ASSERT(AGENT_RANGES < 1 << AGENT_RANGES_BITS);

static bool is_wanted(const struct mapping *mapping, uint64_t size_min)
{
	return (mapping->perms & (PERM_READ | PERM_WRITE | PERM_SHARED)) ==
		       (PERM_READ | PERM_WRITE) &&
	       mapping->end - mapping->start >= size_min;
}

/* Those of at least @size_min, with neighbours joined; false: they are too many. */
static bool collect(const struct mapping_vec *maps, uint64_t size_min, struct agent_range *ranges,
		    uint32_t *count_ret)
{
	uint32_t count = 0;

	vec_for_each (mapping, maps) {
		bool is_stack = !strcmp(mapping->path, "[stack]");
		struct agent_range *last = count ? &ranges[count - 1] : NULL;

		if (!is_wanted(mapping, size_min))
			continue;
		if (last && !is_stack && last->end == mapping->start &&
		    !(last->start & AGENT_RANGE_STACK)) {
			last->end = mapping->end;
			continue;
		}
		if (count == AGENT_RANGES)
			return false;
		ranges[count++] = (struct agent_range){
			.start = mapping->start | (is_stack ? AGENT_RANGE_STACK : 0),
			.end = mapping->end,
		};
	}
	*count_ret = count;
	return true;
}

bool ranges_publish(struct agent_recorder *agent, const struct mapping_vec *maps)
{
	struct agent_range *former = agent->ranges[agent->ranges_sequence % 2];
	struct agent_range *ranges = agent->ranges[(agent->ranges_sequence + 1) % 2];
	uint64_t table =
		CTL(range_tables) + (agent->ranges_sequence + 1) % 2 * sizeof(agent->ranges[0]);
	uint32_t count = 0;

	/* Of a process with very many, the larger ones: stacks are. */
	for (uint64_t size_min = 1; !collect(maps, size_min, ranges, &count); size_min *= 16)
		;
	if (agent->ranges_sequence && count == agent->ranges_count &&
	    !memcmp(former, ranges, count * sizeof(*ranges)))
		return true;
	if (!control_put(agent, table, ranges, count * sizeof(*ranges)))
		return false;
	agent->ranges_sequence++;
	agent->ranges_count = count;
	return control_put_64(agent, CTL(ranges),
			      agent->ranges_sequence << AGENT_RANGES_BITS | count);
}
