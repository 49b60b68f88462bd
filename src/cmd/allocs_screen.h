/*
 * allocs_screen.h - the table on a terminal that follows a recording.
 *
 *	if (allocs_screen_wanted(context, &output))
 *		error = allocs_screen_create(context, session, all, &screen);
 *	... every tick: allocs_screen_show(screen);	draws at most once a second
 *	allocs_screen_destroy(screen);			clears it
 */
#ifndef ALLOCS_SCREEN_H
#define ALLOCS_SCREEN_H

#include "memprobe/cmd.h"
#include "memprobe/trace.h"
#include "profile_output.h"

struct allocs_screen;

/* stdout is a terminal, and not where another format than the table goes. */
bool allocs_screen_wanted(const struct command_context *context,
			  const struct profile_output *output);

/* @context and @session must outlive it. @all: by what was allocated. */
struct error *allocs_screen_create(struct command_context *context, struct trace_session *session,
				   bool all, struct allocs_screen **ret);

/* What goes wrong with it ends the table, not the recording. NULL does nothing. */
void allocs_screen_show(struct allocs_screen *screen);

void allocs_screen_destroy(struct allocs_screen *screen);
CLEANUP_DEFINE(allocs_screen, struct allocs_screen *, allocs_screen_destroy)

#endif
