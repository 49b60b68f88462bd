#include "memprobe/cmd.h"

#include <string.h>

extern const struct command cmd_allocs;
extern const struct command cmd_call;
extern const struct command cmd_check;
extern const struct command cmd_completion;
extern const struct command cmd_core;
extern const struct command cmd_diagnose;
extern const struct command cmd_diff;
extern const struct command cmd_dump;
extern const struct command cmd_faults;
extern const struct command cmd_find;
extern const struct command cmd_flame;
extern const struct command cmd_heap;
extern const struct command cmd_help;
extern const struct command cmd_leaks;
extern const struct command cmd_mallinfo;
extern const struct command cmd_maps;
extern const struct command cmd_oom;
extern const struct command cmd_stack;
extern const struct command cmd_strings;
extern const struct command cmd_syscalls;
extern const struct command cmd_threads;
extern const struct command cmd_top;
extern const struct command cmd_trim;
extern const struct command cmd_watch;

/* In the order of `memprobe -h`, a line each. */
/* clang-format off */
const struct command *const commands[] = {
	&cmd_diagnose,
	&cmd_maps,
	&cmd_threads,
	&cmd_stack,
	&cmd_mallinfo,
	&cmd_heap,
	&cmd_leaks,
	&cmd_find,
	&cmd_strings,
	&cmd_allocs,
	&cmd_faults,
	&cmd_syscalls,
	&cmd_watch,
	&cmd_top,
	&cmd_trim,
	&cmd_call,
	&cmd_dump,
	&cmd_core,
	&cmd_oom,
	&cmd_diff,
	&cmd_flame,
	&cmd_check,
	&cmd_completion,
	&cmd_help,
	NULL,
};
/* clang-format on */

const struct command *command_find(const char *name)
{
	for (const struct command *const *command = commands; *command; command++)
		if (!strcmp((*command)->name, name))
			return *command;
	return NULL;
}
