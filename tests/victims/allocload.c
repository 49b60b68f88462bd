/*
 * A load of malloc and free for measuring: two threads, each with 50,000 live blocks of 16 to
 * 1,024 bytes of which a random one is replaced, from 64 places 12 calls deep.
 *
 *	pairs N		N pairs in all, at full speed: `took CPU_NS`, of both threads together
 *	paced N RATE	N pairs in all, at RATE a second: `took CPU_NS P99_NS`, the latter of a
 *malloc
 *
 * cflags: -fomit-frame-pointer
 */
#include "victim.h"

#include <pthread.h>
#include <time.h>

#define THREADS 2
#define LIVE	50000
#define DEPTH	12
#define BATCH	50u

static struct worker {
	pthread_t thread;
	void *blocks[LIVE];
	uint64_t random, cpu_ns;
	unsigned long pairs, rate; /* rate 0: full speed */
	uint32_t *latencies;
} workers[THREADS];

static uint64_t now(clockid_t clock)
{
	struct timespec time;

	clock_gettime(clock, &time);
	return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

static uint64_t next_random(struct worker *worker)
{
	worker->random ^= worker->random << 13;
	worker->random ^= worker->random >> 7;
	worker->random ^= worker->random << 17;
	return worker->random;
}

static void *left(unsigned depth, unsigned path, size_t size);

/* Two ways down at each of the lowest six levels: 64 stacks. */
__attribute__((noinline, noclone)) static void *right(unsigned depth, unsigned path, size_t size)
{
	void *block = depth == 0 ? malloc(size)
		      : path & 1 ? right(depth - 1, path >> 1, size)
				 : left(depth - 1, path >> 1, size);

	__asm__ volatile("" : "+r"(block));
	return block;
}

__attribute__((noinline, noclone)) static void *left(unsigned depth, unsigned path, size_t size)
{
	void *block = depth == 0 ? malloc(size)
		      : path & 1 ? right(depth - 1, path >> 1, size)
				 : left(depth - 1, path >> 1, size);

	__asm__ volatile("" : "+r"(block));
	return block;
}

static void pair(struct worker *worker, unsigned long i)
{
	uint64_t random = next_random(worker), begin = 0;
	unsigned place = (unsigned)(random >> 32) % LIVE;
	size_t size = 16 + (random >> 16) % 1009;

	free(worker->blocks[place]);
	if (worker->latencies)
		begin = now(CLOCK_MONOTONIC);
	worker->blocks[place] = left(DEPTH - 4, (unsigned)random & 63, size);
	if (worker->latencies)
		worker->latencies[i] = (uint32_t)(now(CLOCK_MONOTONIC) - begin);
}

static void wait_for(struct worker *worker, uint64_t begin, unsigned long done)
{
	uint64_t then = begin + done * 1000000000u / worker->rate;
	struct timespec time = { .tv_sec = (time_t)(then / 1000000000u),
				 .tv_nsec = (long)(then % 1000000000u) };

	clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &time, NULL);
}

static void *work(void *data)
{
	struct worker *worker = data;
	uint64_t begin = now(CLOCK_MONOTONIC), cpu = now(CLOCK_THREAD_CPUTIME_ID);

	for (unsigned long i = 0; i < worker->pairs; i++) {
		pair(worker, i);
		if (worker->rate && i % BATCH == BATCH - 1)
			wait_for(worker, begin, i + 1);
	}
	worker->cpu_ns = now(CLOCK_THREAD_CPUTIME_ID) - cpu;
	return NULL;
}

static int compare(const void *left, const void *right)
{
	uint32_t a = *(const uint32_t *)left, b = *(const uint32_t *)right;

	return a < b ? -1 : a > b;
}

static uint32_t percentile(unsigned long pairs)
{
	uint32_t *all = malloc(THREADS * pairs * sizeof(*all)), result;

	for (unsigned i = 0; i < THREADS; i++)
		memcpy(all + i * pairs, workers[i].latencies, pairs * sizeof(*all));
	qsort(all, THREADS * pairs, sizeof(*all), compare);
	result = all[THREADS * pairs * 99 / 100];
	free(all);
	return result;
}

static bool command(const char *line)
{
	unsigned long pairs = 0, rate = 0;
	uint64_t cpu_ns = 0;
	uint32_t p99 = 0;

	if (sscanf(line, "paced %lu %lu", &pairs, &rate) != 2 &&
	    sscanf(line, "pairs %lu", &pairs) != 1)
		return false;
	for (unsigned i = 0; i < THREADS; i++) {
		workers[i].pairs = pairs / THREADS;
		workers[i].rate = rate / THREADS;
		if (rate)
			workers[i].latencies = calloc(pairs / THREADS, sizeof(uint32_t));
		check_that(!pthread_create(&workers[i].thread, NULL, work, &workers[i]), "thread");
	}
	for (unsigned i = 0; i < THREADS; i++) {
		pthread_join(workers[i].thread, NULL);
		cpu_ns += workers[i].cpu_ns;
	}
	if (rate)
		p99 = percentile(pairs / THREADS);
	for (unsigned i = 0; i < THREADS; i++) {
		free(workers[i].latencies);
		workers[i].latencies = NULL;
	}
	say("took %lu %u", (unsigned long)cpu_ns, p99);
	return true;
}

int main(void)
{
	victim_init();
	for (unsigned i = 0; i < THREADS; i++) {
		workers[i].random = 88172645463325252u + i;
		for (unsigned k = 0; k < LIVE; k++)
			pair(&workers[i], k);
	}
	victim_ready();
	victim_serve(command);
	return 0;
}
