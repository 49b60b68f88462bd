/*
 * num.h - numbers as users write and read them.
 *
 * Parsers take the whole string or fail with ERROR_USAGE; nothing is written to *ret then.
 */
#ifndef MEMPROBE_NUM_H
#define MEMPROBE_NUM_H

#include <stddef.h>
#include <stdint.h>

#include "memprobe/error.h"

/* Decimal, no sign, no blank. */
struct error *parse_u64(const char *text, uint64_t *ret);

/* Bytes: decimal or 0x hex, with an optional K, M, G or T (powers of 1024, either case, `B` or
 * `iB` may follow). Overflow is an error. */
struct error *parse_size(const char *text, uint64_t *bytes_ret);

/* Microseconds from `10`, `1.5s`, `200ms`, `50us`, `2m`, `1h`; a bare number is seconds. */
struct error *parse_time(const char *text, uint64_t *us_ret);

/* A hexadecimal address, with or without 0x. */
struct error *parse_address(const char *text, uint64_t *ret);

/* `17`, `1.5K`, `312.0M`: three significant digits and a unit, at most 8 bytes and the NUL.
 * Returns @buffer. */
#define SIZE_TEXT_MAX 16
const char *format_size(uint64_t bytes, char buffer[SIZE_TEXT_MAX]);

/* `4,984`. Returns @buffer. */
#define COUNT_TEXT_MAX 28
const char *format_count(uint64_t count, char buffer[COUNT_TEXT_MAX]);

/* `4,984 blocks`, `1 block`, `2 matches`, of a noun of up to 30 bytes. Returns @buffer. */
#define ITEMS_TEXT_MAX 64
const char *format_items(uint64_t count, const char *noun, char buffer[ITEMS_TEXT_MAX]);

/* `350 us`, `1.8 ms`, `4.2 s`: at most three significant digits below 1000 s. Returns @buffer. */
#define TIME_TEXT_MAX 24
const char *format_time(uint64_t us, char buffer[TIME_TEXT_MAX]);

static inline uint64_t round_down(uint64_t value, uint64_t alignment)
{
	return value & ~(alignment - 1);
}

static inline uint64_t round_up(uint64_t value, uint64_t alignment)
{
	return round_down(value + alignment - 1, alignment);
}

static inline uint64_t min_u64(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static inline uint64_t max_u64(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

/* Little-endian words out of foreign bytes; @size is 4 or 8. */
static inline uint64_t load_word(const void *bytes, size_t size)
{
	uint64_t word = 0;

	__builtin_memcpy(&word, bytes, size);
	return word;
}

#endif
