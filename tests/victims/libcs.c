/*
 * `libcs`: a second libc, in a namespace of its own (dlmopen()), beside the program's: both have a
 * malloc with blocks kept, freed and leaked. After `ready` nothing allocates.
 *
 * Truth: `sized USABLE COUNT` of what is kept, `leaked COUNT`, `system BYTES` and `in_use BYTES` of
 * both together, by their own mallinfo2().
 *
 * variants: 32
 * libs: -ldl
 */
#include "mallinfo2.h"
#include "victim.h"

#include <dlfcn.h>

#define KEPT 1200

static void *volatile kept[2 * KEPT], *volatile last[2];
static size_t system_bytes, in_use;

struct libc {
	void *(*malloc)(size_t size);
	void (*free)(void *block);
	size_t (*usable)(void *block);
	struct mallinfo2 (*info)(void);
};

/* Every other one is freed: whole pages, more than thread caches take. */
__attribute__((noinline)) static void fill(const struct libc *libc, void *volatile *to, size_t size,
					   unsigned leaks)
{
	struct mallinfo2 info;

	for (unsigned i = 0; i < KEPT; i++) {
		to[i] = libc->malloc(i % 2 ? 20 * size : size);
		check_that(to[i] != NULL, "malloc");
		memset(to[i], 'k', i % 2 ? 20 * size : size);
	}
	for (unsigned i = 0; i < leaks; i++) {
		char *volatile block = libc->malloc(777);

		memset(block, 'L', 777);
		block = NULL;
	}
	/* What registers may still hold is this one. */
	last[to != kept] = libc->malloc(24);
	for (unsigned i = 1; i < KEPT; i += 2) {
		libc->free(to[i]);
		to[i] = NULL;
	}
	say("sized %zu %u", libc->usable(to[0]), KEPT / 2);
	info = libc->info();
	system_bytes += info.arena;
	in_use += info.uordblks;
}

__attribute__((noinline)) static void clean_stack(void)
{
	char bytes[1 << 14];

	memset(bytes, 0, sizeof(bytes));
	__asm__ volatile("" : : "r"(bytes) : "memory");
}

int main(void)
{
	struct libc own = { malloc, free, malloc_usable_size, mallinfo2 }, other;
	void *handle;

	victim_init();
	handle = dlmopen(LM_ID_NEWLM, "libc.so.6", RTLD_NOW);
	check_that(handle != NULL, "dlmopen");
	other.malloc = (void *(*)(size_t))dlsym(handle, "malloc");
	other.free = (void (*)(void *))dlsym(handle, "free");
	other.usable = (size_t(*)(void *))dlsym(handle, "malloc_usable_size");
	other.info = (struct mallinfo2(*)(void))dlsym(handle, "mallinfo2");
	fill(&own, kept, 2000, 20);
	fill(&other, kept + KEPT, 3000, 30);
	clean_stack();
	say("leaked 50");
	say("system %zu", system_bytes);
	say("in_use %zu", in_use);
	victim_ready();
	victim_serve(NULL);
	return 0;
}
