#include "memprobe/cmd.h"

#include <errno.h>
#include <getopt.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "memprobe/core.h"
#include "memprobe/num.h"
#include "memprobe/pause.h"
#include "memprobe/table.h"
#include "memprobe/version.h"
#include "guard_target.h"
#include "interrupt.h"
#include "output.h"
#include "progress.h"

#define DEFAULT_TIMEOUT_US 5000000

/* getopt_long() values of long options: the common ones first, then the command's. */
enum { OPTION_COMMON = 0x1000, OPTION_COMMAND = 0x2000 };

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
	bool is_recording;

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
	is_recording = command_records(context);
	interrupt_set_recording(is_recording);
	if (context->target_text) {
		error = open_target(context);
		if (error)
			return error;
		if (context->target->process && command->stops)
			guard_target(context->target->process);
		if (!is_recording)
			context->target->interrupted = command_interrupted;
		interrupt_set_target(context->target);
	}
	progress_begin(context);
	error = command->run(context);
	progress_end();
	if (interrupt_ends_now()) {
		error_destroy(error);
		return interrupt_error();
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
	messages_set_loudness(context->verbose, context->quiet);
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

int memprobe_main(int argc, char **argv)
{
	struct command_context context = { .timeout_us = DEFAULT_TIMEOUT_US,
					   .max_pause_us = PAUSE_MAX_DEFAULT_US };
	struct error *error = set_color(&context, "auto");
	char time[TIME_TEXT_MAX];
	int status;

	interrupt_catch();
	if (!messages_begin())
		error = &error_no_memory;
	if (!error)
		error = run(&context, argc, argv);
	status = error ? error_exit_status(error) : context.status;
	if (error_is(error, ERROR_INTERRUPTED) && interrupt_signal())
		status = 128 + interrupt_signal();
	/* Who closed the pipe has seen enough. */
	if (error && error->errnum != EPIPE && error->code != ERROR_INTERRUPTED)
		messages_error(&context, error, wants_json(&context, argc, argv));
	if (context.verbose && context.stopped_us)
		fprintf(stderr, "memprobe: longest stop of a thread: %s\n",
			format_time(context.stopped_us, time));
	error_destroy(error);
	interrupt_set_target(NULL);
	target_destroy(context.target);
	free(context.option_values);
	messages_end();
	return status;
}
