#include "memprobe/cmd.h"

#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>

#include "memprobe/core.h"
#include "memprobe/io.h"
#include "memprobe/log.h"
#include "memprobe/num.h"
#include "memprobe/pause.h"
#include "memprobe/table.h"
#include "memprobe/version.h"
#include "guard_target.h"
#include "poke.h"
#include "progress.h"

#define DEFAULT_TIMEOUT_US 5000000

/* getopt_long() values of long options: the common ones first, then the command's. */
enum { OPTION_COMMON = 0x1000, OPTION_COMMAND = 0x2000 };

static volatile sig_atomic_t interrupted;

/* The one run's settings for the log sink, which has no argument of its own. */
static int log_verbose;
static bool log_quiet;
static json_t *log_warnings;

/* What a signal handler must know: whether the command is a recording, which writes what it has;
 * whether an output is being written; and the target, which must be as it was. */
static bool interrupt_ends_recording;
static volatile sig_atomic_t is_writing, is_done;
static struct target *interrupt_target;

/* A command that has been told to end and works on something that does not look for it. */
#define LAST_US 200000
#define NEXT_US 20000

static void arm(suseconds_t us)
{
	const struct itimerval timer = { .it_value = { 0, us } };

	setitimer(ITIMER_REAL, &timer, NULL);
}

/* Without SA_RESTART: it also ends a write that nobody reads, in whatever thread. */
static void on_alarm(int signal, siginfo_t *info, void *context)
{
	int errnum = errno;

	(void)context;
	if (info->si_code == SI_TKILL || is_done)
		return;
	if (!is_writing && (!interrupt_target || !atomic_load(&interrupt_target->busy)))
		_exit(128 + interrupted);
	poke_threads(signal);
	arm(NEXT_US);
	errno = errnum;
}

static void on_interrupt(int signal)
{
	interrupted = signal;
	if (!interrupt_ends_recording)
		arm(LAST_US);
}

/* Whether it ends here: nothing is written any more. */
static bool is_ending(void)
{
	return interrupted && !interrupt_ends_recording && !is_done;
}

void command_written(void)
{
	is_done = true;
}

static struct error *interrupted_error(void)
{
	return error_create(ERROR_INTERRUPTED, "interrupted");
}

bool command_interrupted(void)
{
	return interrupted != 0;
}

void command_interrupt_obeyed(void)
{
	interrupted = 0;
}

static void catch_signals(void)
{
	struct sigaction action = { .sa_handler = on_interrupt, .sa_flags = SA_RESTART }, before;
	const struct sigaction last = { .sa_sigaction = on_alarm, .sa_flags = SA_SIGINFO };

	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
	/* Unless by nohup. */
	if (!sigaction(SIGHUP, NULL, &before) && before.sa_handler != SIG_IGN)
		sigaction(SIGHUP, &action, NULL);
	sigaction(SIGALRM, &last, NULL);
	action.sa_flags = 0;
	/* A closed pipe is a write error, not a death with a target in our hands. */
	action.sa_handler = SIG_IGN;
	sigaction(SIGPIPE, &action, NULL);
	/* So is a file that is to become larger than ulimit -f allows, those in memory included. */
	sigaction(SIGXFSZ, &action, NULL);
}

