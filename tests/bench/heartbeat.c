/*
 * heartbeat [MIB [BLOB_MIB]]: a process with 8 threads and a heap of MIB (default 1024) in blocks
 * of 256 bytes, a tenth of them free; one more thread does nothing but look at the clock.
 *
 * Commands: those of beat.h. `blob START SIZE` says where BLOB_MIB (default 0) of other memory lie.
 */
#include "beat.h"

#include <sys/mman.h>

#define THREADS	   8
#define BLOCK_SIZE 256

/* Fills its part of the heap, then sleeps. */
static void *fill(void *data)
{
	size_t count = (size_t)(uintptr_t)data;
	void **blocks = malloc(count * sizeof(*blocks));
	struct timespec time = { .tv_nsec = 20000000 };

	check_that(blocks != NULL, "malloc");
	for (size_t i = 0; i < count; i++) {
		blocks[i] = malloc(BLOCK_SIZE);
		memset(blocks[i], (int)i | 1, BLOCK_SIZE);
	}
	for (size_t i = 0; i < count; i += 10)
		free(blocks[i]);
	victim_progress++;
	for (;;)
		nanosleep(&time, NULL);
	return NULL;
}

int main(int argc, char **argv)
{
	size_t mib = victim_number(argc, argv, 1, 1024);
	size_t blob = victim_number(argc, argv, 2, 0) << 20;
	pthread_t thread;

	victim_init();
	if (blob) {
		unsigned char *bytes = mmap(NULL, blob, PROT_READ | PROT_WRITE,
					    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		check_that(bytes != MAP_FAILED, "mmap");
		for (size_t i = 0; i < blob; i++)
			bytes[i] = (unsigned char)(i * 37 % 255 + 1);
		say("blob %p %zu", (void *)bytes, blob);
	}
	for (unsigned i = 0; i < THREADS; i++)
		pthread_create(&thread, NULL, fill,
			       (void *)(uintptr_t)((mib << 20) / BLOCK_SIZE / THREADS));
	while (victim_progress < THREADS)
		usleep(1000);
	pthread_create(&thread, NULL, beat, NULL);
	victim_ready();
	victim_serve(beat_command);
	return 0;
}
