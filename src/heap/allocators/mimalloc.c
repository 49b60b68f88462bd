/* mimalloc: mi_stats_print_out and mi_collect. It has no call that returns figures. */
#include "heap/calls.h"

#define STATS_BUFFER (1u << 20)
#define STACK_NEEDED 65536u

static const struct call_options options = {
	.uses_malloc = true,
	.first_thread_only = true,
	.stack_needed = STACK_NEEDED,
};

/* mi_stats_print_out(void (*out)(const char *, void *), void *arg): fputs() has out's shape. */
static struct error *add_print_out(struct allocator_caller *caller, struct call_script *script,
				   struct call_buffer *buffer, void *data)
{
	uint64_t print, out;
	struct error *error = find_own_function(caller, "mi_stats_print_out", &print);

	if (!error)
		error = call_find_function(caller->session, "fputs", &out);
	if (!error)
		error = call_buffer_add_file(caller, script, buffer);
	if (error)
		return error;
	call_add_function(script, print, 2,
			  (struct call_arg[]){ CALL_ARG(out), CALL_ADDR(buffer->file) });
	return NULL;
}

static struct error *mimalloc_text(struct allocator_caller *caller, struct call_text *ret)
{
	return call_for_text(caller, STATS_BUFFER, options, add_print_out, NULL, ret, NULL);
}

/* mi_collect(true): the calling thread's heap, and what ended threads left. */
static struct error *mimalloc_trim(struct allocator_caller *caller, uint64_t pad,
				   int64_t *returned_ret)
{
	struct call_result result = { 0 };
	struct call_script script;
	uint64_t function;
	struct error *error = find_own_function(caller, "mi_collect", &function);

	if (error)
		return error;
	call_begin(&script, caller->target->arch);
	call_add_function(&script, function, 1, (struct call_arg[]){ CALL_ARG(1) });
	call_add_marker(&script);
	error = call_run(caller->session, &script, &options, &result);
	return error ? error : check_completed(&result, "collect");
}

const struct allocator_calls calls_mimalloc = {
	.kind = ALLOCATOR_MIMALLOC,
	.text = mimalloc_text,
	.trim = mimalloc_trim,
};
