/*
 * A second glibc in a link namespace of its own, whose malloc has a heap of its own: `go` has both
 * allocate; `truth FUNCTION LIVE BYTES ALL ALL_BYTES`, `done TIMES`.
 */
#include "victim.h"

#include <dlfcn.h>
#include <stdlib.h>

enum { ROUNDS = 100 };

static void *(*other_malloc)(size_t size);
static void *(*other_realloc)(void *block, size_t size);
static void (*other_free)(void *block);
static void *volatile kept[4 * ROUNDS];
static unsigned count;

__attribute__((noinline, noclone)) static void keep_own(void)
{
	kept[count++] = malloc(200);
}

__attribute__((noinline, noclone)) static void keep_other(void)
{
	kept[count++] = other_malloc(300);
}

__attribute__((noinline, noclone)) static void toss_own(void)
{
	void *volatile block = malloc(50);

	free(block);
}

__attribute__((noinline, noclone)) static void toss_other(void)
{
	void *volatile block = other_malloc(70);

	other_free(block);
}

__attribute__((noinline, noclone)) static void grow_other(void)
{
	void *volatile block = other_realloc(NULL, 1000);

	kept[count++] = other_realloc(block, 2000);
}

static bool command(const char *line)
{
	if (strcmp(line, "go"))
		return false;
	for (unsigned i = 0; i < ROUNDS; i++) {
		keep_own();
		keep_other();
		toss_own();
		toss_other();
		grow_other();
	}
	say("truth keep_own %d %d %d %d", ROUNDS, ROUNDS * 200, ROUNDS, ROUNDS * 200);
	say("truth keep_other %d %d %d %d", ROUNDS, ROUNDS * 300, ROUNDS, ROUNDS * 300);
	say("truth toss_own 0 0 %d %d", ROUNDS, ROUNDS * 50);
	say("truth toss_other 0 0 %d %d", ROUNDS, ROUNDS * 70);
	say("truth grow_other %d %d %d %d", ROUNDS, ROUNDS * 2000, 2 * ROUNDS, ROUNDS * 3000);
	say("done 1");
	return true;
}

int main(void)
{
	void *other = dlmopen(LM_ID_NEWLM, "libc.so.6", RTLD_NOW);

	check_that(other != NULL, "dlmopen");
	other_malloc = (void *(*)(size_t))dlsym(other, "malloc");
	other_realloc = (void *(*)(void *, size_t))dlsym(other, "realloc");
	other_free = (void (*)(void *))dlsym(other, "free");
	check_that(other_malloc && other_realloc && other_free && other_malloc != malloc, "dlsym");
	victim_init();
	victim_ready();
	victim_serve(command);
	return 0;
}
