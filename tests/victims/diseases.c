/*
 * `diseases NAME`: a program whose memory has one known trouble, or none. Its truth is its name;
 * what it holds is a multiple of 32 MiB in small blocks beside it, but for where that would hide
 * it.
 *
 * With a trouble: leak free fragmented arenas stacks files shared mapped huge
 * Without: idle cache untouched
 */
#include "victim.h"

#include <fcntl.h>
#include <malloc.h>
#include <pthread.h>
#include <sys/mman.h>

#define MIB	((size_t)1 << 20)
#define BLOCK	1000u
#define BLOCKS	(32 * MIB / BLOCK)
#define THREADS 16u

static char **volatile kept, **volatile cached;

/* Blocks that are all reachable. */
static char **fill(size_t count, size_t size)
{
	char **blocks = malloc(count * sizeof(*blocks));

	for (size_t i = 0; i < count; i++) {
		blocks[i] = malloc(size);
		memset(blocks[i], 'x', size);
	}
	return blocks;
}

static void lose(void)
{
	char **blocks = fill(BLOCKS / 4, BLOCK);

	memset(blocks, 0, BLOCKS / 4 * sizeof(*blocks));
	free(blocks);
}

/* Every @step-th block stays. */
static void release(size_t step)
{
	for (size_t i = 0; i < BLOCKS; i++) {
		if (i % step == 0)
			continue;
		free(kept[i]);
		kept[i] = NULL;
	}
}

static void *fill_and_free(void *unused)
{
	char **blocks = fill(BLOCKS / 8, BLOCK), *last = malloc(BLOCK);

	for (size_t i = 0; i < BLOCKS / 8; i++)
		free(blocks[i]);
	free(blocks);
	kept[0] = last;
	pause();
	return NULL;
}

static void *use_stack(void *unused)
{
	volatile char deep[4 * MIB];

	for (size_t i = 0; i < sizeof(deep); i += 1024)
		deep[i] = 1;
	pause();
	return (void *)(uintptr_t)deep[0];
}

static void start(void *(*run)(void *))
{
	pthread_t thread;

	for (unsigned i = 0; i < THREADS; i++)
		check_that(!pthread_create(&thread, NULL, run, NULL), "pthread_create");
}

/* Touches each page: writes it where that is allowed. */
static void map_all(int file, int flags, int protection)
{
	volatile char *area = mmap(NULL, 32 * MIB, protection, flags, file, 0);

	check_that(area != MAP_FAILED, "mmap");
	for (size_t i = 0; i < 32 * MIB; i += 4096)
		if (protection & PROT_WRITE)
			area[i] = 1;
		else
			(void)area[i];
}

static int open_file(void)
{
	char path[] = "/tmp/diseases.XXXXXX";
	int file = mkstemp(path);

	check_that(file >= 0, "mkstemp");
	unlink(path);
	check_that(!ftruncate(file, 32 * MIB), "ftruncate");
	return file;
}

/* One byte of each huge page. */
static void map_huge(void)
{
	char *area =
		mmap(NULL, 66 * MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char *aligned = (char *)(((uintptr_t)area + 2 * MIB - 1) & ~(2 * MIB - 1));

	check_that(area != MAP_FAILED, "mmap");
	madvise(aligned, 64 * MIB, MADV_HUGEPAGE);
	for (size_t i = 0; i < 64 * MIB; i += 2 * MIB)
		aligned[i] = 1;
}

static void fall_ill(const char *name)
{
	if (!strcmp(name, "leak"))
		lose();
	else if (!strcmp(name, "free"))
		release(BLOCKS - 1);
	else if (!strcmp(name, "fragmented"))
		release(4);
	else if (!strcmp(name, "arenas"))
		start(fill_and_free);
	else if (!strcmp(name, "stacks"))
		start(use_stack);
	else if (!strcmp(name, "files"))
		map_all(open_file(), MAP_PRIVATE, PROT_READ);
	else if (!strcmp(name, "shared"))
		map_all(-1, MAP_SHARED | MAP_ANONYMOUS, PROT_READ | PROT_WRITE);
	else if (!strcmp(name, "mapped"))
		for (unsigned i = 0; i < 60000; i++)
			mmap(NULL, 4096, i % 2 ? PROT_READ : PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS,
			     -1, 0);
	else if (!strcmp(name, "huge"))
		map_huge();
	else if (!strcmp(name, "cache"))
		cached = fill(BLOCKS / 4, BLOCK);
	else if (!strcmp(name, "untouched"))
		kept[0] = calloc(1, 256 * MIB);
}

int main(int argc, char **argv)
{
	const char *name = argc > 1 ? argv[1] : "idle";

	victim_init();
	kept = fill(BLOCKS, BLOCK);
	fall_ill(name);
	victim_ready();
	victim_serve(NULL);
	return 0;
}
