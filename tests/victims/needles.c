/*
 * `needles`: texts and pointers at known places, none of which is in the program's file.
 *
 * Truth: `text NAME ADDRESS [BLOCK]`: at ADDRESS stands `needle-NAME`, in the block that malloc
 * returned as BLOCK; `wide ADDRESS`: `needle-wide` in UTF-16LE; `pointers COUNT BLOCK`: so many
 * words of the range `words START END` are the address of BLOCK; `holes START END`: eight pages of
 * which the fifth is not mapped, with `needle-border` across the second and third;
 * `many COUNT START END`: `needle-many` stands so often in that range, of 4 MiB; `shared ADDRESS`:
 * `needle-shared`, in 8 MiB of shared memory that is otherwise untouched.
 *
 * Commands: `blocks` prints `blocks N`: how much of the shared memory there is, in blocks of 512
 * bytes; `churn` begins to map, fill and unmap memory without end.
 *
 * variants: 32
 */
#include "victim.h"

#include <malloc.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/stat.h>

#define MANY_SIZE   (4u << 20)
#define SHARED_SIZE (8u << 20)

static size_t page;
static int shared;

static char *map(size_t size)
{
	char *start = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	check_that(start != MAP_FAILED, "mmap");
	return start;
}

static void put(char *at, const char *name)
{
	memcpy(at, "needle", 6);
	at[6] = '-';
	memcpy(at + 7, name, strlen(name));
}

static void *plant(const char *name, size_t size, size_t offset)
{
	char *block = malloc(size);

	memset(block, '.', size);
	put(block + offset, name);
	say("text %s %p %p", name, (void *)(block + offset), (void *)block);
	return block;
}

static void *plant_in_arena(void *data)
{
	plant("arena", 3000, 1000);
	*(volatile int *)data = 1;
	for (;;)
		pause();
	return NULL;
}

static void plant_wide(void)
{
	static const char text[] = "needle-wide";
	uint16_t *wide = (uint16_t *)map(page);

	for (size_t i = 0; i < sizeof(text); i++)
		wide[100 + i] = (unsigned char)text[i];
	say("wide %p", (void *)(wide + 100));
}

static void plant_pointers(void *block)
{
	uintptr_t *words = (uintptr_t *)map(4 * page);
	size_t count = 0;

	for (size_t i = 3; i < 4 * page / sizeof(*words); i += 7, count++)
		words[i] = (uintptr_t)block;
	say("pointers %zu %p", count, block);
	say("words %p %p", (void *)words, (void *)((char *)words + 4 * page));
}

static void plant_holes(void)
{
	char *start = map(8 * page);

	memset(start, '.', 8 * page);
	put(start + 2 * page - 5, "border");
	munmap(start + 4 * page, page);
	say("holes %p %p", (void *)start, (void *)(start + 8 * page));
}

static void plant_many(void)
{
	char *start = map(MANY_SIZE);
	size_t count = 0;

	memset(start, 'n', MANY_SIZE);
	for (size_t at = 1; at + 11 <= MANY_SIZE; at += 11 + count % 97, count++)
		put(start + at, "many");
	say("many %zu %p %p", count, (void *)start, (void *)(start + MANY_SIZE));
}

/* Shared memory of which two pages are there. */
static void plant_shared(void)
{
	shared = memfd_create("needles", MFD_CLOEXEC);
	check_that(shared >= 0 && ftruncate(shared, SHARED_SIZE) == 0, "memfd");
	char *start = mmap(NULL, SHARED_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, shared, 0);

	check_that(start != MAP_FAILED, "mmap");
	/* The first page is looked at to see whether it is that of an ELF file. */
	start[0] = 'x';
	put(start + 3 * page, "shared");
	say("shared %p", (void *)(start + 3 * page));
}

static void *churn(void *data)
{
	for (;;) {
		char *start = map(1 << 20);

		memset(start, 'c', 1 << 20);
		munmap(start, 1 << 20);
		victim_progress++;
	}
	return NULL;
}

static bool command(const char *line)
{
	struct stat status;
	pthread_t thread;

	if (!strcmp(line, "blocks")) {
		check_that(fstat(shared, &status) == 0, "fstat");
		say("blocks %ld", (long)status.st_blocks);
		return true;
	}
	if (strcmp(line, "churn"))
		return false;
	pthread_create(&thread, NULL, churn, NULL);
	say("churning");
	return true;
}

int main(void)
{
	volatile int planted = 0;
	pthread_t thread;
	void *used, *freed;

	victim_init();
	page = (size_t)sysconf(_SC_PAGESIZE);
	used = plant("used", 200, 50);
	freed = plant("freed", 200, 60);
	plant("mapped", 1 << 20, (1 << 20) - 100);
	plant("last", 300, 0);
	free(freed);
	plant_wide();
	plant_pointers(used);
	plant_holes();
	plant_many();
	plant_shared();
	pthread_create(&thread, NULL, plant_in_arena, (void *)&planted);
	while (!planted)
		usleep(1000);
	victim_ready();
	victim_serve(command);
	return 0;
}
