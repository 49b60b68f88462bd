/*
 * interrupt.h - what SIGINT and SIGTERM do: a recording ends with what it has, any other command
 * ends at once, but never with a target in its hands or an output half written.
 */
#ifndef CMD_INTERRUPT_H
#define CMD_INTERRUPT_H

#include <stdbool.h>

#include "memprobe/target.h"

/* From here on signals do so; a closed pipe and ulimit -f become errors of writing. */
void interrupt_catch(void);

/* The one that came; 0: none. */
int interrupt_signal(void);
/* Whether it ends the command here: nothing is written any more. */
bool interrupt_ends_now(void);
struct error *interrupt_error(void);

/* What the handlers must know: whether the command is a recording, the target, which must be as it
 * was (NULL: none), and whether an output is being written. */
void interrupt_set_recording(bool is_recording);
void interrupt_set_target(struct target *target);
void interrupt_set_writing(bool writing);

/* Whether all has been written: command_written(). */
bool interrupt_is_over(void);

#endif
