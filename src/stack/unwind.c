#include "memprobe/unwind.h"

#include "memprobe/log.h"
#include "unwinder.h"

struct unwinder {
	struct stack_memory memory;
	struct libunwind_unwinder *libunwind; /* NULL: the target is of another architecture */
	struct libdwfl_unwinder *libdwfl;
	enum unwind_library library;
	bool differed;
};

struct error *unwinder_create(struct symbolizer *symbolizer, struct unwinder **ret)
{
	cleanup(unwinder) struct unwinder *unwinder = calloc(1, sizeof(*unwinder));
	struct error *error;

	if (!unwinder)
		return &error_no_memory;
	unwinder->memory.target = symbolizer->target;
	error = libdwfl_unwinder_create(symbolizer, &unwinder->memory, &unwinder->libdwfl);
	if (!error)
		error = libunwind_unwinder_create(symbolizer->target, &unwinder->memory,
						  &unwinder->libunwind);
	if (!error)
		*ret = take_pointer(unwinder);
	return error;
}

void unwinder_destroy(struct unwinder *unwinder)
{
	if (!unwinder)
		return;
	libunwind_unwinder_destroy(unwinder->libunwind);
	libdwfl_unwinder_destroy(unwinder->libdwfl);
	stack_memory_deinit(&unwinder->memory);
	free(unwinder);
}

void unwinder_use(struct unwinder *unwinder, enum unwind_library library)
{
	unwinder->library = library;
}

bool unwinder_differed(const struct unwinder *unwinder)
{
	return unwinder->differed;
}

static bool is_cut(const struct frame_vec *frames)
{
	return frames->data[frames->size - 1].is_cut;
}

static bool are_equal(const struct frame_vec *a, const struct frame_vec *b)
{
	if (a->size != b->size || is_cut(a) != is_cut(b))
		return false;
	for (size_t i = 0; i < a->size; i++)
		if (a->data[i].pc != b->data[i].pc)
			return false;
	return true;
}

/* The longer one of those that end in a thread's start. */
static bool is_better(const struct frame_vec *frames, const struct frame_vec *than)
{
	if (is_cut(frames) != is_cut(than))
		return is_cut(than);
	return frames->size > than->size;
}

static struct error *append_all(struct frame_vec *frames, const struct frame_vec *more)
{
	struct error *error = frame_vec_reserve(frames, frames->size + more->size);

	if (error)
		return error;
	vec_for_each (frame, more)
		frames->data[frames->size++] = *frame;
	return NULL;
}

static struct error *unwind_by_both(struct unwinder *unwinder, struct frame_vec *frames)
{
	struct frame_vec ours = { 0 }, theirs = { 0 };
	struct error *error = libunwind_unwind(unwinder->libunwind, &ours);

	if (!error)
		error = libdwfl_unwind(unwinder->libdwfl, &theirs);
	if (!error) {
		bool is_theirs = is_better(&theirs, &ours);

		unwinder->differed = !are_equal(&ours, &theirs) && is_cut(&ours) == is_cut(&theirs);
		if (!are_equal(&ours, &theirs))
			log_debug("thread %d: libunwind found %zu frames%s, libdwfl %zu%s: "
				  "those of %s are shown",
				  (int)unwinder->memory.state->tid, ours.size,
				  is_cut(&ours) ? " and no end" : "", theirs.size,
				  is_cut(&theirs) ? " and no end" : "",
				  is_theirs ? "libdwfl" : "libunwind");
		error = append_all(frames, is_theirs ? &theirs : &ours);
	}
	frame_vec_deinit(&ours);
	frame_vec_deinit(&theirs);
	return error;
}

struct error *unwind_thread(struct unwinder *unwinder, const struct thread_state *state,
			    struct frame_vec *frames)
{
	struct error *error;

	unwinder->memory.state = state;
	unwinder->differed = false;
	if (!unwinder->libunwind || unwinder->library == UNWIND_LIBDWFL)
		error = libdwfl_unwind(unwinder->libdwfl, frames);
	else if (unwinder->library == UNWIND_LIBUNWIND)
		error = libunwind_unwind(unwinder->libunwind, frames);
	else
		error = unwind_by_both(unwinder, frames);
	unwinder->memory.state = NULL;
	return error;
}
