/* What a command prints: messages, its document or table, and errors. */
#include "output.h"

#include <errno.h>
#include <stdarg.h>
#include <string.h>
#include <unistd.h>

#include "memprobe/core.h"
#include "memprobe/io.h"
#include "memprobe/log.h"
#include "memprobe/num.h"
#include "interrupt.h"
#include "progress.h"

/* The one run's settings for the log sink, which has no argument of its own. */
static int log_verbose;
static bool log_quiet;
static json_t *log_warnings;

/* ---- messages ---- */

static void show_message(enum log_level level, const char *message)
{
	if (interrupt_ends_now() && level != LOG_LEVEL_DEBUG)
		return;
	if (level == LOG_LEVEL_WARN)
		json_array_append_new(log_warnings, json_text(message));
	if (level == LOG_LEVEL_DEBUG ? log_verbose > 0 : !log_quiet) {
		cleanup(free) char *text = text_printable(message);

		progress_clear();
		fprintf(stderr, "memprobe: %s%s\n", level == LOG_LEVEL_WARN ? "warning: " : "",
			text ? text : "out of memory");
	}
}

__attribute__((format(printf, 3, 0))) static void say(const struct command_context *context,
						      const char *prefix, const char *format,
						      va_list args)
{
	if (context->quiet || context->json)
		return;
	progress_clear();
	/* What is printed comes first, also where both go to one pipe. */
	fflush(stdout);
	fputs(prefix, stderr);
	vfprintf(stderr, format, args);
	fputc('\n', stderr);
}

void command_hint(const struct command_context *context, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	say(context, "hint: ", format, args);
	va_end(args);
}

void command_note(const struct command_context *context, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	say(context, "", format, args);
	va_end(args);
}

bool messages_begin(void)
{
	log_warnings = json_array();
	log_set_sink(show_message);
	return log_warnings != NULL;
}

void messages_set_loudness(int verbose, bool quiet)
{
	log_verbose = verbose;
	log_quiet = quiet;
}

void messages_end(void)
{
	log_set_sink(NULL);
	json_decref(log_warnings);
}

/* ---- documents and tables ---- */

static json_t *json_target(const struct command_context *context)
{
	struct target *target = context->target;
	json_t *object = json_object();

	json_object_set_new(object, "pid", target->pid ? json_integer(target->pid) : json_null());
	json_object_set_new(object, "name", json_text(target->name));
	json_object_set_new(object, "exe", json_text(target->exe));
	json_object_set_new(object, "arch", json_string(target->arch->name));
	json_object_set_new(object, "bits", json_integer(target->arch->bits));
	json_object_set_new(object, "libc", command_libc_text(target));
	json_object_set_new(object, "allocator", command_allocator_text(target));
	if (target_is_core(target))
		json_object_set_new(object, "core", json_text(context->target_text));
	return object;
}

json_t *command_json(struct command_context *context)
{
	json_t *document = json_object();

	json_object_set_new(document, "schema", json_string("memprobe/1"));
	json_object_set_new(document, "command", json_string(context->command->name));
	if (context->target)
		json_object_set_new(document, "target", json_target(context));
	json_object_set_new(document, "stopped_us", json_integer(0));
	json_object_set_new(document, "warnings", json_array());
	return document;
}

struct document {
	struct command_context *context;
	json_t *json;
};

static struct error *print_json(FILE *out, void *data)
{
	struct document *document = data;

	json_object_set_new(document->json, "stopped_us",
			    json_integer((json_int_t)document->context->stopped_us));
	json_object_set(document->json, "warnings", log_warnings);
	if (json_dumpf(document->json, out, JSON_INDENT(1)) < 0 || fputc('\n', out) == EOF)
		return error_errno(ERROR_FAILED, errno ? errno : EIO, "cannot write JSON");
	return NULL;
}

struct error *command_write_json(struct command_context *context, json_t *json)
{
	struct document document = { context, json };
	struct error *error;

	if (!json)
		return &error_no_memory;
	error = command_print(context, print_json, &document);
	json_decref(json);
	return error;
}

static struct error *print_to(struct command_context *context,
			      struct error *(*print)(FILE *out, void *data), void *data)
{
	cleanup(output) struct output *output = NULL;
	struct error *error;
	bool failed;
	FILE *out;

	if (command_prints_to_stdout(context))
		return print(stdout, data);
	error = output_open(context->output_path, &output);
	if (error)
		return error;
	out = fdopen(dup(output_fd(output)), "w");
	if (!out)
		return error_errno(ERROR_FAILED, errno, "cannot write %s", context->output_path);
	error = print(out, data);
	failed = ferror(out);
	if ((fclose(out) || failed) && !error)
		error = error_errno(ERROR_FAILED, errno, "cannot write %s", context->output_path);
	if (!error && interrupt_ends_now())
		error = interrupt_error();
	return error ? error : output_commit(take_pointer(output));
}

struct error *command_print(struct command_context *context,
			    struct error *(*print)(FILE *out, void *data), void *data)
{
	struct error *error;

	/* What is printed may go to the same terminal. */
	progress_end();
	if (interrupt_ends_now())
		return interrupt_error();
	interrupt_set_writing(!command_prints_to_stdout(context));
	error = print_to(context, print, data);
	interrupt_set_writing(false);
	if (!error)
		command_written();
	return error;
}

/* ---- errors ---- */

static void show_error(const struct error *error)
{
	cleanup(free) char *message = text_printable(error->message);

	fprintf(stderr, "memprobe: %s\n", message ? message : "out of memory");
	if (error->hint) {
		cleanup(free) char *hint = text_printable(error->hint);

		fprintf(stderr, "hint: %s\n", hint ? hint : "");
	}
}

/* The error for scripts, unless a document has been written before it came. */
static void write_json_error(const struct command_context *context, const struct error *error)
{
	json_t *document = json_object(), *object = json_object();

	json_object_set_new(object, "code", json_integer(error_exit_status(error)));
	json_object_set_new(object, "message", json_text(error->message));
	json_object_set_new(object, "hint", json_text(error->hint));
	json_object_set_new(document, "schema", json_string("memprobe/1"));
	json_object_set_new(document, "command",
			    context->command ? json_string(context->command->name) : json_null());
	json_object_set_new(document, "error", object);
	json_dumpf(document, stdout, JSON_INDENT(1));
	putchar('\n');
	json_decref(document);
}

void messages_error(const struct command_context *context, const struct error *error, bool json)
{
	show_error(error);
	if (json && !interrupt_is_over())
		write_json_error(context, error);
}
