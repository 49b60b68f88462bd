/*
 * io.h - whole-file reads, complete writes, and output files that appear only when finished.
 */
#ifndef MEMPROBE_IO_H
#define MEMPROBE_IO_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "memprobe/error.h"

/*
 * Reads a file of unknown length (procfs, sysfs) to its end, relative to @dirfd. The text is
 * NUL-terminated; the caller frees it. Fails with error.errnum set (ENOENT, ESRCH, EACCES ...).
 */
struct error *read_file_at(int dirfd, const char *path, char **text_ret, size_t *size_ret);

/* The same of what is open already; @name is for the message. */
struct error *read_fd(int fd, const char *name, char **text_ret, size_t *size_ret);

/* Writes all of it, through short writes and EINTR. @name is for the message. */
struct error *write_all(int fd, const void *bytes, size_t size, const char *name);

/*
 * A file being written. A regular file (or a new one) is written beside its final place, mode
 * 0600, and renamed into place by output_commit(); a device, FIFO or `-` (stdout) is written
 * directly. output_abort() removes what was begun. Both free @output.
 */
struct output;

/* The error that output_open() would give, before there is anything to write; leaves nothing. */
struct error *output_check(const char *path);
struct error *output_open(const char *path, struct output **ret);
int output_fd(const struct output *output);
/* The path as the user wrote it; `standard output` for `-`. */
const char *output_name(const struct output *output);
/* False for pipes and devices: holes must be written as zeros. */
bool output_is_regular(const struct output *output);
struct error *output_commit(struct output *output);
void output_abort(struct output *output);
CLEANUP_DEFINE(output, struct output *, output_abort)

#endif
