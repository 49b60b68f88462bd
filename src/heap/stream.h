/*
 * stream.h - the memory of a heap's arenas once and in order, read ahead by several threads.
 */
#ifndef STREAM_H
#define STREAM_H

#include "memprobe/heap.h"

struct heap_stream;

/*
 * Begins to read the regions of @heap, which are laid out; those mapped block by block are left
 * out. @observer may be NULL. Small heaps are read by the caller's thread alone.
 */
struct error *heap_stream_open(const struct heap *heap, const struct heap_observer *observer,
			       struct heap_stream **ret);

/*
 * [address, address + size) of a region, at most STREAM_OVERLAP bytes. Addresses ascend from call
 * to call; what is returned is valid until the next one.
 */
#define STREAM_OVERLAP 4096u
struct error *heap_stream_get(struct heap_stream *stream, uint64_t address, size_t size,
			      const uint8_t **ret);

/* The same for what lies before: NULL if it is gone. */
const uint8_t *heap_stream_peek(const struct heap_stream *stream, uint64_t address, size_t size);

/* Waits until all has been read, so that the observer has seen it, and ends the threads. */
struct error *heap_stream_finish(struct heap_stream *stream);

void heap_stream_close(struct heap_stream *stream);

#endif
