/*
 * profile_input.h - files with call stacks, for commands that read such.
 */
#ifndef CMD_PROFILE_INPUT_H
#define CMD_PROFILE_INPUT_H

#include "memprobe/cmd.h"
#include "memprobe/profile.h"

/* The file, or standard input for `-`; the caller frees the text, which has a NUL behind it. */
struct error *input_read(const char *path, char **text_ret, size_t *size_ret);

bool input_is_json(const char *text);

/*
 * Folded stacks, JSON with `sites`, `perf script` or print_usyms() of stap; `-` is standard input.
 * What makes no sense is left out with a warning and sets context->status. ERROR_FAILED: there are
 * no stacks; if it @may_be_empty, an empty file or recording is no error.
 */
struct error *profile_input_read(struct command_context *context, const char *path,
				 bool may_be_empty, struct profile **ret);

/* The same of what input_read() has read from @path. */
struct error *profile_input_parse(struct command_context *context, const char *path,
				  const char *text, size_t size, bool may_be_empty,
				  struct profile **ret);

#endif
