/*
 * poolwork.c - a pool allocator whose parameters have names, and work with it that leaves some
 * blocks.
 *
 * `go`: makes pools and blocks, then `done N`. `ping`: `pong N`. It says what is left, of a
 * function that asked for it: `truth BYTES COUNT`.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct pool {
	struct pool *parent, *child, *sibling;
	size_t used;
	char room[8192];
};

static unsigned long bytes_left, count_left;

__attribute__((noinline)) void *pool_get(struct pool *owner, double scale, size_t bytes, int flags)
{
	void *block = owner->room + owner->used;

	owner->used += (bytes + 15) & ~15ul;
	if (owner->used > sizeof(owner->room) || scale < 0 || flags) {
		puts("WRONG");
		exit(1);
	}
	return block;
}

__attribute__((noinline)) void pool_clear(struct pool *which)
{
	while (which->child) {
		struct pool *child = which->child;

		which->child = child->sibling;
		pool_clear(child);
		free(child);
	}
	which->used = 0;
}

__attribute__((noinline)) static struct pool *pool_create(struct pool *parent)
{
	struct pool *pool = calloc(1, sizeof(*pool));

	if (!pool)
		exit(1);
	pool->parent = parent;
	pool->sibling = parent->child;
	parent->child = pool;
	return pool;
}

__attribute__((noinline)) static void keep(struct pool *pool, size_t bytes)
{
	memset(pool_get(pool, 1.5, bytes, 0), 1, bytes);
	bytes_left += bytes;
	count_left++;
}

static void work(struct pool *top, struct pool *kept)
{
	for (unsigned round = 0; round < 50; round++) {
		struct pool *pool = pool_create(top), *below = pool_create(pool);

		for (size_t bytes = 1; bytes < 200; bytes += 7) {
			pool_get(pool, 1.0, bytes, 0);
			pool_get(below, 1.0, bytes + 1, 0);
		}
		pool_get(top, 2.0, 10, 0);
		pool_clear(top);
	}
	for (size_t bytes = 10; bytes < 20; bytes++)
		keep(kept, bytes);
}

int main(void)
{
	static struct pool top, kept;
	char line[64];
	unsigned long gone = 0, pongs = 0;

	setvbuf(stdout, NULL, _IOLBF, 0);
	printf("ready %d\n", (int)getpid());
	while (fgets(line, sizeof(line), stdin)) {
		if (!strcmp(line, "ping\n"))
			printf("pong %lu\n", ++pongs);
		if (strcmp(line, "go\n"))
			continue;
		work(&top, &kept);
		printf("truth %lu %lu\n", bytes_left, count_left);
		printf("done %lu\n", ++gone);
	}
	return 0;
}
