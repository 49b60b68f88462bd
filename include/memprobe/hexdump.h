/*
 * hexdump.h - bytes with their addresses, as `hexdump -C` prints them.
 *
 * Zero-initialise with the stream and the width of addresses; feed pieces in the order of their
 * addresses; end it. Lines begin at multiples of 16; lines that repeat the one before show as `*`.
 */
#ifndef MEMPROBE_HEXDUMP_H
#define MEMPROBE_HEXDUMP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

struct hexdump {
	FILE *out;
	unsigned bits; /* 32 or 64 */
	/* private */
	uint64_t line, end; /* address of the line begun (a multiple of 16), and behind its bytes */
	unsigned char bytes[16], previous[16];
	uint16_t known; /* which of @bytes there are */
	bool previous_full, starred;
};

void hexdump_bytes(struct hexdump *hex, uint64_t address, const void *bytes, size_t size);
void hexdump_zeros(struct hexdump *hex, uint64_t address, uint64_t size);
/* A line that says how much is not there. */
void hexdump_missing(struct hexdump *hex, uint64_t address, uint64_t size);
/* The last line, and the address behind it. */
void hexdump_end(struct hexdump *hex);

#endif
