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
		error = call_buffer_add_file(caller, NULL, script, buffer);
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

static const struct allocator_mark marks[] = {
	{ "mi_malloc", "", MARK_BESIDE_MALLOC | MARK_IN_PROGRAM },
	{ NULL, NULL, 0 },
};

static const char *const code_marks[] = { "mi_malloc", NULL };
static const char *const code_prefixes[] = { "mi_", "_mi_", NULL };

/* Where they are not the same as the C names. */
#define NONE FUNCTION_NO_ARGUMENT
static const struct allocator_function functions[] = {
	{ "mi_malloc", false, FUNCTION_ALLOC, NONE, 0, NONE, 1 },
	{ "mi_zalloc", false, FUNCTION_ALLOC, NONE, 0, NONE, 1 },
	{ "mi_calloc", false, FUNCTION_ALLOC, NONE, 1, 0, 2 },
	{ "mi_mallocn", false, FUNCTION_ALLOC, NONE, 1, 0, 2 },
	{ "mi_realloc", false, FUNCTION_REALLOC, 0, 1, NONE, 2 },
	{ "mi_free", false, FUNCTION_FREE, 0, NONE, NONE, 1 },
	{ NULL, false, 0, 0, 0, 0, 0 },
};

const struct allocator_ops allocator_mimalloc = {
	.name = "mimalloc",
	.title = "mimalloc",
	.marks = marks,
	.code = { code_marks, code_prefixes, 1 << 20 },
	.functions = functions,
	.has_operators = true,
	.text = mimalloc_text,
	.trim = mimalloc_trim,
};
