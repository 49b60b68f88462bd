/*
 * kernel_log.h - the kernel's log: of a file, a pipe, or this machine.
 */
#ifndef MEMPROBE_KERNEL_LOG_H
#define MEMPROBE_KERNEL_LOG_H

#include <stddef.h>

#include "memprobe/error.h"

/* Gets the log in pieces of any size; an error ends the reading and is returned. */
typedef struct error *kernel_log_sink(void *data, const char *bytes, size_t size);

/* A file, or `-` for standard input. */
struct error *kernel_log_read_file(const char *path, kernel_log_sink *sink, void *data);

/*
 * What /dev/kmsg has now, each message a line with its prefix `6,1234,5678,-;`. ERROR_PERMISSION if
 * this user may not, with error.errnum; ERROR_UNSUPPORTED where there is no such device.
 */
struct error *kernel_log_read_kmsg(kernel_log_sink *sink, void *data);

/*
 * What `journalctl -k -o short-iso` prints: the log since the last boot, or a part.
 * ERROR_UNSUPPORTED without journalctl, or if it fails, as it does without a journal or the right
 * to read one.
 */
struct error *kernel_log_read_journal(kernel_log_sink *sink, void *data);

#endif
