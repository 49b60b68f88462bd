/*
 * Small blocks in great number: each `go` allocates 20,000 more, of 16 to 79 bytes, and frees every
 * other of these: `live COUNT BYTES`, of all so far.
 */
#include "victim.h"

#include <stdlib.h>

enum { STEP = 20000, MOST = 200 * STEP };

static void *kept[MOST];
static unsigned count;
static unsigned long bytes;

__attribute__((noinline)) static void keep(void)
{
	for (unsigned i = 0; i < STEP && count < MOST; i++) {
		size_t size = 16 + i * 7 % 64;
		void *block = malloc(size);

		check_that(block != NULL, "malloc");
		if (i & 1) {
			free(block);
			continue;
		}
		kept[count++] = block;
		bytes += size;
	}
}

static bool command(const char *line)
{
	if (strcmp(line, "go"))
		return false;
	keep();
	say("live %u %lu", count, bytes);
	return true;
}

int main(void)
{
	victim_init();
	victim_ready();
	victim_serve(command);
	return 0;
}
