/*
 * `brokenbrk foreign|blocked`: a main arena that is not one piece.
 *
 * foreign: the program moves the break itself between two growths of the heap, and keeps a block
 * only by a pointer there. blocked: a mapping stands in the break's way, so that malloc goes on in
 * memory from mmap(). After `ready` nothing allocates.
 *
 * Truth: `mallinfo2 FIELD=VALUE ...` as in heapshape, `kept foreign ADDRESS`, `leaked COUNT`.
 *
 * variants: 32 static
 */
#include "mallinfo2.h"
#include "victim.h"

#include <sys/mman.h>

#define BLOCKS 3000

void *volatile table[BLOCKS];

static void fill(unsigned first)
{
	for (unsigned i = first; i < BLOCKS; i += 2)
		table[i] = malloc(100 + i % 900);
	for (unsigned i = first; i < BLOCKS; i += 8) {
		free(table[i]);
		table[i] = NULL;
	}
}

__attribute__((noinline)) static void move_break(void)
{
	void **own = sbrk(40000);

	check_that(own != (void *)-1, "sbrk");
	memset(own, 0, 40000);
	own[100] = malloc(2000);
	say("kept foreign %p", own[100]);
}

static void block_break(void)
{
	uintptr_t end = ((uintptr_t)sbrk(0) + 4095) & ~4095ul;

	check_that(mmap((void *)end, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
			0) == (void *)end,
		   "mmap");
}

__attribute__((noinline)) static void leak(void)
{
	for (int i = 0; i < 400; i++) {
		char *volatile block = malloc(777);

		memset(block, 0, 777);
	}
	say("leaked 400");
}

__attribute__((noinline)) static void clean_stack(void)
{
	char bytes[1 << 14];

	memset(bytes, 0, sizeof(bytes));
	__asm__ volatile("" : : "r"(bytes) : "memory");
}

int main(int argc, char **argv)
{
	struct mallinfo2 info;

	victim_init();
	fill(0);
	if (argc > 1 && !strcmp(argv[1], "foreign"))
		move_break();
	else
		block_break();
	fill(1);
	leak();
	/* What registers may still hold is this one. */
	table[0] = malloc(24);
	clean_stack();
	info = mallinfo2();
	say("mallinfo2 arena=%zu ordblks=%zu smblks=%zu hblks=%zu hblkhd=%zu fsmblks=%zu "
	    "uordblks=%zu fordblks=%zu keepcost=%zu",
	    info.arena, info.ordblks, info.smblks, info.hblks, info.hblkhd, info.fsmblks,
	    info.uordblks, info.fordblks, info.keepcost);
	victim_ready();
	victim_serve(NULL);
	return 0;
}
