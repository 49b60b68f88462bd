#include "memprobe/cmd.h"

#include <string.h>

const struct command_option common_options[] = {
	{ "json", 0, NULL, "one JSON document on stdout" },
	{ "bytes", 0, NULL, "sizes in bytes, not in units such as K and M" },
	{ "output", 'o', "FILE", "write to FILE (- is stdout)" },
	{ "quiet", 'q', NULL, "no hints, no progress" },
	{ "verbose", 'v', NULL, "say more on stderr; twice for debugging" },
	{ "color", 0, "WHEN", "auto, always or never" },
	{ "timeout", 0, "TIME", "for whatever runs in the target (default 5s)" },
	{ "max-pause", 0, "TIME", "never stop a thread for longer, by estimate (default 1s)" },
	{ "help", 'h', NULL, "this text" },
	{ NULL, 0, NULL, NULL },
};

static bool has_option(const struct command_option *options, const char *name)
{
	for (; options && options->name; options++)
		if (!strcmp(options->name, name))
			return true;
	return false;
}

/* Without those that are in @but: a command may have its own --color. */
static void print_options(FILE *out, const struct command_option *options,
			  const struct command_option *but)
{
	for (; options && options->name; options++) {
		char left[64];

		if (has_option(but, options->name))
			continue;

		snprintf(left, sizeof(left), "%s%c%s--%s%s%s", options->letter ? "-" : " ",
			 options->letter ? options->letter : ' ', options->letter ? ", " : "  ",
			 options->name, options->argument ? "=" : "",
			 options->argument ? options->argument : "");
		if (strlen(left) > 26)
			fprintf(out, "  %s\n  %-26s %s\n", left, "", options->help);
		else
			fprintf(out, "  %-26s %s\n", left, options->help);
	}
}

static void print_synopsis(FILE *out, const struct command *command)
{
	static const char *const targets[] = {
		[TARGET_NONE] = "",
		[TARGET_OPTIONAL] = " [TARGET]",
		[TARGET_ANY] = " TARGET",
		[TARGET_LIVE] = " TARGET",
	};

	fprintf(out, "memprobe %s%s%s%s [OPTION...]", command->name, targets[command->target],
		*command->arguments ? " " : "", command->arguments);
}

void command_usage(FILE *out, const struct command *command)
{
	fputs("usage: ", out);
	print_synopsis(out, command);
	fprintf(out, "\n\n%s\n", command->summary);
	if (command->notes)
		fputs(command->notes, out);
	if (command->target != TARGET_NONE)
		fprintf(out, "TARGET is a PID%s.\n",
			command->target == TARGET_ANY ? ", the name of a process, or a core file"
						      : ", or the name of a process");
	if (command->options && command->options->name) {
		fputs("\noptions:\n", out);
		print_options(out, command->options, NULL);
	}
	fputs("\noptions of every command:\n", out);
	print_options(out, common_options, command->options);
	if (command->hidden)
		fputs("\nSee memprobe(1).\n", out);
	else
		fprintf(out, "\nSee memprobe-%s(1).\n", command->name);
}

void memprobe_usage(FILE *out)
{
	fputs("usage: memprobe COMMAND TARGET [ARGUMENT...] [OPTION...]\n"
	      "       memprobe TARGET\n"
	      "\nFinds out what holds the memory of a running process, and leaves it unharmed.\n"
	      "TARGET is a PID, the name of a process, or a core file. Start with it alone.\n"
	      "\ncommands:\n",
	      out);
	for (const struct command *const *command = commands; *command; command++)
		if (!(*command)->hidden)
			fprintf(out, "  %-10s %s\n", (*command)->name, (*command)->summary);
	fputs("\noptions of every command:\n", out);
	print_options(out, common_options, NULL);
	fputs("      --version              the version\n"
	      "\n`memprobe COMMAND -h` tells more, memprobe(1) all.\n",
	      out);
}
