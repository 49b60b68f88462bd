/*
 * Maps and unmaps known amounts in functions of known names, at `go`: says `call FUNCTION SYSCALL
 * COUNT BYTES NET` for each, NET being what is still mapped, then `done`.
 *
 * `pairs N`: N pairs of mmap and munmap, then `paired NS`, the time they took. `race N`: N pairs in
 * each of 4 threads, which get the places that others have just left, then `paired 0`.
 *
 * cflags: -fomit-frame-pointer
 * variants: 32
 */
#include "victim.h"

#include <pthread.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>

#define MIB ((size_t)1 << 20)

#define CASE(name) __attribute__((noinline, noclone)) static void name(void)

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static char *map(size_t size)
{
	char *area = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	check_that(area != MAP_FAILED, "mmap");
	return area;
}

CASE(map_and_keep)
{
	for (int i = 0; i < 5; i++)
		map(3 * MIB);
	say("call map_and_keep mmap 5 %zu %zu", 15 * MIB, 15 * MIB);
}

CASE(map_and_unmap)
{
	for (int i = 0; i < 7; i++)
		munmap(map(2 * MIB), 2 * MIB);
	say("call map_and_unmap mmap 7 %zu 0", 14 * MIB);
	say("call map_and_unmap munmap 7 %zu 0", 14 * MIB);
}

/* A hole in the middle; another maps over a part. */
CASE(map_with_hole)
{
	char *area = map(8 * MIB);

	munmap(area + 2 * MIB, MIB);
	say("call map_with_hole mmap 2 %zu %zu", 9 * MIB, 7 * MIB);
	check_that(mmap(area + 4 * MIB, MIB, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
			0) == area + 4 * MIB,
		   "mmap");
}

CASE(grow_and_move)
{
	char *area = map(4 * MIB), *to = map(16 * MIB);

	check_that(mremap(area, 4 * MIB, 10 * MIB, MREMAP_MAYMOVE | MREMAP_FIXED, to) == to,
		   "mremap");
	/* Of the 20 MiB, 10 were mapped over; 4 of the 10 were mapped before and have moved. */
	say("call grow_and_move mmap 2 %zu %zu", 20 * MIB, 10 * MIB);
	say("call grow_and_move mremap 1 %zu %zu", 10 * MIB, 6 * MIB);
}

CASE(advise)
{
	static char *area;

	area = map(4 * MIB);
	for (int i = 0; i < 3; i++)
		madvise(area, 4 * MIB, MADV_DONTNEED);
	mprotect(area, MIB, PROT_READ);
	say("call advise madvise 3 %zu 0", 12 * MIB);
	say("call advise mprotect 1 %zu 0", MIB);
}

CASE(break_grows)
{
	check_that(sbrk((intptr_t)(6 * MIB)) != (void *)-1, "sbrk");
	check_that(sbrk(-(intptr_t)(2 * MIB)) != (void *)-1, "sbrk");
	say("call break_grows brk 2 %zu %zu", 8 * MIB, 4 * MIB);
}

CASE(map_fails)
{
	check_that(mmap(NULL, (size_t)-65536, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) ==
			   MAP_FAILED,
		   "mmap of too much");
	say("call map_fails mmap 1 0 0");
}

/* What libc maps: a block that malloc maps by itself. */
CASE(large_malloc)
{
	static void *kept;

	kept = malloc(20 * MIB);
	say("call large_malloc mmap 1 %zu %zu", 20 * MIB + 4096, 20 * MIB + 4096);
	check_that(kept, "malloc");
}

static void *race(void *data)
{
	const unsigned long *pairs = data;

	for (unsigned long i = 0; i < *pairs; i++)
		munmap(map(MIB), MIB);
	return NULL;
}

static void race_all(unsigned long pairs)
{
	pthread_t threads[4];

	for (int i = 0; i < 4; i++)
		check_that(!pthread_create(&threads[i], NULL, race, &pairs), "pthread_create");
	for (int i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	say("paired 0");
}

__attribute__((noinline, noclone)) static bool command(const char *line)
{
	unsigned long pairs;
	pid_t child;

	if (sscanf(line, "pairs %lu", &pairs) == 1) {
		uint64_t begin = now_ns();

		for (unsigned long i = 0; i < pairs; i++)
			munmap(map(MIB), MIB);
		say("paired %llu", (unsigned long long)(now_ns() - begin));
		return true;
	}
	if (sscanf(line, "race %lu", &pairs) == 1) {
		race_all(pairs);
		return true;
	}
	if (strcmp(line, "go"))
		return false;
	map_and_keep();
	map_and_unmap();
	map_with_hole();
	grow_and_move();
	advise();
	break_grows();
	map_fails();
	large_malloc();
	child = fork();
	if (!child) {
		map(64 * MIB);
		_exit(0);
	}
	waitpid(child, NULL, 0);
	say("done");
	return true;
}

int main(void)
{
	victim_init();
	/* The largest block that comes from the heap must not grow with what is freed. */
	free(malloc(64));
	victim_ready();
	victim_serve(command);
	return 0;
}
