#include "memprobe/cmd.h"

#include <string.h>

#include "memprobe/core.h"
#include "memprobe/num.h"
#include "memprobe/stop.h"
#include "memprobe/records.h"
#include "memprobe/unwind.h"

static const struct command_option options[] = {
	{ "tid", 't', "TID", "only this thread; the others are not stopped" },
	{ 0 },
};

/* One line of a call stack: a symbol and the frame it belongs to. */
struct stack_line {
	uint64_t pc;
	struct symbol symbol;
};

VEC_DEFINE(stack_line_vec, struct stack_line)

struct stack {
	const struct thread_state *thread;
	struct stack_line_vec lines;
	bool is_cut;
};

struct stacks {
	struct stack *data;
	size_t size;
};

static void stacks_deinit(struct stacks *stacks)
{
	for (size_t i = 0; i < stacks->size; i++) {
		vec_for_each (line, &stacks->data[i].lines) {
			free(line->symbol.function);
			free(line->symbol.file);
		}
		stack_line_vec_deinit(&stacks->data[i].lines);
	}
	free(stacks->data);
}

/* Takes over what the symbols own. */
static struct error *add_frame(struct stack *stack, const struct frame *frame,
			       struct symbolizer *symbolizer)
{
	struct symbol_vec symbols = { 0 };
	struct error *error = symbolize(symbolizer, frame->pc, !frame->is_activation, &symbols);

	if (!error)
		error = stack_line_vec_reserve(&stack->lines, stack->lines.size + symbols.size);
	if (error) {
		symbols_deinit(&symbols);
		return error;
	}
	vec_for_each (symbol, &symbols)
		stack->lines.data[stack->lines.size++] = (struct stack_line){ frame->pc, *symbol };
	symbol_vec_deinit(&symbols);
	stack->is_cut = frame->is_cut;
	return NULL;
}

static struct error *resolve_thread(struct symbolizer *symbolizer, struct unwinder *unwinder,
				    struct stack *stack)
{
	struct frame_vec frames = { 0 };
	struct error *error = unwind_thread(unwinder, stack->thread, &frames);

	for (size_t i = 0; !error && i < frames.size; i++)
		error = add_frame(stack, &frames.data[i], symbolizer);
	frame_vec_deinit(&frames);
	return error;
}

static struct error *resolve(struct symbolizer *symbolizer, const struct thread_state_vec *threads,
			     struct stacks *stacks)
{
	cleanup(unwinder) struct unwinder *unwinder = NULL;
	struct error *error = unwinder_create(symbolizer, &unwinder);

	if (error)
		return error;
	stacks->data = calloc(threads->size + 1, sizeof(*stacks->data));
	if (!stacks->data)
		return &error_no_memory;
	vec_for_each (thread, threads) {
		struct stack *stack = &stacks->data[stacks->size++];

		stack->thread = thread;
		error = resolve_thread(symbolizer, unwinder, stack);
		if (error)
			return error;
	}
	return NULL;
}

/* ---- output ---- */

static const char *state_word(char state)
{
	switch (state) {
	case 'R':
		return ", running";
	case 'S':
	case 'I':
		return ", sleeping";
	case 'D':
		return ", in an uninterruptible wait";
	case 'T':
		return ", stopped";
	case 't':
		return ", traced";
	default:
		return "";
	}
}

static const char *base_name(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

/* `function+0x1f (libfoo.so) file.c:12`, or as much of it as is known. */
static char *line_text(const struct symbol *symbol)
{
	char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);
	const char *module = symbol->module ? base_name(symbol->module) : NULL;

	if (!out)
		return NULL;
	if (!symbol->function && module)
		fprintf(out, "%s+0x%llx", module, (unsigned long long)symbol->offset);
	else if (!symbol->function)
		fputs("??", out);
	else if (symbol->inlined)
		fprintf(out, "%s (inlined)", symbol->function);
	else
		fprintf(out, "%s+0x%llx", symbol->function, (unsigned long long)symbol->offset);
	if (symbol->function && module)
		fprintf(out, " (%s)", module);
	if (symbol->file)
		fprintf(out, " %s:%u", symbol->file, symbol->line);
	if (fclose(out)) {
		free(text);
		return NULL;
	}
	return text;
}

static struct error *print_line(FILE *out, unsigned number, unsigned digits,
				const struct stack_line *line)
{
	cleanup(free) char *raw = line_text(&line->symbol);
	cleanup(free) char *text = raw ? text_printable(raw) : NULL;

	if (!text)
		return &error_no_memory;
	fprintf(out, "#%-2u 0x%0*llx %s\n", number, (int)digits, (unsigned long long)line->pc,
		text);
	return NULL;
}

struct printed {
	struct command_context *context;
	const struct stacks *stacks;
};

static struct error *print_text(FILE *out, void *data)
{
	const struct printed *printed = data;
	unsigned digits = printed->context->target->arch->word_size * 2;
	char items[ITEMS_TEXT_MAX];

	fprintf(out, "stack: %s\n\n", format_items(printed->stacks->size, "thread", items));
	for (size_t i = 0; i < printed->stacks->size; i++) {
		const struct stack *stack = &printed->stacks->data[i];
		cleanup(free) char *name = text_printable(stack->thread->name);
		unsigned number = 0;

		if (!name)
			return &error_no_memory;
		fprintf(out, "%sthread %d (%s)%s\n", i ? "\n" : "", (int)stack->thread->tid, name,
			state_word(stack->thread->state));
		vec_for_each (line, &stack->lines) {
			struct error *error = print_line(out, number++, digits, line);

			if (error)
				return error;
		}
		if (stack->is_cut)
			fputs("    (the rest of the stack is unknown)\n", out);
	}
	return NULL;
}

