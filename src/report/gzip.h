/*
 * gzip.h - bytes compressed into a stream, in gzip's format (RFC 1952), by zlib.
 */
#ifndef REPORT_GZIP_H
#define REPORT_GZIP_H

#include <stdbool.h>
#include <stdio.h>
#include <zlib.h>

#include "memprobe/error.h"

struct gzip {
	z_stream stream;
	FILE *out;
	bool begun;
};

struct error *gzip_init(struct gzip *gzip, FILE *out);
void gzip_write(struct gzip *gzip, const void *bytes, size_t size);
/* Without it the file is cut short. */
void gzip_finish(struct gzip *gzip);
void gzip_deinit(struct gzip *gzip);

#endif
