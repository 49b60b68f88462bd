/*
 * progress.h - how far a long work has come, on a terminal: a bar after a second, never in a pipe.
 *
 * Recordings have no end that is known: they show what they count (recording.h).
 */
#ifndef CMD_PROGRESS_H
#define CMD_PROGRESS_H

#include "memprobe/cmd.h"

/* From here on what log_progress() says is shown, on a terminal and without -q. */
void progress_begin(const struct command_context *context);

/* Takes the bar away before something else is printed; it may come again. */
void progress_clear(void);

/* No bar any more. */
void progress_end(void);

#endif
