/* Where tables go, and what they look like there. */
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "memprobe/cmd.h"

#define WIDTH_DEFAULT 100 /* of a terminal that does not say */

bool command_prints_to_stdout(const struct command_context *context)
{
	return !context->output_path || !strcmp(context->output_path, "-");
}

static unsigned terminal_width(void)
{
	struct winsize size;

	if (!isatty(STDOUT_FILENO))
		return 0;
	if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) || !size.ws_col)
		return WIDTH_DEFAULT;
	return size.ws_col;
}

struct table_style command_style(const struct command_context *context)
{
	struct table_style style = { .bytes = context->bytes };

	if (command_prints_to_stdout(context)) {
		style.color = context->color;
		style.width = terminal_width();
	}
	return style;
}
