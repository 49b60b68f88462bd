/* Words and options that are not known, and what was probably meant. */
#include "memprobe/cmd.h"

#include <string.h>

#include "memprobe/core.h"
#include "memprobe/nearest_name.h"
#include "memprobe/num.h"

static bool is_process(const char *name)
{
	struct pid_vec pids = { 0 };
	struct error *error = process_find_by_name(name, &pids);
	bool found = !error && pids.size;

	error_destroy(error);
	pid_vec_deinit(&pids);
	return found;
}

bool command_is_target(const char *word)
{
	uint64_t pid;
	struct error *error = parse_u64(word, &pid);

	if (!error)
		return true;
	error_destroy(error);
	return is_process(word) || core_probe(word);
}

struct error *command_unknown(const char *word)
{
	struct error *error = error_create(ERROR_USAGE, "'%s' is not a command", word);
	struct nearest_name nearest = { .word = word };

	for (const struct command *const *command = commands; *command; command++)
		nearest_name_try(&nearest, (*command)->name);
	if (nearest.name)
		return error_hint(error,
				  "did you mean `memprobe %s`? `memprobe -h` lists the commands",
				  nearest.name);
	return error_hint(error, "`memprobe -h` lists the commands");
}

/* ---- options ---- */

/* What the user typed: --NAME or --NAME=VALUE. False: no long option. */
static bool long_name(const char *text, char *name, size_t size)
{
	if (strncmp(text, "--", 2))
		return false;
	snprintf(name, size, "%.*s", (int)strcspn(text + 2, "="), text + 2);
	return true;
}

/* How many options begin with @name; their names go to @list. */
static unsigned list_beginnings(const struct command_option *options, const char *name, char *list,
				size_t size)
{
	unsigned count = 0;

	for (; options && options->name; options++) {
		size_t used = strlen(list);

		if (strncmp(options->name, name, strlen(name)))
			continue;
		snprintf(list + used, size - used, "%s--%s", used ? ", " : "", options->name);
		count++;
	}
	return count;
}

static bool is_of_some_command(const char *name)
{
	for (const struct command *const *command = commands; *command; command++)
		for (const struct command_option *option = (*command)->options;
		     option && option->name; option++)
			if (!strcmp(option->name, name))
				return true;
	return false;
}

static struct error *unknown_long(const struct command *command, const char *name)
{
	const struct command_option *own = command ? command->options : NULL;
	const char *blank = command ? " " : "", *of = command ? command->name : "";
	struct nearest_name nearest = { .word = name };
	char list[200] = "";
	struct error *error;

	if (list_beginnings(own, name, list, sizeof(list)) +
		    list_beginnings(common_options, name, list, sizeof(list)) >
	    1)
		return error_hint(error_create(ERROR_USAGE, "option --%s is not clear", name),
				  "it may be one of %s", list);
	error = error_create(ERROR_USAGE, "option --%s is not known", name);
	if (!command && is_of_some_command(name))
		return error_hint(error,
				  "a command's options stand behind it: memprobe COMMAND "
				  "TARGET --%s",
				  name);
	for (const struct command_option *option = own; option && option->name; option++)
		nearest_name_try(&nearest, option->name);
	for (const struct command_option *option = common_options; option->name; option++)
		nearest_name_try(&nearest, option->name);
	if (nearest.name)
		return error_hint(error, "did you mean --%s? `memprobe%s%s -h` lists the options",
				  nearest.name, blank, of);
	return error_hint(error, "`memprobe%s%s -h` lists the options", blank, of);
}

struct error *command_refuse_option(const struct command *command, enum option_refusal refusal,
				    char letter, const char *text)
{
	static const char *const whys[] = {
		[OPTION_UNKNOWN] = "is not known",
		[OPTION_WITHOUT_VALUE] = "takes a value",
		[OPTION_WITH_VALUE] = "takes no value",
	};
	char name[64];
	struct error *error;

	if (!letter && refusal == OPTION_UNKNOWN && long_name(text, name, sizeof(name)))
		return unknown_long(command, name);
	if (letter)
		error = error_create(ERROR_USAGE, "option -%c %s", letter, whys[refusal]);
	else
		error = error_create(ERROR_USAGE, "option %s %s", text, whys[refusal]);
	return error_hint(error, "`memprobe%s%s -h` lists the options", command ? " " : "",
			  command ? command->name : "");
}
