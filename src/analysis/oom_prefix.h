/*
 * oom_prefix.h - what loggers put before a message of the kernel: level, time, host, tag.
 */
#ifndef MEMPROBE_OOM_PREFIX_H
#define MEMPROBE_OOM_PREFIX_H

#include <stdbool.h>
#include <stddef.h>

#include "memprobe/oom.h"

struct log_prefix {
	size_t length; /* of all of it; quote marks of mails ("> ") and blanks count, too */
	bool is_found; /* not just quote marks and blanks */
	bool has_wall_time;
	char time[OOM_TIME_MAX]; /* wall-clock time if there is one, else since the boot, or "" */
};

void log_prefix_parse(const char *line, size_t size, struct log_prefix *ret);

#endif
