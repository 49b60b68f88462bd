/* proc_text.h - small files of the kernel's (procfs, cgroupfs) and figures in them. Private to
 * proc/. */
#ifndef PROC_TEXT_H
#define PROC_TEXT_H

#include <stdint.h>

/* The text of a small file, or NULL. The caller frees it. */
char *text_of_file(int dirfd, const char *path);
/* Of that name in @folder. */
char *text_in_folder(const char *folder, const char *name);

/* The number behind @key, which begins a line of @text; @absent: there is none, or @text is NULL.
 */
uint64_t text_number(const char *text, const char *key, uint64_t absent);

/* Field @number (1 is the PID) of /proc/PID/stat as text, or NULL. comm may hold any byte. */
const char *stat_field(const char *text, unsigned number);

#endif
