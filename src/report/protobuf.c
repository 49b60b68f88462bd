#include "protobuf.h"

#include <stdlib.h>
#include <string.h>

enum wire_type { WIRE_VARINT = 0, WIRE_LENGTH = 2 };

#define VARINT_MAX 10

static bool reserve(struct protobuf *message, size_t size)
{
	size_t capacity = message->capacity;
	uint8_t *bytes;

	if (message->failed)
		return false;
	if (capacity - message->size >= size)
		return true;
	capacity = 2 * capacity + size + 64;
	bytes = realloc(message->bytes, capacity);
	if (!bytes) {
		message->failed = true;
		return false;
	}
	message->bytes = bytes;
	message->capacity = capacity;
	return true;
}

void protobuf_varint(struct protobuf *message, uint64_t value)
{
	if (!reserve(message, VARINT_MAX))
		return;
	for (; value >= 0x80; value >>= 7)
		message->bytes[message->size++] = value | 0x80;
	message->bytes[message->size++] = value;
}

static void put_tag(struct protobuf *message, unsigned field, enum wire_type type)
{
	protobuf_varint(message, field << 3 | type);
}

void protobuf_number(struct protobuf *message, unsigned field, uint64_t value)
{
	if (!value)
		return;
	put_tag(message, field, WIRE_VARINT);
	protobuf_varint(message, value);
}

void protobuf_bytes(struct protobuf *message, unsigned field, const void *bytes, size_t size)
{
	put_tag(message, field, WIRE_LENGTH);
	protobuf_varint(message, size);
	if (!size || !reserve(message, size))
		return;
	memcpy(message->bytes + message->size, bytes, size);
	message->size += size;
}

void protobuf_message(struct protobuf *message, unsigned field, const struct protobuf *inner)
{
	message->failed |= inner->failed;
	protobuf_bytes(message, field, inner->bytes, inner->size);
}

void protobuf_clear(struct protobuf *message)
{
	message->size = 0;
}

void protobuf_deinit(struct protobuf *message)
{
	free(message->bytes);
	*message = (struct protobuf){ 0 };
}
