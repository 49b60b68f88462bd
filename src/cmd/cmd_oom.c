#include "memprobe/oom.h"

#include <ctype.h>
#include <fcntl.h>
#include <string.h>

#include "memprobe/cmd.h"
#include "memprobe/io.h"
#include "memprobe/kernel_log.h"
#include "memprobe/log.h"
#include "memprobe/num.h"
#include "oom_output.h"

#define TOP_DEFAULT 20

static const struct command_option options[] = {
	{ "all", 'a', NULL, "details of every kill, not of the last only" },
	{ "top", 0, "N", "the N largest processes, and the N last kills (default 20; 0: all)" },
	{ NULL, 0, NULL, NULL },
};

/* ---- reading ---- */

struct reading {
	struct oom_parser *parser;
	const char *path;
	uint64_t bytes;
};

/* What logrotate makes; found by how they begin. */
static const struct {
	const char *magic, *reader;
} compressed[] = {
	{ "\x1f\x8b", "zcat" },
	{ "\xfd"
	  "7zXZ",
	  "xzcat" },
	{ "\x28\xb5\x2f\xfd", "zstdcat" },
	{ "BZh", "bzcat" },
};

static struct error *check_beginning(const char *path, const char *bytes, size_t size)
{
	for (size_t i = 0; i < sizeof(compressed) / sizeof(*compressed); i++) {
		size_t length = strlen(compressed[i].magic);

		if (size < length || memcmp(bytes, compressed[i].magic, length) != 0)
			continue;
		return error_hint(error_create(ERROR_FAILED, "%s is compressed", path),
				  "%s %s | memprobe oom -", compressed[i].reader, path);
	}
	return NULL;
}

static struct error *feed(void *data, const char *bytes, size_t size)
{
	struct reading *reading = data;
	struct error *error = NULL;

	if (!reading->bytes && reading->path)
		error = check_beginning(reading->path, bytes, size);
	if (error)
		return error;
	reading->bytes += size;
	if (command_interrupted())
		return error_create(ERROR_INTERRUPTED, "interrupted");
	return oom_parser_feed(reading->parser, bytes, size);
}

static struct error *read_kmsg(const char *path, kernel_log_sink *sink, void *data)
{
	(void)path;
	return kernel_log_read_kmsg(sink, data);
}

static struct error *read_journal(const char *path, kernel_log_sink *sink, void *data)
{
	(void)path;
	return kernel_log_read_journal(sink, data);
}

typedef struct error *read_log(const char *path, kernel_log_sink *sink, void *data);

/* An empty journal is one that this user may not read. */
static struct error *parse(read_log *read, const char *path, struct oom_log *ret)
{
	cleanup(oom_parser) struct oom_parser *parser = NULL;
	struct error *error = oom_parser_create(&parser);
	struct reading reading = { .parser = parser, .path = path };

	if (!error)
		error = read(path, feed, &reading);
	if (!error && read == read_journal && !reading.bytes)
		error = error_create(ERROR_UNSUPPORTED,
				     "the journal has no messages of the kernel");
	return error ? error : oom_parser_finish(parser, ret);
}

static bool is_restricted(void)
{
	cleanup(free) char *text = NULL;
	cleanup(error) struct error *error =
		read_file_at(AT_FDCWD, "/proc/sys/kernel/dmesg_restrict", &text, NULL);

	return !error && *text == '1';
}

static struct error *add_hint(struct error *error)
{
	if (error_is(error, ERROR_PERMISSION))
		return error_hint(error, "%srun as root, or: sudo dmesg -T | memprobe oom -",
				  is_restricted() ? "kernel.dmesg_restrict is 1: " : "");
	return error_hint(error, "give it a log: memprobe oom FILE, or - for standard input");
}

