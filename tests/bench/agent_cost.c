/*
 * What a pair of malloc and free costs, in thread CPU time: 100,000 live blocks of 16 to 1,024
 *bytes, of which a random one is replaced, from 64 places 12 calls deep.
 *
 *	agent_cost [plain|inactive|sampling|exact]...
 *
 * runs these in turns and prints the median and the 5th percentile of each in ns.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "../unit/agent_world.h"
#include "memprobe/error.h"
#include "memprobe/target.h"
#include "memprobe/unwind_table.h"

#ifndef LIVE
#define LIVE 100000
#endif
#define PAIRS  20000 /* less than what the scheduler gives at a time */
#define PARTS  10
#define ROUNDS 9
#define DEPTH  12

static void *(*volatile allocate)(size_t) = malloc;
static void (*volatile release)(void *) = free;

static void *blocks[LIVE];
static uint64_t random_state = 88172645463325252;

static uint64_t next_random(void)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return random_state;
}

/* Two ways down at each level of the lowest six: 64 stacks. */
static __attribute__((noinline, noclone)) void *descend(unsigned depth, unsigned way, size_t size)
{
	void *result;

	if (!depth)
		result = allocate(size);
	else if (depth <= 6 && way & 1)
		result = descend(depth - 1, way >> 1, size);
	else
		result = descend(depth - 1, way >> (depth <= 6), size);
	__asm__ volatile("" : "+r"(result));
	return result;
}

static double cpu_ns(void)
{
	struct timespec time;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
	return (double)time.tv_sec * 1e9 + (double)time.tv_nsec;
}

static double measure(unsigned pairs)
{
	double start = cpu_ns();

	for (unsigned i = 0; i < pairs; i++) {
		uint64_t random = next_random();
		void **block = &blocks[random % LIVE];

		release(*block);
		*block = descend(DEPTH, random >> 40, 16 + (random >> 20) % 1009);
	}
	return (cpu_ns() - start) / pairs;
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static struct agent_world *make_world(struct target **target, struct unwind_table **table)
{
	struct agent_world *world = world_create(32768);
	struct error *error = target_open_live(getpid(), target);
	size_t size;

	if (!error)
		error = unwind_table_create(*target, table);
	if (error) {
		fprintf(stderr, "agent_cost: %s\n", error->message);
		exit(1);
	}
	world->config->unwind = (uint64_t)unwind_table_image(*table, &size);
	return world;
}

/* Every block goes as it came and comes again as the others will: each mode finds its own truth,
 * not what another one has left. */
static void set_mode(struct agent_world *world, const char *mode, void *hooks[2][2])
{
	uint32_t active = !strcmp(mode, "exact")      ? AGENT_EXACT
			  : !strcmp(mode, "sampling") ? AGENT_SAMPLING
						      : AGENT_INACTIVE;
	void **made = hooks[active != AGENT_EXACT];

	for (int i = 0; i < LIVE; i++)
		release(blocks[i]);
	world_stop(world);
	allocate = strcmp(mode, "plain") ? (void *(*)(size_t))made[0] : malloc;
	release = strcmp(mode, "plain") ? (void (*)(void *))made[1] : free;
	if (active)
		world_start(world, active, 512 << 10, 600);
	for (int i = 0; i < LIVE; i++) {
		uint64_t random = next_random();

		blocks[i] = descend(DEPTH, random >> 40, 16 + (random >> 20) % 1009);
	}
	measure(2 * LIVE);
}

int main(int argc, char **argv)
{
	static double times[8][ROUNDS * PARTS];
	struct unwind_table *table;
	struct target *target;
	struct agent_world *world;
	void *hooks[2][2]; /* for exact mode, and for sampling */

	if (argc < 2 || argc > 9)
		return 2;
	world = make_world(&target, &table);
	for (int i = 0; i < 2; i++) {
		world->mode = i ? AGENT_SAMPLING : AGENT_EXACT;
		hooks[i][0] = world_hook_malloc(world, malloc);
		hooks[i][1] = world_hook_free(world, free);
	}
	for (int i = 0; i < LIVE; i++)
		blocks[i] = malloc(16);
	measure(4 * LIVE);
	for (int round = 0; round < ROUNDS; round++) {
		for (int i = 1; i < argc; i++) {
			set_mode(world, argv[i], hooks);
			for (int part = 0; part < PARTS; part++)
				times[i - 1][round * PARTS + part] = measure(PAIRS);
		}
	}
	for (int i = 1; i < argc; i++) {
		qsort(times[i - 1], ROUNDS * PARTS, sizeof(double), by_value);
		printf("%s %.1f %.1f\n", argv[i], times[i - 1][ROUNDS * PARTS / 2],
		       times[i - 1][ROUNDS * PARTS / 20]);
	}
	fprintf(stderr, "recorded %lu, lost %lu, truncated %lu\n",
		world_count(world, AGENT_COUNT_ALLOCS), world_count(world, AGENT_COUNT_LOST),
		world_count(world, AGENT_COUNT_TRUNCATED));
	return 0;
}
