/*
 * log.h - warnings and debug messages from below the commands.
 *
 * Nothing below cmd/ prints. What a user must know without it being an error goes to log_warn():
 * the command layer shows it on stderr and puts it into `warnings` of the JSON. log_debug() shows
 * with -v. Messages are one line, lower case, no full stop.
 */
#ifndef MEMPROBE_LOG_H
#define MEMPROBE_LOG_H

enum log_level { LOG_LEVEL_WARN, LOG_LEVEL_DEBUG };

typedef void log_sink(enum log_level level, const char *message);

/* Set once, by main; the default throws everything away. */
void log_set_sink(log_sink *sink);

void log_warn(const char *format, ...) __attribute__((format(printf, 1, 2)));
void log_debug(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
