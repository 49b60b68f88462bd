/*
 * poolwork.c - a pool allocator whose parameters have names, and work with it that leaves some
 * blocks.
 *
 * `go`: makes pools and blocks, then `done N`. `ping`: `pong N`. It says what is left, of a
 * function that asked for it: `truth BYTES COUNT`.
 *
 * `grow`: blocks get larger that are there since it began, in three pools below each other; then
 * the last is moved below a fourth, and the second emptied. `empty`: the fourth is. `grown BYTES
 * COUNT` tells what is left of that.
 *
 * `lose`: hold() and lose() make a hundred pairs of blocks each; of the former something points
 * into the first, and that into the second; of the latter they point to each other. Then `lost`.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct pool {
	struct pool *parent, *child, *sibling;
	size_t used;
	char room[1 << 15];
};

static unsigned long bytes_left, count_left;

static void *take(struct pool *owner, size_t bytes)
{
	void *block = owner->room + owner->used;

	owner->used += (bytes + 15) & ~15ul;
	if (owner->used > sizeof(owner->room)) {
		puts("WRONG");
		exit(1);
	}
	return block;
}

__attribute__((noinline)) void *pool_get(struct pool *owner, double scale, size_t bytes, int flags)
{
	if (scale < 0 || flags) {
		puts("WRONG");
		exit(1);
	}
	return take(owner, bytes);
}

/* ---- blocks that are there since the beginning ---- */

#define OLD 4

static struct pool old[OLD];
static void *old_blocks[OLD];

__attribute__((noinline)) struct pool *pool_owner(const void *block)
{
	for (unsigned i = 0; i < OLD; i++)
		if ((const char *)block >= old[i].room &&
		    (const char *)block < old[i].room + sizeof(old[i].room))
			return &old[i];
	return NULL;
}

__attribute__((noinline)) void *pool_more(void *block, size_t bytes)
{
	return take(pool_owner(block), bytes);
}

__attribute__((noinline)) void pool_move(struct pool *pool, struct pool *parent)
{
	pool->parent->child = NULL;
	pool->parent = parent;
	pool->sibling = parent->child;
	parent->child = pool;
}

__attribute__((noinline)) void pool_empty(struct pool *which)
{
	for (struct pool *child = which->child; child; child = child->sibling)
		pool_empty(child);
	which->used = 0;
}

static void begin_old(void)
{
	for (unsigned i = 0; i < OLD; i++)
		old_blocks[i] = take(&old[i], 10);
	for (unsigned i = 1; i < 3; i++) {
		old[i].parent = &old[i - 1];
		old[i - 1].child = &old[i];
	}
}

static void grow(void)
{
	unsigned long bytes = 0, count = 0;

	for (unsigned i = 0; i < 3; i++)
		for (size_t n = 0; n < 20; n++)
			old_blocks[i] = n % 5 ? pool_more(old_blocks[i], 100 * i + n)
					      : take(&old[i], 1); /* one that nobody knows */
	pool_move(&old[2], &old[3]);
	pool_empty(&old[1]);
	for (unsigned i = 0; i < 3; i += 2) {
		for (size_t n = 4; n < 20; n += 5, count++)
			bytes += 100 * i + n;
	}
	printf("grown %lu %lu\n", bytes, count);
}

static void empty(void)
{
	pool_empty(&old[3]);
	printf("grown %d %d\n", 4 + 9 + 14 + 19, 4);
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

#define PAIRS 100

static struct pool holder;
static char *volatile held[PAIRS];

static char **pair(void)
{
	char **first = pool_get(&holder, 1.0, 24, 0), *second = pool_get(&holder, 1.0, 40, 0);

	memset(first, 0, 24);
	memset(second, 0, 40);
	first[1] = second + 8;
	return first;
}

__attribute__((noinline)) static void hold(void)
{
	for (unsigned i = 0; i < PAIRS; i++)
		held[i] = (char *)(pair() + 1);
}

__attribute__((noinline)) static void lose(void)
{
	for (unsigned i = 0; i < PAIRS; i++) {
		char **first = pair();

		memcpy(first[1] - 8, &first, sizeof(first));
	}
}

__attribute__((noinline)) static void sweep(void)
{
	char stack[8192];

	memset(stack, 0, sizeof(stack));
	__asm__ volatile("" : : "r"(stack) : "memory");
}

int main(void)
{
	static struct pool top, kept;
	char line[64];
	unsigned long gone = 0, pongs = 0;

	setvbuf(stdout, NULL, _IOLBF, 0);
	begin_old();
	printf("ready %d\n", (int)getpid());
	while (fgets(line, sizeof(line), stdin)) {
		if (!strcmp(line, "ping\n"))
			printf("pong %lu\n", ++pongs);
		if (!strcmp(line, "grow\n"))
			grow();
		if (!strcmp(line, "empty\n"))
			empty();
		if (!strcmp(line, "lose\n")) {
			lose();
			hold();
			sweep();
			puts("lost");
		}
		if (strcmp(line, "go\n"))
			continue;
		work(&top, &kept);
		printf("truth %lu %lu\n", bytes_left, count_left);
		printf("done %lu\n", ++gone);
	}
	return 0;
}
