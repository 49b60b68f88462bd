/*
 * protobuf.h - a protocol buffer message, field by field, into memory.
 *
 * Source: protobuf.dev, "Encoding". Out-of-memory is remembered in `failed`; a zeroed struct is an
 * empty message. Fields with the value 0, and NULL strings, are left out, as proto3 does.
 */
#ifndef REPORT_PROTOBUF_H
#define REPORT_PROTOBUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct protobuf {
	uint8_t *bytes;
	size_t size, capacity;
	bool failed;
};

void protobuf_varint(struct protobuf *message, uint64_t value); /* without a field's number */
void protobuf_number(struct protobuf *message, unsigned field, uint64_t value);
void protobuf_bytes(struct protobuf *message, unsigned field, const void *bytes, size_t size);
/* Also a packed repeated field that was made by protobuf_varint(). */
void protobuf_message(struct protobuf *message, unsigned field, const struct protobuf *inner);

/* Empties it and keeps its memory. */
void protobuf_clear(struct protobuf *message);
void protobuf_deinit(struct protobuf *message);

#endif
