/*
 * `layout [STACKS SIZE]`: one mapping of each type, and a region with holes; with arguments, also
 * STACKS threads with stacks of SIZE KiB.
 *
 * Truth: `region TYPE START END` for the mappings; `worker TID ARENA` for a thread with an arena of
 * its own; `holes START END`: 16 pages, of which 0 and 8 begin with their numbers as text, 1 to 7
 * were never touched, 12 is not mapped, 14 holds data behind PROT_NONE, and the rest holds `x`.
 *
 * Commands: `grow` writes to 1 MiB of the region `grow START END` and maps 2 MiB more.
 *
 * variants: 32 static
 */
#include "victim.h"

#include <pthread.h>
#include <sys/mman.h>

static size_t page;
static char *growing;

static char *map(size_t pages, int protection, int flags, int fd)
{
	char *start = mmap(NULL, pages * page, protection, flags, fd, 0);

	check_that(start != MAP_FAILED, "mmap");
	return start;
}

static void tell(const char *type, const char *start, size_t pages)
{
	say("region %s 0x%lx 0x%lx", type, (unsigned long)start,
	    (unsigned long)start + pages * page);
}

static void make_holes(void)
{
	char *start = map(16, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1);

	madvise(start, 16 * page, MADV_NOHUGEPAGE);
	for (size_t i = 0; i < 16; i++)
		if (i == 0 || i >= 8)
			memset(start + i * page, 'x', page);
	memcpy(start, "page 0", 6);
	memcpy(start + 8 * page, "page 8", 6);
	munmap(start + 12 * page, page);
	mprotect(start + 14 * page, page, PROT_NONE);
	say("holes 0x%lx 0x%lx", (unsigned long)start, (unsigned long)start + 16 * page);
}

static void *worker(void *data)
{
	char *block = malloc(100000);

	memset(block, 1, 100000);
	/* Heaps of arenas are aligned to their greatest size. */
	say("worker %d 0x%lx", victim_tid(),
	    (unsigned long)block & ~(sizeof(long) == 8 ? (64ul << 20) - 1 : (1ul << 20) - 1));
	*(atomic_int *)data = 1;
	for (;;)
		pause();
	return NULL;
}

static void *idler(void *data)
{
	(*(atomic_int *)data)++;
	for (;;)
		pause();
	return NULL;
}

static void start_thread(void *(*run)(void *), void *data, size_t stack_size)
{
	pthread_attr_t attributes;
	pthread_t thread;

	pthread_attr_init(&attributes);
	if (stack_size)
		pthread_attr_setstacksize(&attributes, stack_size);
	check_that(pthread_create(&thread, &attributes, run, data) == 0, "pthread_create");
	pthread_attr_destroy(&attributes);
}

static bool command(const char *line)
{
	if (strcmp(line, "grow"))
		return false;
	memset(growing, 1, 1 << 20);
	tell("new", map((2 << 20) / page, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1),
	     (2 << 20) / page);
	say("grown");
	return true;
}

int main(int argc, char **argv)
{
	static atomic_int begun, idle;
	unsigned long stacks = victim_number(argc, argv, 1, 0);
	unsigned long stack_size = victim_number(argc, argv, 2, 256) << 10;
	int fd = memfd_create("with space\n", 0);
	char *block, *shared;

	victim_init();
	page = sysconf(_SC_PAGESIZE);
	check_that(fd >= 0 && ftruncate(fd, page) == 0, "memfd_create");
	tell("shm", map(1, PROT_READ | PROT_WRITE, MAP_SHARED, fd), 1);
	shared = map(5, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1);
	shared[0] = 1;
	tell("shm", shared, 5);
	/* Each apart from the next by a shared page, that they do not merge. */
	growing = map((4 << 20) / page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	madvise(growing, 4 << 20, MADV_NOHUGEPAGE);
	tell("anon", growing, (4 << 20) / page);
	say("grow 0x%lx 0x%lx", (unsigned long)growing, (unsigned long)growing + (4 << 20));
	map(1, PROT_READ, MAP_SHARED | MAP_ANONYMOUS, -1);
	tell("guard", map(7, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1), 7);
	map(1, PROT_READ, MAP_SHARED | MAP_ANONYMOUS, -1);
	block = malloc(3 << 20);
	memset(block, 1, 100);
	tell("mmap-chunk", (char *)((unsigned long)block & ~(page - 1)), (3 << 20) / page + 1);
	map(1, PROT_READ, MAP_SHARED | MAP_ANONYMOUS, -1);
	make_holes();
	start_thread(worker, &begun, 0);
	while (!begun)
		usleep(1000);
	for (unsigned long i = 0; i < stacks; i++)
		start_thread(idler, &idle, stack_size);
	while ((unsigned long)idle < stacks)
		usleep(1000);
	victim_ready();
	victim_serve(command);
	return 0;
}
