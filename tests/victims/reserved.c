/*
 * Has reserved far more than it has: a mapping of 20 TiB without swap space, a shared file in
 * memory of 256 GiB, inaccessible 300 GiB, and 64 mappings of 8 GiB, with a page here and there.
 * `leaked N` blocks; pointers in the reserves keep all others.
 */
#include <stdlib.h>
#include <sys/mman.h>

#include "victim.h"

#define LEAKED	5u
#define KEPT	10u
#define MANY	64u
#define PRIVATE (20ull << 40)
#define SHARED	(256ull << 30)
#define NEEDLE	"a needle in the reserve"

static char *reserve(uint64_t size, int perms, int flags, int fd)
{
	char *start = mmap(NULL, size, perms, flags | MAP_NORESERVE, fd, 0);

	check_that(start != MAP_FAILED, "mmap");
	return start;
}

static void keep(void **place, unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		place[i] = malloc(1000);
		memset(place[i], 'k', 1000);
	}
}

int main(void)
{
	int fd = memfd_create("reserved", MFD_CLOEXEC);
	char *shared, *private;
	void *volatile lost;

	victim_init();
	check_that(ftruncate(fd, SHARED) == 0, "ftruncate");
	private = reserve(PRIVATE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	shared = reserve(SHARED, PROT_READ | PROT_WRITE, MAP_SHARED, fd);
	reserve(300ull << 30, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	keep((void **)(private + PRIVATE / 2), KEPT);
	strcpy(private + PRIVATE - 4096, NEEDLE);
	for (uint64_t at = 0; at < SHARED; at += SHARED / 4)
		strcpy(shared + at, NEEDLE);
	for (unsigned i = 0; i < MANY; i++)
		keep((void **)(reserve(8ull << 30, PROT_READ | PROT_WRITE,
				       MAP_PRIVATE | MAP_ANONYMOUS, -1) +
			       (i + 1) * (64ull << 20)),
		     1);
	for (unsigned i = 0; i < LEAKED; i++) {
		lost = malloc(2000);
		memset(lost, 'L', 2000);
	}
	lost = NULL;
	say("leaked %u", LEAKED);
	say("needles %u", 5);
	victim_ready();
	victim_serve(NULL);
}