static json_t *json_offset(const void *data)
{
	const struct symbol *symbol = &((const struct stack_line *)data)->symbol;

	return symbol->inlined || (!symbol->function && !symbol->module)
		       ? json_null()
		       : json_integer((json_int_t)symbol->offset);
}

static json_t *json_line(const void *data)
{
	const struct symbol *symbol = &((const struct stack_line *)data)->symbol;

	return symbol->file ? json_integer(symbol->line) : json_null();
}

static json_t *json_inlined(const void *data)
{
	return ((const struct stack_line *)data)->symbol.inlined ? json_true() : json_null();
}

static const struct record_column frame_columns[] = {
	RECORD(stack_line, pc, "pc", NULL, RECORD_ADDRESS),
	RECORD(stack_line, symbol.function, "function", NULL, RECORD_TEXT),
	RECORD(stack_line, symbol.module, "module", NULL, RECORD_TEXT),
	{ .key = "offset", .kind = RECORD_OTHER, .json = json_offset },
	RECORD(stack_line, symbol.file, "file", NULL, RECORD_TEXT, .optional = true),
	{ .key = "line", .kind = RECORD_OTHER, .json = json_line, .optional = true },
	{ .key = "inlined", .kind = RECORD_OTHER, .json = json_inlined, .optional = true },
	{ 0 },
};

static json_t *json_stacks(const struct stacks *stacks)
{
	json_t *threads = json_array();

	for (size_t i = 0; i < stacks->size; i++) {
		const struct stack *stack = &stacks->data[i];
		const struct records frames = {
			.columns = frame_columns,
			.rows = stack->lines.data,
			.count = stack->lines.size,
			.size = sizeof(*stack->lines.data),
		};
		json_t *thread = json_object();
		char state[2] = { stack->thread->state, '\0' };

		json_object_set_new(thread, "tid", json_integer(stack->thread->tid));
		json_object_set_new(thread, "name", json_text(stack->thread->name));
		json_object_set_new(thread, "state", *state ? json_text(state) : json_null());
		json_object_set_new(thread, "frames", records_array(&frames));
		if (stack->is_cut)
			json_object_set_new(thread, "truncated", json_true());
		json_array_append_new(threads, thread);
	}
	return threads;
}

static struct error *show(struct command_context *context, const struct stacks *stacks)
{
	struct printed printed = { context, stacks };
	json_t *document;

	if (!context->json)
		return command_print(context, print_text, &printed);
	document = command_json(context);
	json_object_set_new(document, "threads", json_stacks(stacks));
	return command_write_json(context, document);
}

/* ---- the command ---- */

static struct error *parse_tid(const char *text, pid_t *ret)
{
	uint64_t tid;
	struct error *error = parse_u64(text, &tid);

	if (error)
		return error_prefix(error, "--tid");
	if (tid == 0 || tid > INT32_MAX)
		return error_create(ERROR_USAGE, "--tid: '%s' is no thread id", text);
	*ret = (pid_t)tid;
	return NULL;
}

static struct error *stop_live(struct command_context *context, pid_t tid,
			       struct thread_state_vec *ret)
{
	struct stop_options stop_options = {
		.tids = tid ? &tid : NULL,
		.tid_count = tid ? 1 : 0,
		.max_pause_us = context->max_pause_us,
		.interrupted = command_interrupted,
	};
	cleanup(stop) struct stop *stop = NULL;
	struct error *error = stop_threads(context->target, &stop_options, &stop);

	if (error)
		return error;
	command_stopped(context, stop->stopped_us);
	if (stop->missed.size)
		context->status = ERROR_PARTIAL;
	*ret = stop->threads;
	stop->threads = (struct thread_state_vec){ 0 };
	return NULL;
}

static struct error *take_recorded(struct command_context *context, pid_t tid,
				   struct thread_state_vec *ret)
{
	struct error *error = core_thread_states(context->target, ret);
	size_t kept = 0;

	for (size_t i = 0; !error && i < ret->size; i++)
		if (!tid || ret->data[i].tid == tid)
			ret->data[kept++] = ret->data[i];
	if (error)
		return error;
	ret->size = kept;
	if (tid && !kept)
		return error_create(ERROR_NO_TARGET, "%s has no thread %d", context->target_text,
				    (int)tid);
	if (!kept)
		return error_create(ERROR_FAILED, "%s records no threads", context->target_text);
	return NULL;
}

static struct error *run(struct command_context *context)
{
	cleanup(symbolizer) struct symbolizer *symbolizer = NULL;
	const char *tid_text = command_option(context, "tid");
	struct thread_state_vec threads = { 0 };
	struct stacks stacks = { 0 };
	struct error *error = NULL;
	pid_t tid = 0;

	if (tid_text)
		error = parse_tid(tid_text, &tid);
	/* First, so that a target which ends right afterwards has its names. */
	if (!error)
		error = symbolizer_create(context->target, &symbolizer);
	if (!error)
		error = target_is_core(context->target) ? take_recorded(context, tid, &threads)
							: stop_live(context, tid, &threads);
	if (!error)
		error = resolve(symbolizer, &threads, &stacks);
	if (!error)
		error = show(context, &stacks);
	stacks_deinit(&stacks);
	thread_states_deinit(&threads);
	return error;
}

const struct command cmd_stack = {
	.name = "stack",
	.arguments = "",
	.summary = "call stacks of all threads",
	.target = TARGET_ANY,
	.options = options,
	.stops = true,
	.run = run,
};
