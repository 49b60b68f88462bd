/*
 * One thread that computes for ever, in a frame that is full of stale return addresses into
 * malloc: they are no proof that it is in malloc.
 *
 * Truth: `stale COUNT`, the words of the frame that point into malloc's code.
 *
 * variants: 32
 * cflags: -Wno-uninitialized
 */
#include "victim.h"

#define FRAME 1024

static volatile uint64_t sum;

/* Leaves return addresses of free() and malloc() at many depths. */
static __attribute__((noinline)) void leave_traces(int depth)
{
	volatile char room[48];
	void *block;

	room[0] = (char)depth;
	if (depth > 1)
		leave_traces(depth - 1);
	block = malloc(200000 + (size_t)depth * 4096);
	memset(block, room[0], 4096);
	free(block);
}

/* What malloc and its helpers lie in, closely enough to count. */
static bool is_malloc(uintptr_t word)
{
	uintptr_t code = (uintptr_t)malloc;

	return word > code - 0x2000 && word < code + 0x2000;
}

/* Two that call each other in an order that @path tells: no two moments have the same stack. */
static __attribute__((noinline)) uint64_t even(uint64_t path, int depth);

static __attribute__((noinline)) uint64_t odd(uint64_t path, int depth)
{
	uint64_t below = 0;

	if (depth--)
		below = path & 1 ? odd(path >> 1, depth) : even(path >> 1, depth);
	for (int i = 0; depth < 0 && i < 10000; i++)
		sum = sum * 3 + 1;
	return below + 1;
}

static __attribute__((noinline)) uint64_t even(uint64_t path, int depth)
{
	uint64_t below = 0;

	if (depth--)
		below = path & 1 ? odd(path >> 1, depth) : even(path >> 1, depth);
	for (int i = 0; depth < 0 && i < 10000; i++)
		sum = sum * 5 + 1;
	return below + 1;
}

static __attribute__((noinline)) void compute(void)
{
	volatile uintptr_t frame[FRAME]; /* on purpose not initialised */
	unsigned long stale = 0;
	uint64_t path = 88172645463325252;

	for (int i = 0; i < FRAME; i++)
		stale += is_malloc(frame[i]);
	say("stale %lu", stale);
	victim_ready();
	for (;;) {
		path ^= path << 13;
		path ^= path >> 7;
		path ^= path << 17;
		if (even(path, 40) != 41)
			say("WRONG depth");
	}
}

int main(void)
{
	victim_init();
	have_heap();
	leave_traces(60);
	compute();
}
