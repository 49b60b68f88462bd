#include "gzip.h"

#include <limits.h>

#define WINDOW_BITS_GZIP (15 + 16)
#define MEMORY_LEVEL	 8

struct error *gzip_init(struct gzip *gzip, FILE *out)
{
	*gzip = (struct gzip){ .out = out };
	if (deflateInit2(&gzip->stream, Z_DEFAULT_COMPRESSION, Z_DEFLATED, WINDOW_BITS_GZIP,
			 MEMORY_LEVEL, Z_DEFAULT_STRATEGY) != Z_OK)
		return &error_no_memory;
	gzip->begun = true;
	return NULL;
}

static void compress_some(struct gzip *gzip, int flush)
{
	unsigned char buffer[16384];

	do {
		gzip->stream.next_out = buffer;
		gzip->stream.avail_out = sizeof(buffer);
		/* Nothing fails here but misuse: input is all in memory, output has room. */
		deflate(&gzip->stream, flush);
		fwrite_unlocked(buffer, 1, sizeof(buffer) - gzip->stream.avail_out, gzip->out);
	} while (gzip->stream.avail_out == 0);
}

void gzip_write(struct gzip *gzip, const void *bytes, size_t size)
{
	const unsigned char *at = bytes;

	while (size) {
		unsigned part = size < UINT_MAX ? (unsigned)size : UINT_MAX;

		gzip->stream.next_in = (unsigned char *)at;
		gzip->stream.avail_in = part;
		compress_some(gzip, Z_NO_FLUSH);
		at += part;
		size -= part;
	}
}

void gzip_finish(struct gzip *gzip)
{
	gzip->stream.next_in = NULL;
	gzip->stream.avail_in = 0;
	compress_some(gzip, Z_FINISH);
}

void gzip_deinit(struct gzip *gzip)
{
	if (gzip->begun)
		deflateEnd(&gzip->stream);
	gzip->begun = false;
}
