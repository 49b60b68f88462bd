/*
 * `blob MIB HITS`: a process with MIB of memory full of objects and text, in which HITS copies of
 * `channelid=4099` stand, evenly spread. Truth: `blob START SIZE`, `hits N`.
 */
#include "../victims/victim.h"

#include <sys/mman.h>

static const char needle[] = "channelid=4099";
static const char filler[] = "GET /comm/itop?token=8f1c&channel=41&seq=000000 HTTP/1.1\r\n"
			     "Host: example.com\r\nAccept: */*\r\n\r\n";

int main(int argc, char **argv)
{
	size_t size = victim_number(argc, argv, 1, 512) << 20;
	size_t hits = victim_number(argc, argv, 2, 322121);
	char *blob = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	uint64_t random = 88172645463325252ull;

	victim_init();
	check_that(blob != MAP_FAILED, "mmap");
	for (size_t at = 0; at + 256 <= size; at += 256) {
		memcpy(blob + at, filler, sizeof(filler) - 1);
		for (size_t i = 96; i < 256; i += 8) {
			random ^= random << 13;
			random ^= random >> 7;
			random ^= random << 17;
			/* Pointers and small numbers. */
			memcpy(blob + at + i,
			       &(uint64_t){ i % 24 ? random & 0xffff
						   : 0x7f0000000000 | random >> 28 },
			       8);
		}
	}
	for (size_t i = 0; i < hits; i++)
		memcpy(blob + size / hits * i + i % 256, needle, sizeof(needle) - 1);
	say("blob %p %zu", (void *)blob, size);
	say("hits %zu", hits);
	victim_ready();
	victim_serve(NULL);
	return 0;
}
