/*
 * planted.h - leaks of a known size, to be planted in a server by a module that it loads.
 *
 *	plant_leaked(COUNT, SIZE)	blocks that nothing points to any more
 *	plant_kept(COUNT, SIZE)		blocks that a global list holds
 *	plant_freed(COUNT, SIZE)	blocks that are free again on return
 *
 * Each returns COUNT. No pointer to a leaked block is left behind, neither in the stack that the
 * call used nor in a register. The modules differ in how their server calls these; each is a shared
 * library, built like a victim.
 */
#ifndef PLANTED_H
#define PLANTED_H

#include <stdlib.h>
#include <string.h>

#define PLANT __attribute__((noinline, visibility("default")))

struct planted {
	struct planted *next;
};

struct planted *planted_list;

/* The stack below the caller, and by that what the call to memset() has in registers. */
__attribute__((noinline)) static void plant_sweep(void)
{
	char stack[16384];

	memset(stack, 0, sizeof(stack));
	__asm__ volatile("" : : "r"(stack) : "memory");
}

PLANT long plant_leaked(long count, long size)
{
	for (long i = 0; i < count; i++) {
		void *volatile block = malloc(size);

		memset(block, 0x5a, size);
		block = NULL;
	}
	plant_sweep();
	return count;
}

PLANT long plant_kept(long count, long size)
{
	for (long i = 0; i < count; i++) {
		struct planted *block = malloc(size);

		memset(block, 0x5a, size);
		block->next = planted_list;
		planted_list = block;
	}
	return count;
}

PLANT long plant_freed(long count, long size)
{
	for (long i = 0; i < count; i++) {
		void *volatile block = malloc(size);

		free(block);
	}
	return count;
}

typedef long (*plant_fn)(long count, long size);

static inline plant_fn plant_by_name(const char *name, size_t length)
{
	static const struct {
		const char *name;
		plant_fn plant;
	} all[] = {
		{ "leaked", plant_leaked },
		{ "kept", plant_kept },
		{ "freed", plant_freed },
	};

	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
		if (strlen(all[i].name) == length && !memcmp(all[i].name, name, length))
			return all[i].plant;
	return NULL;
}

#endif
