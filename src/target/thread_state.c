#include "memprobe/thread_state.h"

void thread_states_deinit(struct thread_state_vec *states)
{
	vec_for_each (state, states) {
		free(state->stack);
		free(state->regsets);
	}
	thread_state_vec_deinit(states);
}
