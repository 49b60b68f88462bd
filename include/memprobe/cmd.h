/*
 * cmd.h - the command table and what a command gets to work with.
 *
 * To add a command: 1. write src/cmd/cmd_NAME.c with its `const struct command`; 2. add it to the
 * table in src/cmd/commands.c; 3. write man/memprobe-NAME.1 (a test holds its SYNOPSIS against
 * `-h`) and a line in NEWS. Completions come from the table.
 *
 * Only this layer and main.c print or exit.
 */
#ifndef MEMPROBE_CMD_H
#define MEMPROBE_CMD_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "memprobe/error.h"
#include "memprobe/json_value.h"
#include "memprobe/range.h"
#include "memprobe/table.h"
#include "memprobe/target.h"

struct command_option {
	const char *name;     /* long name, without dashes */
	char letter;	      /* 0: none */
	const char *argument; /* in capitals; NULL: a flag */
	const char *help;
};

enum command_target {
	TARGET_NONE,	 /* the command takes no target */
	TARGET_OPTIONAL, /* it may be left out */
	TARGET_ANY,	 /* live or core */
	TARGET_LIVE,	 /* it changes or watches a process: a core is exit 5 */
};

/* Whether Ctrl-C ends the command with what it has, and exit status 0. */
enum command_records {
	RECORDS_NEVER,
	RECORDS_ALWAYS,
	RECORDS_WITH_EVERY, /* with the option --every */
};

struct command_context;

struct command {
	const char *name;
	const char *arguments; /* between TARGET and options in the usage line, "" for none */
	const char *summary;   /* what question it answers; one line, lower case */
	/* More for -h, e.g. what may happen; ends with a newline; NULL: nothing. */
	const char *notes;
	enum command_target target;
	/* Ends with a NULL name; the common ones come on top. */
	const struct command_option *options;
	unsigned arguments_min, arguments_max;
	bool hidden;
	bool stops; /* threads of a live target, or may: see guard.h */
	enum command_records records;
	/* An error ends up on stderr and as the exit status. For an output that is written but
	 * incomplete, or for --exit-code, return NULL and set context->status. */
	struct error *(*run)(struct command_context *context);
};

struct command_context {
	const struct command *command;
	/* Opened before run(); NULL for TARGET_NONE and an absent optional. */
	struct target *target;
	const char *target_text;
	int argument_count;
	char **arguments;	    /* after TARGET */
	const char **option_values; /* by index into command->options; see command_option() */
	bool json, bytes, quiet, color;
	int verbose;
	const char *output_path; /* -o; NULL: none given */
	uint64_t timeout_us;
	uint64_t max_pause_us;
	uint64_t stopped_us; /* raise with command_stopped(); goes into the JSON */
	int status;
};

/* The value of an option of this command; "" for a flag that was given; NULL: not given. */
const char *command_option(const struct command_context *context, const char *name);

/* Notes that a thread of the target was held for @us; the longest counts. */
void command_stopped(struct command_context *context, uint64_t us);

/* call_open() with the context's timeout and libdwfl as the unwinder to ask. */
struct call_session;
struct error *command_open_call(struct command_context *context, struct call_session **ret);

/* The document that every --json output begins with; the caller owns it. */
json_t *command_json(struct command_context *context);

/*
 * Writes @document (taking it over) to -o FILE or stdout, with warnings and stopped_us as they are
 * by then. NULL @document is out-of-memory.
 */
struct error *command_write_json(struct command_context *context, json_t *document);

/*
 * Runs @print on a stream that goes to -o FILE (renamed into place afterwards) or stdout, and
 * reports what could not be written.
 */
struct error *command_print(struct command_context *context,
			    struct error *(*print)(FILE *out, void *data), void *data);

/* Advice on stderr, unless -q or --json: at most one, after the result. */
void command_hint(const struct command_context *context, const char *format, ...)
	__attribute__((format(printf, 2, 3)));
/* The same without `hint:`: a result in words, where the output itself is no text. */
void command_note(const struct command_context *context, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

/* Says as warnings what is wrong with a heap that was read. */
struct heap;
void command_warn_of_heap(struct command_context *context, const struct heap *heap);

/* SIGINT or SIGTERM came: finish what is written and undo what was done. */
bool command_interrupted(void);
/* Until clock_us() says @us; false: a signal came. */
bool command_sleep_until(uint64_t us);
/* All that is to be written has been: a signal changes nothing any more. */
void command_written(void);
/* What came so far was to end a recording: what follows is only ended by another one. */
void command_interrupt_obeyed(void);

/*
 * `START END`, `START-END`, `START+SIZE`, or a mapping type, from context->arguments[first...].
 * For a type, every mapping of it; sorted, half-open. The number of arguments used in *used_ret.
 * ERROR_USAGE for reversed or empty ranges, overflow, unknown names.
 */
struct error *command_parse_ranges(struct command_context *context, int first, int *used_ret,
				   struct range_vec *ret);

/*
 * The same from one text, the value of an option, with commas between several; normalised. NULL
 * @text: all of @maps that the target may read, but for what the kernel keeps to itself there
 * ([vvar] and its like).
 */
struct error *command_parse_where(struct command_context *context, const char *text,
				  const struct mapping_vec *maps, struct range_vec *ret);

/* `glibc 2.36` and `jemalloc`, as JSON strings; null where unknown. */
json_t *command_libc_text(struct target *target);
json_t *command_allocator_text(struct target *target);

/* Whether -o FILE is not given, or is `-`. */
bool command_prints_to_stdout(const struct command_context *context);
/* How tables look there: as wide as the terminal, in colour if so wanted, sizes as by --bytes. */
struct table_style command_style(const struct command_context *context);

/* The table; ends with NULL. */
extern const struct command *const commands[];
extern const struct command_option common_options[];
const struct command *command_find(const char *name);

/* Whether a word that is no command may be a target: a number, a process's name, a core's path. */
bool command_is_target(const char *word);

/* The error for a word that is no command, with what was probably meant. */
struct error *command_unknown(const char *word);

/*
 * The error for an option, likewise: its @letter, or, that being '\0', the @text that was typed.
 * NULL @command: it stands before the command.
 */
enum option_refusal { OPTION_UNKNOWN, OPTION_WITHOUT_VALUE, OPTION_WITH_VALUE };
struct error *command_refuse_option(const struct command *command, enum option_refusal refusal,
				    char letter, const char *text);

/* The usage text of one command (-h), or of memprobe. */
void command_usage(FILE *out, const struct command *command);
void memprobe_usage(FILE *out);

/* main() without the process's surroundings. */
int memprobe_main(int argc, char **argv);

#endif
