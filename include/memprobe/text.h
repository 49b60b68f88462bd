/*
 * text.h - foreign text: escaped for a terminal, made valid for JSON, measured in columns.
 */
#ifndef MEMPROBE_TEXT_H
#define MEMPROBE_TEXT_H

#include <stddef.h>

/* Control characters become `\x1b`, broken UTF-8 `\xff`. The caller frees it; NULL: out of memory.
 */
char *text_printable(const char *text);

/* Valid UTF-8 out of any bytes, for JSON: what is none becomes U+FFFD. The caller frees it. */
char *text_utf8(const char *text);

/* Columns of a terminal that printable text takes. */
size_t text_width(const char *text);

/* How many bytes of it fit into @columns, whole characters only, and the columns that they take. */
size_t text_fit(const char *text, size_t columns, size_t *width_ret);

#endif
