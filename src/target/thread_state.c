#include "memprobe/thread_state.h"

void thread_states_deinit(struct thread_state_vec *states)
{
	vec_for_each (state, states) {
		free(state->stack);
		for (size_t i = 0; i < THREAD_INTERRUPTED_MAX; i++)
			free(state->interrupted[i].bytes);
		free(state->regsets);
	}
	thread_state_vec_deinit(states);
}
