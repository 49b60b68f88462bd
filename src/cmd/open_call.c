#include "memprobe/call.h"
#include "memprobe/cmd.h"
#include "memprobe/symbols.h"
#include "memprobe/unwind.h"

/* The unwinder that a call's session asks; made when it first does. */
struct second_opinion {
	struct target *target;
	struct symbolizer *symbolizer;
	struct unwinder *unwinder;
};

static bool unwind(void *data, const struct thread_state *state, struct call_frame *ret, size_t max,
		   size_t *count_ret)
{
	struct second_opinion *opinion = data;
	struct frame_vec frames = { 0 };
	struct error *error = NULL;
	bool whole;

	if (!opinion->symbolizer)
		error = symbolizer_create(opinion->target, &opinion->symbolizer);
	if (!error && !opinion->unwinder)
		error = unwinder_create(opinion->symbolizer, &opinion->unwinder);
	if (!error)
		error = unwind_thread(opinion->unwinder, state, &frames);
	whole = !error && frames.size && frames.size <= max &&
		!frames.data[frames.size - 1].is_cut && !unwinder_differed(opinion->unwinder);
	for (size_t i = 0; i < frames.size; i++)
		whole &= !frames.data[i].is_guessed;
	for (size_t i = 0; whole && i < frames.size; i++)
		ret[i] = (struct call_frame){ frames.data[i].pc, frames.data[i].cfa };
	*count_ret = whole ? frames.size : 0;
	frame_vec_deinit(&frames);
	error_destroy(error);
	return whole;
}

static void destroy(void *data)
{
	struct second_opinion *opinion = data;

	unwinder_destroy(opinion->unwinder);
	symbolizer_destroy(opinion->symbolizer);
	free(opinion);
}

struct error *command_open_call(struct command_context *context, struct call_session **ret)
{
	struct second_opinion *opinion = calloc(1, sizeof(*opinion));
	struct error *error;

	if (!opinion)
		return &error_no_memory;
	opinion->target = context->target;
	error = call_open(context->target, context->timeout_us, ret);
	if (error)
		free(opinion);
	else
		call_set_unwind(*ret, unwind, destroy, opinion);
	return error;
}
