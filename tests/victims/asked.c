/*
 * `asked`: blocks of many sizes, for MALLOC_CHECK_ and its like, which know what was asked for.
 *
 * Truth: `sized USABLE COUNT` by malloc_usable_size(), `leaked COUNT`.
 *
 * variants: 32
 */
#include "victim.h"

#include <malloc.h>

#define BLOCKS 600

static void *volatile kept[BLOCKS], *volatile last;

int main(void)
{
	char clean[1 << 14];

	victim_init();
	for (unsigned i = 0; i < BLOCKS; i++) {
		void *hole = malloc(2 * i + 100);

		kept[i] = malloc(i == 0 ? 1234567 : 1000 + i / 3);
		memset(kept[i], 'k', 1000);
		free(hole);
	}
	for (unsigned i = 0; i < 40; i++) {
		char *volatile leaked = malloc(5001);

		memset(leaked, 'L', 5001);
		leaked = NULL;
	}
	/* What registers may still hold is this one. */
	last = malloc(24);
	memset(clean, 0, sizeof(clean));
	__asm__ volatile("" : : "r"(clean) : "memory");
	for (unsigned i = 0; i < BLOCKS; i++)
		say("sized %zu 1", malloc_usable_size(kept[i]));
	say("leaked 40");
	victim_ready();
	victim_serve(NULL);
	return 0;
}
