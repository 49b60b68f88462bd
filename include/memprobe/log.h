/*
 * log.h - warnings and debug messages from below the commands.
 *
 * Nothing below cmd/ prints. What a user must know without it being an error goes to log_warn():
 * the command layer shows it on stderr and puts it into `warnings` of the JSON. log_debug() shows
 * with -v. Messages are one line, lower case, no full stop.
 */
#ifndef MEMPROBE_LOG_H
#define MEMPROBE_LOG_H

#include <stdint.h>

enum log_level { LOG_LEVEL_WARN, LOG_LEVEL_DEBUG };

typedef void log_sink(enum log_level level, const char *message);

/* Set once, by main; the default throws everything away. */
void log_set_sink(log_sink *sink);

void log_warn(const char *format, ...) __attribute__((format(printf, 1, 2)));
void log_debug(const char *format, ...) __attribute__((format(printf, 1, 2)));

/*
 * How far a long work has come: @done of @total, in whatever it counts. Cheap enough for every
 * 100 KiB of memory; by any thread. Whether anybody sees it is the sink's to decide; the default
 * throws it away.
 */
typedef void log_progress_sink(uint64_t done, uint64_t total);

void log_set_progress(log_progress_sink *sink);
void log_progress(uint64_t done, uint64_t total);

#endif
