/*
 * Writes again and again to huge pages of the pool, all that is free of it: hugepages
 * private|shared COUNT. Where a page is to be copied and the pool is empty, it dies of SIGBUS. Says
 * `refused` first where it cannot have them.
 */
#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "victim.h"

#define HUGE (2u << 20)

static volatile char *pages;
static unsigned long count;

static void *write_pages(void *unused)
{
	(void)unused;
	for (unsigned round = 0;; round++) {
		for (unsigned long i = 0; i < count; i++)
			pages[i * HUGE + round % HUGE]++;
		victim_progress++;
		usleep(200);
	}
	return NULL;
}

int main(int argc, char **argv)
{
	bool is_shared = argc > 1 && !strcmp(argv[1], "shared");
	pthread_t thread;
	void *start;

	victim_init();
	count = victim_number(argc, argv, 2, 1);
	start = mmap(NULL, count * HUGE, PROT_READ | PROT_WRITE,
		     (is_shared ? MAP_SHARED : MAP_PRIVATE | MAP_NORESERVE) | MAP_ANONYMOUS |
			     MAP_HUGETLB,
		     -1, 0);
	if (start == MAP_FAILED) {
		say("refused");
		victim_ready();
		victim_serve(NULL);
		return 0;
	}
	pages = start;
	for (unsigned long i = 0; i < count; i++)
		pages[i * HUGE] = 1;
	check_that(malloc(1000) != NULL, "malloc");
	check_that(pthread_create(&thread, NULL, write_pages, NULL) == 0, "pthread_create");
	victim_ready();
	victim_serve(NULL);
	return 0;
}
