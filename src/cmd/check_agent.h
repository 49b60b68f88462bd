/* check_agent.h - what `check` tells about agents in the target. Private to cmd/. */
#ifndef CMD_CHECK_AGENT_H
#define CMD_CHECK_AGENT_H

#include "memprobe/target.h"

enum check_agent_state {
	CHECK_AGENT_NONE,
	CHECK_AGENT_LEFT,    /* by a memprobe that was killed */
	CHECK_AGENT_FOREIGN, /* by one of another version */
	CHECK_AGENT_RECORDING,
};

#define CHECK_AGENT_TEXT 160

/* *hint_ret is static; NULL: none. */
struct error *check_agent(struct target *target, enum check_agent_state *state_ret,
			  char text[CHECK_AGENT_TEXT], const char **hint_ret);

#endif
