/*
 * `stackdepth KIB`: a thread that once used KIB KiB of its stack and then returned from there.
 *
 * Truth: `deep TID BYTES`.
 *
 * variants: 32
 */
#include "victim.h"

#include <pthread.h>

static atomic_int done;

__attribute__((noinline)) static void dive(size_t bytes)
{
	volatile char *frame = __builtin_alloca(bytes);

	for (size_t i = 0; i < bytes; i += 64)
		frame[i] = 1;
}

static void *run(void *data)
{
	size_t bytes = (size_t)data;

	dive(bytes);
	say("deep %d %zu", victim_tid(), bytes);
	done = 1;
	for (;;)
		pause();
	return NULL;
}

int main(int argc, char **argv)
{
	pthread_t thread;

	victim_init();
	check_that(pthread_create(&thread, NULL, run,
				  (void *)(victim_number(argc, argv, 1, 100) << 10)) == 0,
		   "pthread_create");
	while (!done)
		usleep(1000);
	victim_ready();
	victim_serve(NULL);
	return 0;
}
