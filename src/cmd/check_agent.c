#include "check_agent.h"

#include <stdio.h>

#include "memprobe/trace.h"

struct error *check_agent(struct target *target, enum check_agent_state *state_ret,
			  char text[CHECK_AGENT_TEXT], const char **hint_ret)
{
	struct trace_leftover_vec found = { 0 };
	struct error *error = trace_find_leftovers(target, &found);
	enum check_agent_state state = CHECK_AGENT_NONE;
	unsigned hooks = 0;
	uint64_t address = 0;
	const char *when = "idle";
	bool inherited = true;

	vec_for_each (leftover, &found) {
		enum check_agent_state its = leftover->recording ? CHECK_AGENT_RECORDING
					     : leftover->known	 ? CHECK_AGENT_LEFT
								 : CHECK_AGENT_FOREIGN;

		hooks += leftover->hooks;
		/* What has not been looked at since the lease ended is of threads that sleep. */
		if (leftover->active)
			when = leftover->lapsed ? "idle but for a few last calls"
						: "idle within 2 s";
		inherited &= leftover->inherited;
		address = address ? address : leftover->address;
		state = its > state ? its : state;
	}
	*hint_ret = NULL;
	if (state == CHECK_AGENT_NONE) {
		snprintf(text, CHECK_AGENT_TEXT, "none in the target");
	} else if (state == CHECK_AGENT_RECORDING) {
		snprintf(text, CHECK_AGENT_TEXT, "another memprobe is recording (agent at 0x%llx)",
			 (unsigned long long)address);
		*hint_ret = "wait for it to end";
	} else if (state == CHECK_AGENT_LEFT && inherited) {
		snprintf(text, CHECK_AGENT_TEXT,
			 "inherited from a parent that forked while it was recorded: idle, at "
			 "0x%llx, %u functions pass through it",
			 (unsigned long long)address, hooks);
		*hint_ret = "a recording of this process removes it";
	} else if (state == CHECK_AGENT_LEFT) {
		snprintf(text, CHECK_AGENT_TEXT,
			 "left by a memprobe that was killed: %s, at 0x%llx, %u functions pass "
			 "through it",
			 when, (unsigned long long)address, hooks);
		*hint_ret = "the next recording of this process removes it";
	} else {
		snprintf(text, CHECK_AGENT_TEXT,
			 "left by another version of memprobe: idle, at 0x%llx",
			 (unsigned long long)address);
		*hint_ret = "record this process with that version, which removes it";
	}
	trace_leftover_vec_deinit(&found);
	if (!error)
		*state_ret = state;
	return error;
}
