/* core_notes_writer.h - the notes of a core. */
#ifndef MEMPROBE_REPORT_CORE_NOTES_WRITER_H
#define MEMPROBE_REPORT_CORE_NOTES_WRITER_H

#include "memprobe/core_writer.h"

/* All notes of @image as they stand in the file; the caller frees them. */
struct error *core_notes_create(const struct core_image *image, char **bytes_ret, size_t *size_ret);

#endif
