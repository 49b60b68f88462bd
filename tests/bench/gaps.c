/*
 * gaps [THREADS]: so many threads (default 8) that allocate, look at the clock, and sleep for a
 * millisecond, again and again. A sleep that takes longer, or work that does, is a gap: what a
 * request that came just then would have waited. The machine makes gaps of its own.
 *
 * Commands: `beat` begins a measurement, `gap` prints `gap MICROSECONDS`: the longest of any
 * thread.
 */
#include "beat.h"

#define SLEEP_NS 1000000
#define BLOCKS	 16

static void note(uint64_t gap)
{
	uint64_t longest = longest_gap;

	while (gap > longest && !atomic_compare_exchange_weak(&longest_gap, &longest, gap))
		;
}

static void *look(void *data)
{
	struct timespec pause = { .tv_nsec = SLEEP_NS };
	void *blocks[BLOCKS] = { NULL };
	unsigned seen = measurement;
	uint64_t last = now_ns();

	for (unsigned round = 0;; round++) {
		uint64_t now;

		for (unsigned i = 0; i < BLOCKS; i++) {
			free(blocks[i]);
			blocks[i] = malloc(16 + (round * 61 + i * 199) % 2000);
		}
		nanosleep(&pause, NULL);
		now = now_ns();
		if (seen == measurement && now - last > SLEEP_NS)
			note(now - last - SLEEP_NS);
		seen = measurement;
		last = now;
		victim_progress++;
	}
	return data;
}

int main(int argc, char **argv)
{
	unsigned long count = victim_number(argc, argv, 1, 8);

	victim_init();
	for (unsigned long i = 0; i < count; i++) {
		pthread_t thread;

		check_that(pthread_create(&thread, NULL, look, NULL) == 0, "pthread_create");
	}
	while (victim_progress < count)
		usleep(1000);
	victim_ready();
	victim_serve(beat_command);
	return 0;
}
