#include "memprobe/log.h"

#include <stdarg.h>
#include <stdio.h>

static log_sink *current_sink;
static log_progress_sink *progress_sink;

void log_set_sink(log_sink *sink)
{
	current_sink = sink;
}

void log_set_progress(log_progress_sink *sink)
{
	progress_sink = sink;
}

void log_progress(uint64_t done, uint64_t total)
{
	if (progress_sink)
		progress_sink(done, total);
}

static void log_send(enum log_level level, const char *format, va_list args)
{
	char message[1024];

	if (!current_sink)
		return;
	vsnprintf(message, sizeof(message), format, args);
	current_sink(level, message);
}

void log_warn(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	log_send(LOG_LEVEL_WARN, format, args);
	va_end(args);
}

void log_debug(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	log_send(LOG_LEVEL_DEBUG, format, args);
	va_end(args);
}
