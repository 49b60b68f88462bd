/*
 * `malloc_load N [BYTES [PAUSE]]`: N threads (default 2) that do nothing but malloc, realloc,
 * calloc and free of blocks up to BYTES (default 4096), and check that every block still holds what
 * was written; they rest for PAUSE us (default 0) after each 256 of them. The main thread takes
 * commands; `pause` and `resume` stop and start the load between two calls.
 *
 * variants: 32 static musl
 */
#include "victim.h"

#include <pthread.h>
#include <time.h>

#define SLOTS 512

static unsigned long block_max;
static atomic_bool paused;
static atomic_ulong resting;
static unsigned long thread_count, pause_us;

static uint32_t next_random(uint32_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 17;
	*state ^= *state << 5;
	return *state;
}

struct block {
	unsigned char *bytes;
	size_t size;
	unsigned char mark;
};

static void check_block(const struct block *block, size_t size)
{
	for (size_t i = 0; i < size; i++)
		if (block->bytes[i] != block->mark) {
			say("WRONG block %p of %zu: byte %zu is %02x, not %02x",
			    (void *)block->bytes, size, i, block->bytes[i], block->mark);
			return;
		}
}

static void renew(struct block *block, uint32_t *random)
{
	size_t size = next_random(random) % block_max + 1;
	uint32_t way = next_random(random) % 4;

	if (block->bytes)
		check_block(block, block->size);
	if (way == 0 && block->bytes) {
		block->bytes = realloc(block->bytes, size);
		if (block->bytes)
			check_block(block, size < block->size ? size : block->size);
	} else {
		free(block->bytes);
		block->bytes = way == 1 ? calloc(1, size) : malloc(size);
	}
	if (!block->bytes) {
		say("WRONG malloc of %zu: %s", size, strerror(errno));
		return;
	}
	block->size = size;
	block->mark = (unsigned char)next_random(random);
	memset(block->bytes, block->mark, size);
}

static void rest(void)
{
	struct timespec millisecond = { .tv_nsec = 1000000 };

	resting++;
	while (paused)
		nanosleep(&millisecond, NULL);
	resting--;
}

static void *load(void *data)
{
	static __thread struct block blocks[SLOTS];
	uint32_t random = 2463534242u + (uint32_t)(uintptr_t)data * 7919;

	for (;;) {
		for (int i = 0; i < 256; i++)
			renew(&blocks[next_random(&random) % SLOTS], &random);
		victim_progress++;
		if (pause_us)
			usleep(pause_us);
		while (paused)
			rest();
	}
	return NULL;
}

static bool command(const char *line)
{
	if (!strcmp(line, "pause")) {
		paused = true;
		while (resting < thread_count)
			usleep(500);
		say("paused");
	} else if (!strcmp(line, "resume")) {
		paused = false;
		say("resumed");
	} else {
		return false;
	}
	return true;
}

int main(int argc, char **argv)
{
	victim_init();
	thread_count = victim_number(argc, argv, 1, 2);
	block_max = victim_number(argc, argv, 2, 4096);
	pause_us = victim_number(argc, argv, 3, 0);
	for (unsigned long i = 0; i < thread_count; i++) {
		pthread_t thread;

		check_that(pthread_create(&thread, NULL, load, (void *)i) == 0, "pthread_create");
	}
	while (victim_progress < thread_count)
		usleep(1000);
	victim_ready();
	victim_serve(command);
	return 0;
}
