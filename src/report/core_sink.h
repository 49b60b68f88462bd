/* core_sink.h - takes a file in pieces, in order, and writes it in a thread of its own. */
#ifndef MEMPROBE_REPORT_CORE_SINK_H
#define MEMPROBE_REPORT_CORE_SINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "memprobe/error.h"

enum sink_kind {
	SINK_HOLES,  /* a regular file: what is left out becomes a hole */
	SINK_STREAM, /* what is left out is written as zeros */
	SINK_ZSTD,   /* the same, compressed */
};

struct core_sink;

/* @fd is at its beginning, and stays the caller's. */
struct error *core_sink_create(int fd, const char *name, enum sink_kind kind,
			       struct core_sink **ret);
/* Stops writing where it is. */
void core_sink_destroy(struct core_sink *sink);
CLEANUP_DEFINE(core_sink, struct core_sink *, core_sink_destroy)

/* Bytes for @offset, not before what was given last. May report an earlier failure. */
struct error *core_sink_bytes(struct core_sink *sink, uint64_t offset, const void *bytes,
			      size_t size);

/* Waits until all is written; the file has @size bytes then. */
struct error *core_sink_finish(struct core_sink *sink, uint64_t size);

#endif
