#include "memprobe/cmd.h"

static struct error *run(struct command_context *context)
{
	const struct command *command;

	if (!context->argument_count) {
		memprobe_usage(stdout);
		return NULL;
	}
	command = command_find(context->arguments[0]);
	if (!command)
		return command_unknown(context->arguments[0]);
	command_usage(stdout, command);
	return NULL;
}

const struct command cmd_help = {
	.name = "help",
	.arguments = "[COMMAND]",
	.summary = "what -h prints",
	.target = TARGET_NONE,
	.arguments_max = 1,
	.hidden = true,
	.run = run,
};
