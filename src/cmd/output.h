/* output.h - messages and errors of the one run. Documents and tables: cmd.h. */
#ifndef CMD_OUTPUT_H
#define CMD_OUTPUT_H

#include "memprobe/cmd.h"

/* What the log says goes to stderr from here on, and warnings into the document. False: out of
 * memory. */
bool messages_begin(void);
/* By -v and -q. */
void messages_set_loudness(int verbose, bool quiet);
void messages_end(void);

/* On stderr; with @json also as a document on stdout, unless one has been written. */
void messages_error(const struct command_context *context, const struct error *error, bool json);

#endif
