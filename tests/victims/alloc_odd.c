/*
 * Programs that allocate in odd ways: `alloc_odd KIND`. Blocks of BLOCK_MIN to BLOCK_MAX bytes are
 * theirs alone; `truth COUNT BYTES` answers `go` with those that it has left behind.
 *
 * threads N	`go` starts N threads, 50 at a time, that live for a few allocations each; every
 *		tenth leaves one block, which main frees half of
 * coroutines	`go` runs 64 of them in two threads: they switch in the midst of their work; behind
 *		half of their stacks there are guards in the same mapping, as glibc 2.42 makes them,
 *		and then the stack of their thread
 * blocked	its own functions odd_alloc() and odd_free(); `block` has a thread wait within the
 *		first one until `unblock`
 * remapped	its code and libc's have been moved to anonymous memory, as programs do to have code
 *in huge pages
 */
#include "victim.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <ucontext.h>

#define BLOCK_MIN 5001
#define BLOCK_MAX 5900

#define AT_A_TIME    50
#define COROUTINES   32
#define STACK_SIZE   (64u << 10)
#define GUARD_SIZE   4096u
#define THREAD_STACK (256u << 10)
#define ROUNDS	     400

static atomic_ulong truth_count, truth_bytes;
static unsigned long thread_count;
static int pipe_ends[2];

static size_t size_of(unsigned long i)
{
	return BLOCK_MIN + i * 37 % (BLOCK_MAX - BLOCK_MIN + 1);
}

static void *take(unsigned long i)
{
	unsigned char *block = malloc(size_of(i));

	check_that(block != NULL, "malloc");
	block[0] = (unsigned char)i;
	truth_count++;
	truth_bytes += size_of(i);
	return block;
}

static void give(void *block, unsigned long i)
{
	if (*(unsigned char *)block != (unsigned char)i)
		say("WRONG block %lu", i);
	truth_count--;
	truth_bytes -= size_of(i);
	free(block);
}

/* ---- threads ---- */

static void *live_shortly(void *data)
{
	unsigned long i = (unsigned long)data;
	void *blocks[4];

	for (unsigned n = 0; n < 4; n++)
		blocks[n] = take(i + n);
	for (unsigned n = 1; n < 4; n++)
		give(blocks[n], i + n);
	if (i % 10 == 0)
		return blocks[0];
	give(blocks[0], i);
	return NULL;
}

static void run_threads(void)
{
	pthread_t threads[AT_A_TIME];

	for (unsigned long i = 0; i < thread_count; i += AT_A_TIME) {
		for (unsigned n = 0; n < AT_A_TIME; n++)
			check_that(
				!pthread_create(&threads[n], NULL, live_shortly, (void *)(i + n)),
				"pthread_create");
		for (unsigned n = 0; n < AT_A_TIME; n++) {
			void *left;

			pthread_join(threads[n], &left);
			if (left && (i + n) % 20 == 0)
				give(left, i + n);
		}
		victim_progress++;
	}
}

/* ---- coroutines ---- */

struct scheduler {
	char *stacks; /* in one mapping: those of every second one, and its thread's */
	ucontext_t main, routines[COROUTINES];
	void *blocks[COROUTINES];
	unsigned long number;
	bool done[COROUTINES];
};

static void routine(unsigned which, unsigned low, unsigned high)
{
	struct scheduler *scheduler = (void *)((uintptr_t)high << 32 | low);

	for (unsigned long round = 0; round < ROUNDS; round++) {
		unsigned long i = scheduler->number + round * 7 + which;
		void *block = take(i);

		if (round % 3 == 0)
			swapcontext(&scheduler->routines[which], &scheduler->main);
		if (round + 1 == ROUNDS)
			break;
		give(block, i);
	}
	scheduler->done[which] = true;
	swapcontext(&scheduler->routines[which], &scheduler->main);
}

/* Half of the stacks are blocks of the heap. */
static void *make_stack(struct scheduler *scheduler, unsigned i)
{
	char *stack = scheduler->stacks + i / 2 * (STACK_SIZE + GUARD_SIZE);

	if (i % 2)
		return malloc(STACK_SIZE);
	make_guard(stack + STACK_SIZE, GUARD_SIZE);
	return stack;
}

static void begin_routine(struct scheduler *scheduler, unsigned i)
{
	uintptr_t address = (uintptr_t)scheduler;
	ucontext_t *context = &scheduler->routines[i];

	getcontext(context);
	context->uc_stack.ss_sp = make_stack(scheduler, i);
	context->uc_stack.ss_size = STACK_SIZE;
	makecontext(context, (void (*)(void))routine, 3, i, (unsigned)address,
		    (unsigned)(address >> 32));
}

