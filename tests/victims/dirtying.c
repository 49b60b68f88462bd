/*
 * Writes to every page of its heap, of argv[1] MiB in blocks of 100 KiB, again and again: what a
 * copy of it costs most.
 */
#include <pthread.h>
#include <stdlib.h>

#include "victim.h"

#define BLOCK (100u << 10)
#define PAGE  4096u

static char **blocks;
static size_t count;

static void write_all_pages(void)
{
	for (size_t i = 0; i < count; i++)
		for (size_t at = 0; at < BLOCK; at += PAGE)
			blocks[i][at]++;
}

static void *dirty(void *data)
{
	for (;;) {
		write_all_pages();
		victim_progress++;
	}
	return NULL;
}

static bool command(const char *line)
{
	return false;
}

int main(int argc, char **argv)
{
	pthread_t thread;

	victim_init();
	check_that(argc == 2, "arguments");
	count = ((size_t)strtoul(argv[1], NULL, 10) << 20) / BLOCK;
	blocks = calloc(count, sizeof(*blocks));
	check_that(blocks != NULL, "calloc");
	for (size_t i = 0; i < count; i++) {
		blocks[i] = malloc(BLOCK);
		check_that(blocks[i] != NULL, "malloc");
	}
	write_all_pages();
	pthread_create(&thread, NULL, dirty, NULL);
	victim_ready();
	victim_serve(command);
}
