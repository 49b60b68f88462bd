/*
 * Allocates known numbers of blocks in functions of known names, in four threads, at `go`; some of
 * them are freed by the thread that made them, some by another, some stay. `truth FUNCTION LIVE
 * BYTES ALL ALL_BYTES` for each function, then `done TIMES`. What keep_ functions leave is pointed
 * to, what lose_ functions leave is not. `free` frees what keep_malloc has kept: `freed`.
 *
 * `allocshape [ROUNDS]`: some 50 calls in each round of each thread.
 *
 * Built without frame pointers: stacks have to come from call frame information.
 * cflags: -fomit-frame-pointer -Wno-unused-result
 * variants: 32 static musl
 */
#include "victim.h"

#include <malloc.h>
#include <pthread.h>
#include <semaphore.h>

/* Memprobe runs its calls from the padding behind the program's text: let a static one have some,
 * wherever its text ends. */
__asm__(".pushsection .memprobe_room, \"ax\", @progbits\n.balign 4096\nnop\n.popsection");

#define THREADS	   4
#define ROUNDS_MAX 2000

enum function {
	KEEP_MALLOC,
	KEEP_CALLOC,
	KEEP_REALLOC,
	KEEP_MEMALIGN,
	KEEP_BIG,
	LOSE_MALLOC,
	LOSE_LIST,
	TOSS_MALLOC,
	TOSS_REALLOC,
	TOSS_ELSEWHERE,
	FUNCTIONS
};

static const char *const names[FUNCTIONS] = {
	"keep_malloc", "keep_calloc", "keep_realloc", "keep_memalign", "keep_big",
	"lose_malloc", "lose_list",   "toss_malloc",  "toss_realloc",  "toss_elsewhere",
};

static struct {
	atomic_ulong live, bytes, all, all_bytes;
} truth[FUNCTIONS];

static void *kept[THREADS][FUNCTIONS][ROUNDS_MAX];
static unsigned rounds;
static sem_t start[THREADS], finished;
static pthread_barrier_t barrier;

static void count(enum function function, size_t size, bool stays)
{
	truth[function].all++;
	truth[function].all_bytes += size;
	if (stays) {
		truth[function].live++;
		truth[function].bytes += size;
	}
}

/* Written to, as programs do: what stood there before may be addresses of blocks. */
static void keep(enum function function, unsigned thread, unsigned i, void *block, size_t size)
{
	memset(block, 0x11, size);
	kept[thread][function][i] = block;
	count(function, size, true);
}

#define CASE(name) __attribute__((noinline, noclone)) static void name(unsigned thread, unsigned i)

CASE(keep_malloc)
{
	size_t size = 20 + i % 300;

	keep(KEEP_MALLOC, thread, i, malloc(size), size);
}

CASE(keep_calloc)
{
	size_t size = 7 + i % 50;

	keep(KEEP_CALLOC, thread, i, calloc(3, size), 3 * size);
}

/* The block that it grows from is gone, but was allocated. */
CASE(keep_realloc)
{
	size_t size = 10 + i % 100;
	void *block = malloc(size);

	count(KEEP_REALLOC, size, false);
	keep(KEEP_REALLOC, thread, i, realloc(block, size * 9), size * 9);
}

CASE(keep_memalign)
{
	void *block = NULL;

	check_that(!posix_memalign(&block, 64, 100 + i % 20), "posix_memalign");
	keep(KEEP_MEMALIGN, thread, i, block, 100 + i % 20);
}

/* Some of them mappings of their own. */
CASE(keep_big)
{
	size_t size = 8192 + (i % 16) * 16384;

	if (i % 20 == 0)
		keep(KEEP_BIG, thread, i, malloc(size), size);
}

CASE(lose_malloc)
{
	void *volatile block = malloc(48 + i % 80);

	memset(block, 0x22, 48);
	block = NULL;
	count(LOSE_MALLOC, 48 + i % 80, true);
}

/* Each points to the one before; the last is dropped. */
CASE(lose_list)
{
	static __thread void **list;
	void **entry = malloc(40);

	memset(entry, 0x33, 40);
	*entry = list;
	list = i + 1 < rounds ? entry : NULL;
	count(LOSE_LIST, 40, true);
}