static void show_message(enum log_level level, const char *message)
{
	if (is_ending() && level != LOG_LEVEL_DEBUG)
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

static void show_error(const struct error *error)
{
	cleanup(free) char *message = text_printable(error->message);

	fprintf(stderr, "memprobe: %s\n", message ? message : "out of memory");
	if (error->hint) {
		cleanup(free) char *hint = text_printable(error->hint);

		fprintf(stderr, "hint: %s\n", hint ? hint : "");
	}
}

const char *command_option(const struct command_context *context, const char *name)
{
	for (size_t i = 0; context->command->options[i].name; i++)
		if (!strcmp(context->command->options[i].name, name))
			return context->option_values[i];
	return NULL;
}

void command_stopped(struct command_context *context, uint64_t us)
{
	context->stopped_us = max_u64(context->stopped_us, us);
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

/* ---- the command line ---- */

static size_t count_options(const struct command_option *options)
{
	size_t count = 0;

	while (options && options[count].name)
		count++;
	return count;
}

struct parser {
	struct option *longs;
	char *shorts;
};

static void add_options(struct parser *parser, size_t *count, const struct command_option *options,
			int base)
{
	char *letter = parser->shorts + strlen(parser->shorts);

	for (size_t i = 0; options && options[i].name; i++) {
		parser->longs[(*count)++] = (struct option){
			.name = options[i].name,
			.has_arg = options[i].argument ? required_argument : no_argument,
			.val = base + (int)i,
		};
		if (!options[i].letter)
			continue;
		*letter++ = options[i].letter;
		if (options[i].argument)
			*letter++ = ':';
	}
	*letter = '\0';
}

static struct error *parser_init(struct parser *parser, const struct command *command)
{
	size_t count = count_options(common_options);

	if (command)
		count += count_options(command->options);
	parser->longs = calloc(count + 2, sizeof(*parser->longs));
	parser->shorts = calloc(count + 2, 2);
	if (!parser->longs || !parser->shorts)
		return &error_no_memory;
	/* Without a command, stop at the first word: it is the command. */
	memcpy(parser->shorts, command ? ":" : "+:", command ? 1 : 2);
	count = 0;
	/* The command's own first: of two of one name, getopt_long() takes the first. */
	if (command)
		add_options(parser, &count, command->options, OPTION_COMMAND);
	add_options(parser, &count, common_options, OPTION_COMMON);
	if (!command)
		parser->longs[count].name = "version", parser->longs[count].val = 'V';
	return NULL;
}

static void parser_deinit(struct parser *parser)
{
	free(parser->longs);
	free(parser->shorts);
}

/* A short option's value of getopt is its letter: find the option it stands for. */
static int option_of_letter(const struct command_option *options, int letter, int base)
{
	for (size_t i = 0; options && options[i].name; i++)
		if (options[i].letter == letter)
			return base + (int)i;
	return -1;
}

struct options_seen {
	bool help, version;
};

static struct error *set_color(struct command_context *context, const char *when)
{
	if (!strcmp(when, "auto"))
		context->color = isatty(STDOUT_FILENO) && !getenv("NO_COLOR");
	else if (!strcmp(when, "always") || !strcmp(when, "never"))
		context->color = when[0] == 'a';
	else
		return error_create(ERROR_USAGE, "--color takes auto, always or never, not '%s'",
				    when);
	return NULL;
}

static struct error *set_max_pause(struct command_context *context, const char *value)
{
	struct error *error = parse_time(value, &context->max_pause_us);

	if (!error && !context->max_pause_us)
		return error_create(ERROR_USAGE, "--max-pause takes a time above 0");
	return error;
}

static struct error *set_common_option(struct command_context *context, const char *name,
				       const char *value, struct options_seen *seen)
{
	if (!strcmp(name, "json"))
		context->json = true;
	else if (!strcmp(name, "bytes"))
		context->bytes = true;
	else if (!strcmp(name, "output"))
		context->output_path = value;
	else if (!strcmp(name, "quiet"))
		context->quiet = true;
	else if (!strcmp(name, "verbose"))
		context->verbose++;
	else if (!strcmp(name, "color"))
		return set_color(context, value);
	else if (!strcmp(name, "timeout"))
		return parse_time(value, &context->timeout_us);
	else if (!strcmp(name, "max-pause"))
		return set_max_pause(context, value);
	else
		seen->help = true;
	return NULL;
}

/* @what is getopt_long()'s answer; optopt is a letter, a long option's value, or 0. */
static struct error *refused_option(const struct command *command, int what, char **argv)
{
	enum option_refusal refusal = what == ':'		? OPTION_WITHOUT_VALUE
				      : optopt >= OPTION_COMMON ? OPTION_WITH_VALUE
								: OPTION_UNKNOWN;

	return command_refuse_option(command, refusal, optopt < 0x100 ? (char)optopt : '\0',
				     argv[optind - 1]);
}

/* Parses argv[1...]; the words that are no options end up at argv[optind...]. */
static struct error *parse_options(struct command_context *context, int argc, char **argv,
				   struct options_seen *seen)
{
	const struct command_option *options = context->command ? context->command->options : NULL;
	struct parser parser = { 0 };
	struct error *error = parser_init(&parser, context->command);

	optind = 0;
	opterr = 0;
	while (!error) {
		int value = getopt_long(argc, argv, parser.shorts, parser.longs, NULL);

		if (value == -1)
			break;
		if (value == '?' || value == ':') {
			error = refused_option(context->command, value, argv);
			break;
		}
		if (value == 'V' && !context->command) {
			seen->version = true;
			continue;
		}
		if (value < OPTION_COMMON) {
			int letter = value;

			value = option_of_letter(options, letter, OPTION_COMMAND);
			if (value < 0)
				value = option_of_letter(common_options, letter, OPTION_COMMON);
		}
		if (value >= OPTION_COMMAND)
			context->option_values[value - OPTION_COMMAND] = optarg ? optarg : "";
		else
			error = set_common_option(
				context, common_options[value - OPTION_COMMON].name, optarg, seen);
	}
	parser_deinit(&parser);
	return error;
}

/* ---- the target ---- */

static struct error *open_by_name(const char *name, struct target **ret)
{
	struct pid_vec pids = { 0 };
	struct error *error = process_find_by_name(name, &pids);

	if (!error && pids.size == 1) {
		error = target_open_live(pids.data[0], ret);
	} else if (!error && pids.size == 0) {
		error = error_hint(error_create(ERROR_NO_TARGET, "no process is called '%s'", name),
				   "give a PID, or the exact name that `ps -e` shows");
	} else if (!error) {
		char list[256] = "";
		size_t length = 0;

		for (size_t i = 0; i < pids.size && length < sizeof(list) - 16; i++)
			length += snprintf(list + length, sizeof(list) - length, " %d",
					   (int)pids.data[i]);
		error = error_hint(error_create(ERROR_USAGE, "%zu processes are called '%s':%s%s",
						pids.size, name, list,
						length >= sizeof(list) - 16 ? " ..." : ""),
				   "give one of these PIDs");
	}
	pid_vec_deinit(&pids);
	return error;
}

/* Names that are also those of files here: a core is opened, any other file only explains. */
static struct error *open_by_path_or_name(const char *text, struct target **ret)
{
	struct stat status;
	bool exists = stat(text, &status) == 0, is_file = exists && S_ISREG(status.st_mode);
	int errnum = errno;
	struct error *error;

	if (core_probe(text) || (is_file && strchr(text, '/')))
		return target_open_core(text, ret);
	error = open_by_name(text, ret);
	if (!exists && strchr(text, '/') && error_is(error, ERROR_NO_TARGET)) {
		error_destroy(error);
		return error_errno(ERROR_NO_TARGET, errnum, "cannot open %s", text);
	}
	if (is_file && error_is(error, ERROR_NO_TARGET)) {
		error_destroy(error);
		error = target_open_core(text, ret);
	}
	return error;
}

static struct error *open_target(struct command_context *context)
{
	const char *text = context->target_text;
	uint64_t pid;
	struct error *error = parse_u64(text, &pid);

	if (!error) {
		if (pid == 0 || pid > INT32_MAX)
			return error_create(ERROR_NO_TARGET, "no process %s", text);
		return target_open_live((pid_t)pid, &context->target);
	}
	error_destroy(error);
	error = open_by_path_or_name(text, &context->target);
	if (!error && target_is_core(context->target) && context->command->target != TARGET_ANY)
		return error_create(ERROR_UNSUPPORTED, "%s needs a live process: %s is a core",
				    context->command->name, text);
	return error;
}

static struct error *usage_error(const struct command *command, const char *what)
{
	static const char *const targets[] = {
		[TARGET_NONE] = "",
		[TARGET_OPTIONAL] = " [TARGET]",
		[TARGET_ANY] = " TARGET",
		[TARGET_LIVE] = " TARGET",
	};

	return error_hint(error_create(ERROR_USAGE, "%s: %s", command->name, what),
			  "memprobe %s%s%s%s", command->name, targets[command->target],
			  *command->arguments ? " " : "", command->arguments);
}

/* What cannot be done may be so for what is missing. */
static struct error *blame_cut(struct error *error)
{
	struct error *blamed;

	if (error->code != ERROR_UNSUPPORTED && error->code != ERROR_FAILED)
		return error;
	blamed = error_hint(error_create(ERROR_PARTIAL, "%s", error->message),
			    "the core is cut short: what is needed may be in the missing part");
	error_destroy(error);
	return blamed;
}

/* `maps --every` ends by Ctrl-C, too. */
static bool command_records(const struct command_context *context)
{
	const struct command *command = context->command;

	return command->records == RECORDS_ALWAYS ||
	       (command->records == RECORDS_WITH_EVERY && command_option(context, "every"));
}

static struct error *run_command(struct command_context *context, int argc, char **argv)
{
	const struct command *command = context->command;
	struct error *error;

	if (command->target != TARGET_NONE && argc > 0) {
		context->target_text = argv[0];
		argc--;
		argv++;
	} else if (command->target == TARGET_ANY || command->target == TARGET_LIVE) {
		return usage_error(command, "no target");
	}
	if ((unsigned)argc < command->arguments_min)
		return usage_error(command, "too few arguments");
	if ((unsigned)argc > command->arguments_max)
		return usage_error(command, "too many arguments");
	context->argument_count = argc;
	context->arguments = argv;
	interrupt_ends_recording = command_records(context);
	if (context->target_text) {
		error = open_target(context);
		if (error)
			return error;
		if (context->target->process && command->stops)
			guard_target(context->target->process);
		if (!interrupt_ends_recording)
			context->target->interrupted = command_interrupted;
		interrupt_target = context->target;
	}
	progress_begin(context);
	error = command->run(context);
	progress_end();
	if (is_ending()) {
		error_destroy(error);
		return interrupted_error();
	}
	if (!context->target || !core_is_truncated(context->target))
		return error;
	if (!error && !context->status)
		context->status = ERROR_PARTIAL;
	return error ? blame_cut(error) : NULL;
}

static struct error *flush_stdout(void)
{
	if (fflush(stdout) || ferror(stdout))
		return error_errno(ERROR_FAILED, errno, "cannot write standard output");
	return NULL;
}

/* The words before the command: common options only. @argc and @argv come out at the command. */
static struct error *find_command(struct command_context *context, int *argc, char ***argv,
				  struct options_seen *seen)
{
	struct error *error = parse_options(context, *argc, *argv, seen);

	if (error || seen->version)
		return error;
	*argc -= optind;
	*argv += optind;
	if (*argc == 0 && seen->help)
		return NULL;
	if (*argc == 0)
		return error_hint(error_create(ERROR_USAGE, "no command"),
				  "`memprobe -h` lists the commands");
	context->command = command_find((*argv)[0]);
	if (context->command)
		return NULL;
	if (!command_is_target((*argv)[0]))
		return command_unknown((*argv)[0]);
	/* `memprobe TARGET`: its options are parsed as if the command stood before it. */
	context->command = command_find("diagnose");
	(*argc)++;
	(*argv)--;
	return NULL;
}

static struct error *run(struct command_context *context, int argc, char **argv)
{
	struct options_seen seen = { 0 };
	struct error *error = find_command(context, &argc, &argv, &seen);

	/* `-h COMMAND` is `COMMAND -h`, whatever follows. */
	if (!error && context->command && !seen.help) {
		context->option_values = calloc(count_options(context->command->options) + 1,
						sizeof(*context->option_values));
		if (!context->option_values)
			return &error_no_memory;
		error = parse_options(context, argc, argv, &seen);
		argc -= optind;
		argv += optind;
	}
	log_verbose = context->verbose;
	log_quiet = context->quiet;
	if (error)
		return error;
	if (seen.version)
		printf("memprobe %s\n", MEMPROBE_VERSION);
	else if (seen.help && context->command)
		command_usage(stdout, context->command);
	else if (seen.help)
		memprobe_usage(stdout);
	else
		error = run_command(context, argc, argv);
	return error ? error : flush_stdout();
}

/* Whether it is among the words, parsed or not: an option before it may be wrong. */
static bool wants_json(const struct command_context *context, int argc, char **argv)
{
	bool found = context->json;

	for (int i = 1; i < argc && strcmp(argv[i], "--"); i++)
		found = found || !strcmp(argv[i], "--json");
	return found;
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

int memprobe_main(int argc, char **argv)
{
	struct command_context context = { .timeout_us = DEFAULT_TIMEOUT_US,
					   .max_pause_us = PAUSE_MAX_DEFAULT_US };
	struct error *error = set_color(&context, "auto");
	char time[TIME_TEXT_MAX];
	int status;

	catch_signals();
	log_warnings = json_array();
	log_set_sink(show_message);
	if (!error)
		error = log_warnings ? run(&context, argc, argv) : &error_no_memory;
	status = error ? error_exit_status(error) : context.status;
	if (error_is(error, ERROR_INTERRUPTED) && interrupted)
		status = 128 + interrupted;
	/* Who closed the pipe has seen enough. */
	if (error && error->errnum != EPIPE && error->code != ERROR_INTERRUPTED) {
		show_error(error);
		if (!is_done && wants_json(&context, argc, argv))
			write_json_error(&context, error);
	}
	if (context.verbose && context.stopped_us)
		fprintf(stderr, "memprobe: longest stop of a thread: %s\n",
			format_time(context.stopped_us, time));
	error_destroy(error);
	interrupt_target = NULL;
	target_destroy(context.target);
	free(context.option_values);
	log_set_sink(NULL);
	json_decref(log_warnings);
	return status;
}

/* ---- output ---- */

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

	if (!context->output_path || !strcmp(context->output_path, "-"))
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
	if (!error && is_ending())
		error = interrupted_error();
	return error ? error : output_commit(take_pointer(output));
}

struct error *command_print(struct command_context *context,
			    struct error *(*print)(FILE *out, void *data), void *data)
{
	struct error *error;

	/* What is printed may go to the same terminal. */
	progress_end();
	if (is_ending())
		return interrupted_error();
	is_writing = context->output_path && strcmp(context->output_path, "-");
	error = print_to(context, print, data);
	is_writing = false;
	if (!error)
		command_written();
	return error;
}