static void *schedule(void *data)
{
	struct scheduler *scheduler = data;
	unsigned left = COROUTINES;

	for (unsigned i = 0; i < COROUTINES; i++)
		begin_routine(scheduler, i);
	while (left) {
		left = 0;
		for (unsigned i = 0; i < COROUTINES; i++) {
			if (scheduler->done[i])
				continue;
			left++;
			swapcontext(&scheduler->main, &scheduler->routines[i]);
		}
		victim_progress++;
	}
	return NULL;
}

static pthread_t start_scheduler(unsigned long number)
{
	const size_t size = COROUTINES / 2 * (STACK_SIZE + GUARD_SIZE);
	struct scheduler *scheduler = calloc(1, sizeof(*scheduler));
	pthread_attr_t attributes;
	pthread_t thread;

	scheduler->number = number;
	scheduler->stacks = mmap(NULL, size + THREAD_STACK, PROT_READ | PROT_WRITE,
				 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	check_that(scheduler->stacks != MAP_FAILED, "mmap");
	pthread_attr_init(&attributes);
	pthread_attr_setstack(&attributes, scheduler->stacks + size, THREAD_STACK);
	check_that(!pthread_create(&thread, &attributes, schedule, scheduler), "pthread_create");
	pthread_attr_destroy(&attributes);
	return thread;
}

static void run_coroutines(void)
{
	pthread_t threads[2];

	for (unsigned long i = 0; i < 2; i++)
		threads[i] = start_scheduler(i * 100000);
	for (unsigned i = 0; i < 2; i++)
		pthread_join(threads[i], NULL);
}

/* ---- blocked ---- */

__attribute__((noinline)) void *odd_alloc(size_t size, int wait);
__attribute__((noinline)) void odd_free(void *block);

void *odd_alloc(size_t size, int wait)
{
	char byte;

	if (wait)
		check_that(read(pipe_ends[0], &byte, 1) == 1, "read");
	return malloc(size);
}

void odd_free(void *block)
{
	free(block);
}

static void *block_in_it(void *data)
{
	say("blocks");
	odd_free(odd_alloc(BLOCK_MIN, 1));
	say("unblocked");
	return NULL;
}

static void *use(void *data)
{
	for (;;) {
		odd_free(odd_alloc(100, 0));
		victim_progress++;
		usleep(500);
	}
	return NULL;
}

/* ---- remapped ---- */

/* The mapping that an address of a function lies in. */
static bool find_code(uintptr_t address, uintptr_t *start, uintptr_t *end)
{
	FILE *maps = fopen("/proc/self/maps", "r");
	char line[512];
	bool found = false;

	while (maps && !found && fgets(line, sizeof(line), maps))
		found = sscanf(line, "%lx-%lx", start, end) == 2 && address >= *start &&
			address < *end;
	if (maps)
		fclose(maps);
	return found;
}

/* A copy of the code takes its place in one step. */
static void remap(uintptr_t function)
{
	uintptr_t start = 0, end = 0;
	void *copy;
	long result;

	check_that(find_code(function, &start, &end), "maps");
	copy = mmap(NULL, end - start, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	check_that(copy != MAP_FAILED, "mmap");
	memcpy(copy, (void *)start, end - start);
	check_that(!mprotect(copy, end - start, PROT_READ | PROT_EXEC), "mprotect");
	result = syscall(SYS_mremap, copy, end - start, end - start, MREMAP_MAYMOVE | MREMAP_FIXED,
			 start);
	check_that((uintptr_t)result == start, "mremap");
}

/* ---- */

static bool command(const char *line)
{
	pthread_t thread;

	if (!strcmp(line, "block"))
		check_that(!pthread_create(&thread, NULL, block_in_it, NULL), "pthread_create");
	else if (!strcmp(line, "unblock"))
		check_that(write(pipe_ends[1], "", 1) == 1, "write");
	else if (!strcmp(line, "go")) {
		if (thread_count)
			run_threads();
		else
			run_coroutines();
		say("truth %lu %lu", (unsigned long)truth_count, (unsigned long)truth_bytes);
	} else {
		return false;
	}
	return true;
}

int main(int argc, char **argv)
{
	const char *kind = argc > 1 ? argv[1] : "";
	pthread_t thread;

	victim_init();
	check_that(!pipe(pipe_ends), "pipe");
	if (!strcmp(kind, "threads"))
		thread_count = victim_number(argc, argv, 2, 1000);
	if (!strcmp(kind, "remapped")) {
		remap((uintptr_t)use);
		remap((uintptr_t)malloc);
	}
	if (!strcmp(kind, "blocked") || !strcmp(kind, "remapped"))
		check_that(!pthread_create(&thread, NULL, use, NULL), "pthread_create");
	victim_ready();
	victim_serve(command);
	return 0;
}