CASE(toss_malloc)
{
	void *volatile block = malloc(1 + i % 1000);

	free(block);
	block = NULL;
	count(TOSS_MALLOC, 1 + i % 1000, false);
}

CASE(toss_realloc)
{
	void *volatile block = NULL;

	for (size_t size = 16; size <= 64; size *= 2) {
		block = realloc(block, size);
		count(TOSS_REALLOC, size, false);
	}
	free(block);
	block = NULL;
}

CASE(toss_elsewhere)
{
	kept[thread][TOSS_ELSEWHERE][i] = malloc(77);
	count(TOSS_ELSEWHERE, 77, false);
}

static void free_elsewhere(unsigned thread)
{
	for (unsigned i = 0; i < rounds; i++) {
		free(kept[thread][TOSS_ELSEWHERE][i]);
		kept[thread][TOSS_ELSEWHERE][i] = NULL;
	}
}

static void work(unsigned thread)
{
	static void (*const functions[FUNCTIONS])(unsigned thread, unsigned i) = {
		keep_malloc, keep_calloc, keep_realloc, keep_memalign, keep_big,
		lose_malloc, lose_list,	  toss_malloc,	toss_realloc,  toss_elsewhere,
	};

	for (unsigned i = 0; i < rounds; i++)
		for (unsigned k = 0; k < FUNCTIONS; k++)
			functions[(i + k) % FUNCTIONS](thread, i);
	pthread_barrier_wait(&barrier);
	free_elsewhere((thread + 1) % THREADS);
	pthread_barrier_wait(&barrier);
}

/* No stale words: neither of blocks, nor of functions that have returned where nothing tells the
 * extent of frames (musl). */
__attribute__((noinline, noclone)) static void clean_stack(void)
{
	volatile char area[8192];

	for (size_t i = 0; i < sizeof(area); i++)
		area[i] = 0;
}

static void *run(void *argument)
{
	unsigned thread = (unsigned)(uintptr_t)argument;

	for (;;) {
		while (sem_wait(&start[thread]) < 0)
			check_that(errno == EINTR, "sem_wait");
		work(thread);
		clean_stack();
		sem_post(&finished);
	}
	return NULL;
}

static void go(void)
{
	static unsigned times;

	for (unsigned i = 0; i < THREADS; i++)
		sem_post(&start[i]);
	for (unsigned i = 0; i < THREADS; i++)
		while (sem_wait(&finished) < 0)
			check_that(errno == EINTR, "sem_wait");
	for (unsigned i = 0; i < FUNCTIONS; i++)
		say("truth %s %lu %lu %lu %lu", names[i], (unsigned long)truth[i].live,
		    (unsigned long)truth[i].bytes, (unsigned long)truth[i].all,
		    (unsigned long)truth[i].all_bytes);
	clean_stack();
	say("done %u", ++times);
}

/* From the main thread: what others have allocated. */
static void free_kept(void)
{
	for (unsigned thread = 0; thread < THREADS; thread++)
		for (unsigned i = 0; i < rounds; i++) {
			free(kept[thread][KEEP_MALLOC][i]);
			kept[thread][KEEP_MALLOC][i] = NULL;
		}
	say("freed");
}

static bool command(const char *line)
{
	if (!strcmp(line, "go"))
		go();
	else if (!strcmp(line, "free"))
		free_kept();
	else
		return false;
	return true;
}

int main(int argc, char **argv)
{
	pthread_t thread;

	victim_init();
	rounds = (unsigned)victim_number(argc, argv, 1, ROUNDS_MAX);
	if (rounds > ROUNDS_MAX)
		return 2;
	pthread_barrier_init(&barrier, NULL, THREADS);
	sem_init(&finished, 0, 0);
	for (uintptr_t i = 0; i < THREADS; i++) {
		sem_init(&start[i], 0, 0);
		check_that(!pthread_create(&thread, NULL, run, (void *)i), "pthread_create");
	}
	victim_ready();
	victim_serve(command);
	return 0;
}