/* /dev/kmsg forgets; the journal has more, but not everywhere, nor for everybody. */
static struct error *parse_machine(struct oom_output *output)
{
	struct oom_log log = { 0 };
	struct error *error = parse(read_kmsg, NULL, &output->log), *journal;
	bool is_readable =
		!error || error_is(error, ERROR_PERMISSION) || error_is(error, ERROR_UNSUPPORTED);

	output->source = "/dev/kmsg";
	if (!is_readable || (!error && output->log.kills.size))
		return error;
	journal = parse(read_journal, NULL, &log);
	if (error_is(journal, ERROR_INTERRUPTED) || error_is(journal, ERROR_NO_MEMORY)) {
		error_destroy(error);
		return journal;
	}
	if (journal) {
		log_debug("%s", journal->message);
		error_destroy(journal);
		return error ? add_hint(error) : NULL;
	}
	output->source = error ? "the journal" : "/dev/kmsg and the journal";
	error_destroy(error);
	log.without_kill = log.without_kill ? log.without_kill : output->log.without_kill;
	oom_log_deinit(&output->log);
	output->log = log;
	return NULL;
}

/* ---- the command ---- */

static void warn(struct oom_output *output)
{
	const struct oom_log *log = &output->log;
	uint64_t uncertain = 0;
	char items[ITEMS_TEXT_MAX];

	vec_for_each (kill, &log->kills)
		uncertain += !kill->is_certain;
	if (uncertain)
		log_warn("the log is cut: of %s it has the choice of the victim, but no `Killed "
			 "process` line",
			 format_items(uncertain, "kill", items));
	if (log->without_kill)
		log_warn("the OOM killer ran %s more, and the log does not say that it killed",
			 format_items(log->without_kill, "time", items));
	if (!log->kills_left_out)
		return;
	log_warn("only the first %u kills are shown", OOM_KILLS_MAX);
	output->context->status = ERROR_PARTIAL;
}

/* As a word of a shell. */
static bool needs_quotes(const char *name)
{
	for (; *name; name++)
		if (!isalnum((unsigned char)*name) && !strchr("._-", *name))
			return true;
	return false;
}

/* What to look at while it still runs. */
static void hint(const struct oom_output *output)
{
	const char *name = output->log.kills.size ? oom_output_last(&output->log)->name : "";
	cleanup(free) char *text = text_printable(name);
	const char *quote = needs_quotes(name) ? "'" : "";

	if (!*name || strchr(name, '\'') || !text)
		return;
	command_hint(output->context,
		     "before it is killed again: `memprobe watch %s%s%s` shows its growth, "
		     "`memprobe heap %s%s%s` what fills the heap",
		     quote, text, quote, quote, text, quote);
}

static struct error *run(struct command_context *context)
{
	const char *path = context->argument_count ? context->arguments[0] : NULL;
	const char *top = command_option(context, "top");
	struct oom_output output = {
		.context = context,
		.source = path,
		.top = TOP_DEFAULT,
		.all = command_option(context, "all") != NULL,
	};
	struct error *error = top ? parse_u64(top, &output.top) : NULL;

	if (error)
		return error;
	if (!output.top)
		output.top = UINT64_MAX;
	if (path && !strcmp(path, "-"))
		output.source = "standard input";
	error = path ? parse(kernel_log_read_file, path, &output.log) : parse_machine(&output);
	if (!error) {
		warn(&output);
		error = context->json ? oom_output_json(&output)
				      : command_print(context, oom_output_text, &output);
	}
	if (!error)
		hint(&output);
	oom_log_deinit(&output.log);
	return error;
}

const struct command cmd_oom = {
	.name = "oom",
	.arguments = "[LOG]",
	.summary = "the kernel's out-of-memory kills, explained",
	.notes =
		"LOG is a file with a kernel log (dmesg, syslog, journalctl), or - for standard input;\n"
		"without it: /dev/kmsg, or the journal.\n",
	.target = TARGET_NONE,
	.options = options,
	.arguments_max = 1,
	.run = run,
};
