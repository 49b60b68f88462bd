/*
 * `mchecked`: blocks under mcheck(), whose headers are linked to each other: kept ones, leaked
 * ones, and a chain of leaked ones. LD_PRELOAD=libc_malloc_debug.so.0 from glibc 2.34 on.
 *
 * Truth: `mcheck 0` if mcheck() could be used, `leaked COUNT`, `chain COUNT` of those.
 */
#include "victim.h"

#define KEPT   300
#define LEAKED 40
#define CHAIN  5

int mcheck(void (*function)(int status));
/* It cannot be linked to by its name any more. */
__asm__(".symver mcheck,mcheck@GLIBC_2.2.5");

static int result;
static void *volatile kept[KEPT], *volatile last, *volatile chain, *volatile large;

static void use_mcheck(void)
{
	result = mcheck(NULL);
}

/* Before anything allocates. */
__attribute__((section(".preinit_array"), used)) static void (*const first)(void) = use_mcheck;

__attribute__((noinline)) static void leak(void)
{
	for (unsigned i = 0; i < LEAKED; i++) {
		char *volatile leaked = malloc(5000 + i);

		memset(leaked, 'L', 5000 + i);
		leaked = NULL;
	}
	for (unsigned i = 0; i < CHAIN; i++) {
		void *volatile *link = malloc(900);

		memset((void *)link, 'C', 900);
		*link = chain;
		chain = (void *)link;
	}
	chain = NULL;
	/* What registers may still hold is this one. */
	last = malloc(24);
}

int main(void)
{
	char clean[1 << 14];

	victim_init();
	say("mcheck %d", result);
	for (unsigned i = 0; i < KEPT; i++) {
		void *hole = malloc(2 * i + 100);

		kept[i] = malloc(1000 + i);
		memset(kept[i], 'k', 1000);
		free(hole);
	}
	/* Mapped by itself. */
	large = malloc(1 << 20);
	leak();
	memset(clean, 0, sizeof(clean));
	__asm__ volatile("" : : "r"(clean) : "memory");
	say("leaked %d", LEAKED + CHAIN);
	say("chain %d", CHAIN);
	victim_ready();
	victim_serve(NULL);
	return 0;
}
