#include "memprobe/hexdump.h"

#include <string.h>

#include "memprobe/num.h"

#define LINE 16

static void put_address(struct hexdump *hex, uint64_t address)
{
	fprintf(hex->out, "%0*llx", hex->bits == 32 ? 8 : 16, (unsigned long long)address);
}

static void print_line(struct hexdump *hex)
{
	static const char digits[] = "0123456789abcdef";
	char text[3 * LINE + 2 + LINE + 4], *at = text;

	for (int i = 0; i < LINE; i++) {
		bool known = hex->known >> i & 1;

		*at++ = ' ';
		if (i == LINE / 2)
			*at++ = ' ';
		*at++ = known ? digits[hex->bytes[i] >> 4] : ' ';
		*at++ = known ? digits[hex->bytes[i] & 15] : ' ';
	}
	*at++ = ' ';
	*at++ = ' ';
	*at++ = '|';
	for (int i = 0; i < LINE; i++) {
		unsigned char byte = hex->bytes[i];

		*at++ = !(hex->known >> i & 1) ? ' ' : byte >= ' ' && byte <= '~' ? byte : '.';
	}
	*at++ = '|';
	put_address(hex, hex->line);
	fputc(' ', hex->out);
	fwrite(text, 1, at - text, hex->out);
	fputc('\n', hex->out);
}

static void flush_line(struct hexdump *hex)
{
	bool full = hex->known == 0xffff;

	if (!hex->known)
		return;
	if (full && hex->previous_full && !memcmp(hex->bytes, hex->previous, LINE)) {
		if (!hex->starred)
			fputs("*\n", hex->out);
		hex->starred = true;
	} else {
		print_line(hex);
		hex->starred = false;
	}
	memcpy(hex->previous, hex->bytes, LINE);
	hex->previous_full = full;
	hex->known = 0;
}

/* What comes is no neighbour of what came before: no `*` may span the gap. */
static void begin(struct hexdump *hex, uint64_t address)
{
	if (address == hex->end)
		return;
	flush_line(hex);
	if (hex->starred)
		put_address(hex, hex->end), fputc('\n', hex->out);
	hex->previous_full = hex->starred = false;
}

static void put(struct hexdump *hex, uint64_t address, const unsigned char *bytes, size_t size)
{
	while (size) {
		size_t offset = address % LINE, part = min_u64(size, LINE - offset);

		if (hex->known && hex->line != address - offset)
			flush_line(hex);
		hex->line = address - offset;
		memcpy(hex->bytes + offset, bytes, part);
		hex->known |= ((1u << part) - 1) << offset;
		address += part;
		bytes += part;
		size -= part;
		hex->end = address;
		if (address % LINE == 0)
			flush_line(hex);
	}
}

void hexdump_bytes(struct hexdump *hex, uint64_t address, const void *bytes, size_t size)
{
	begin(hex, address);
	put(hex, address, bytes, size);
}

void hexdump_zeros(struct hexdump *hex, uint64_t address, uint64_t size)
{
	static const unsigned char zeros[4 * LINE];
	uint64_t end = address + size, last = round_down(end, LINE);
	uint64_t first = min_u64(size, sizeof(zeros) - address % LINE);

	begin(hex, address);
	put(hex, address, zeros, first);
	address += first;
	if (address < last) {
		/* Whole lines like those before, which have been starred by now. */
		address = last;
		hex->end = last;
	}
	put(hex, address, zeros, end - address);
}

void hexdump_missing(struct hexdump *hex, uint64_t address, uint64_t size)
{
	char text[SIZE_TEXT_MAX];

	flush_line(hex);
	if (hex->starred)
		put_address(hex, hex->end), fputc('\n', hex->out);
	hex->previous_full = hex->starred = false;
	put_address(hex, address);
	fprintf(hex->out, "  (%s not mapped or not readable)\n", format_size(size, text));
	hex->end = address + size;
}

void hexdump_end(struct hexdump *hex)
{
	flush_line(hex);
	put_address(hex, hex->end);
	fputc('\n', hex->out);
}
