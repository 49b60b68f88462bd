#include "memprobe/cmd.h"

#include <inttypes.h>
#include <string.h>

#include "memprobe/call.h"
#include "memprobe/call_expression.h"
#include "memprobe/num.h"

#define STACK_NEEDED 65536u

static const struct command_option options[] = {
	{ NULL, 0, NULL, NULL },
};

struct outcome {
	unsigned bits;
	uint64_t returned;
	bool has_errno; /* the function returned -1 */
	int errnum;
};

static bool fits(const struct call_argument *argument, unsigned word_size)
{
	return word_size == 8 || argument->value <= UINT32_MAX ||
	       argument->value >= (uint64_t)INT32_MIN;
}

/* Strings become writable copies in the script's data. */
static struct error *add_arguments(const struct call_expression *expression,
				   struct call_script *script, struct call_arg *args)
{
	for (size_t i = 0; i < expression->count; i++) {
		const struct call_argument *argument = &expression->arguments[i];

		if (argument->kind == ARGUMENT_STRING)
			args[i] = CALL_ADDR(
				call_add_data(script, argument->bytes, argument->size + 1));
		else if (fits(argument, script->arch->word_size))
			args[i] = CALL_ARG(argument->value);
		else
			return error_create(ERROR_USAGE,
					    "argument %zu is larger than the 32 bits of the target",
					    i + 1);
	}
	if (script->overflow)
		return error_create(ERROR_USAGE, "the strings are longer than a call can carry");
	return NULL;
}

/* errno, as the stub finds it: all of it within the script, so that memprobe need not be quick. */
struct errno_slots {
	bool known;
	size_t address, zero, value;
};

static void add_copy(struct call_script *script, struct call_arg to, struct call_arg from)
{
	struct call_step *step = &script->steps[script->step_count];

	if (script->step_count == CALL_STEPS_MAX) {
		script->overflow = true;
		return;
	}
	*step = (struct call_step){
		.op = CALL_OP_COPY,
		.args = { to, from, CALL_ARG(sizeof(int)) },
		.result = call_add_data(script, NULL, script->arch->word_size),
	};
	script->step_count++;
}

/* errno is cleared before the call, so that what is there after it is the function's own. */
static void add_errno_before(struct call_session *session, struct call_script *script,
			     struct errno_slots *ret)
{
	uint64_t location;
	struct error *error = call_find_function(session, "__errno_location", &location);

	*ret = (struct errno_slots){ .known = !error };
	error_destroy(error);
	if (!ret->known)
		return;
	ret->zero = call_add_data(script, NULL, script->arch->word_size);
	ret->value = call_add_data(script, NULL, script->arch->word_size);
	ret->address = call_add_function(script, location, 0, NULL);
	add_copy(script, CALL_WORD(ret->address), CALL_ADDR(ret->zero));
}

static void add_errno_after(struct call_script *script, const struct errno_slots *slots)
{
	if (slots->known)
		add_copy(script, CALL_ADDR(slots->value), CALL_WORD(slots->address));
}

/* As an int or as a word: a function that returns int leaves the upper half undefined. */
static bool is_minus_one(uint64_t returned)
{
	return (uint32_t)returned == UINT32_MAX;
}

/* By name, or by an address in code. */
static struct error *find_function(struct target *target, struct call_session *session,
				   const char *function, uint64_t *ret)
{
	const struct mapping *mapping;
	struct mapping_vec maps = { 0 };
	struct error *error;

	if (strncmp(function, "0x", 2))
		return call_find_function(session, function, ret);
	error = parse_address(function, ret);
	if (!error)
		error = target_read_maps(target, MAPS_PLAIN, &maps);
	if (error)
		return error;
	mapping = mappings_find(&maps, *ret);
	if (!mapping || !(mapping->perms & PERM_EXEC))
		error = error_create(ERROR_USAGE, "there is no code at %s", function);
	mappings_deinit(&maps);
	return error;
}

static struct error *do_call(struct command_context *context,
			     const struct call_expression *expression, struct outcome *ret)
{
	struct call_options call_options = {
		.uses_malloc = true,
		.unforeseen_syscalls = true,
		.stack_needed = STACK_NEEDED,
	};
	struct call_arg args[CALL_ARGUMENTS_MAX];
	cleanup(call) struct call_session *session = NULL;
	struct call_result result = { 0 };
	struct call_script script;
	struct errno_slots slots;
	uint64_t function;
	size_t returned;
	struct error *error;

	call_begin(&script, context->target->arch);
	error = add_arguments(expression, &script, args);
	if (!error)
		error = command_open_call(context, &session);
	if (!error)
		error = find_function(context->target, session, expression->function, &function);
	if (error)
		return error;
	add_errno_before(session, &script, &slots);
	returned = call_add_function(&script, function, expression->count, args);
	add_errno_after(&script, &slots);
	call_add_marker(&script);
	error = call_run(session, &script, &call_options, &result);
	command_stopped(context, call_stopped_us(session));
	if (error)
		return error;
	if (!result.completed)
		return error_create(ERROR_FAILED, "cannot call %s in thread %d",
				    expression->function, (int)result.tid);
	ret->returned = call_result_word(&result, &script, returned);
	ret->has_errno = slots.known && is_minus_one(ret->returned);
	ret->errnum = (int)call_result_word(&result, &script, slots.value);
	return NULL;
}

static struct error *print(FILE *out, void *data)
{
	const struct outcome *outcome = data;
	uint64_t value = outcome->returned;
	int64_t number = outcome->bits == 64 ? (int64_t)value : (int32_t)value;

	fprintf(out, "returned 0x%" PRIx64 " (%" PRId64, value, number);
	if (number != (int32_t)value && value <= UINT32_MAX)
		fprintf(out, ", as an int %" PRId32, (int32_t)value);
	fputs(")\n", out);
	if (outcome->has_errno && outcome->errnum)
		fprintf(out, "errno %d (%s)\n", outcome->errnum, strerror(outcome->errnum));
	return NULL;
}

static struct error *run(struct command_context *context)
{
	struct outcome outcome = { .bits = context->target->arch->bits };
	struct call_expression expression;
	json_t *document;
	struct error *error = call_expression_parse(context->arguments[0], &expression);

	if (error)
		return error;
	error = do_call(context, &expression, &outcome);
	call_expression_deinit(&expression);
	if (error)
		return error;
	if (!context->json)
		return command_print(context, print, &outcome);
	document = command_json(context);
	json_object_set_new(document, "returned", json_address(outcome.returned));
	if (outcome.has_errno)
		json_object_set_new(document, "errno", json_integer(outcome.errnum));
	return command_write_json(context, document);
}

const struct command cmd_call = {
	.name = "call",
	.arguments = "'FUNCTION(ARG, ...)'",
	.summary = "call a function of the target with integer, pointer and string arguments",
	.notes =
		"It really runs in the target, with all its effects: a wrong function or argument can\n"
		"change its data, or make it crash later. A call that crashes itself, or that takes\n"
		"longer than --timeout, is undone. Strings are copies that end with the call.\n",
	.target = TARGET_LIVE,
	.options = options,
	.arguments_min = 1,
	.arguments_max = 1,
	.stops = true,
	.run = run,
};
