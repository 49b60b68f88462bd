#include "memprobe/big_array.h"

#include <stdint.h>
#include <sys/mman.h>

#include "memprobe/num.h"

#define HUGE_SIZE  (2ull << 20)
#define WORTH_HUGE (4 * HUGE_SIZE)
#define SMALL_SIZE 4096u

static size_t mapped_size(size_t size)
{
	return round_up(size ? size : 1, SMALL_SIZE);
}

/* A mapping that begins where a huge page may. */
static void *map_aligned(size_t size)
{
	uint8_t *map = mmap(NULL, size + HUGE_SIZE, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	size_t ahead;

	if (map == MAP_FAILED)
		return NULL;
	ahead = round_up((uintptr_t)map, HUGE_SIZE) - (uintptr_t)map;
	if (ahead)
		munmap(map, ahead);
	if (ahead < HUGE_SIZE)
		munmap(map + ahead + size, HUGE_SIZE - ahead);
	/* Without them it is slower, no more. */
	(void)madvise(map + ahead, size, MADV_HUGEPAGE);
	return map + ahead;
}

void *big_array_create(size_t size)
{
	void *map;

	if (size > SIZE_MAX - 2 * HUGE_SIZE)
		return NULL;
	size = mapped_size(size);
	if (size >= WORTH_HUGE)
		return map_aligned(size);
	map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
		   -1, 0);
	return map == MAP_FAILED ? NULL : map;
}

void big_array_destroy(void *array, size_t size)
{
	if (array)
		munmap(array, mapped_size(size));
}
