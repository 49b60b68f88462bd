/*
 * `threadstacks KIND`: threads on stacks of every kind, and what is left of threads that ended.
 *
 * KIND: where the stacks of running threads are: guard (glibc's own), bare (glibc's, without
 * guards, one behind the other), pool (mmapped by the program), fenced and guarded (the same,
 * with guards of the program's own, by mprotect() or MADV_GUARD_INSTALL), heap (malloc'ed), static;
 * or coroutines that are in use in one thread and suspended in another, their stacks mmapped beside
 * the others', malloc'ed or static: comap, coheap, costatic; or alternate stacks of signals in use:
 * alternate; or threads that ended: ended.
 *
 * Truth: `lost SIZE COUNT` and `kept SIZE COUNT` of blocks by usable size, and `thread TID START
 * END` of each running thread (as pthread_getattr_np() says), `joinable ADDRESS` a result.
 *
 * variants: 32 static
 */
#include "victim.h"

#include <dirent.h>
#include <malloc.h>
#include <pthread.h>
#include <sys/mman.h>
#include <ucontext.h>

#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102
#endif

#define THREADS	   4
#define EACH	   20
#define STACK_SIZE (256u << 10)

struct row {
	size_t size;
	unsigned count;
	bool lost;
};

static struct row rows[64];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_barrier_t barrier;
static const char *kind;
static pthread_key_t keys[EACH];
static __thread void *volatile in_tls[EACH];
static char static_stacks[THREADS + 2][STACK_SIZE] __attribute__((aligned(4096)));

/* A block of that size, as one that is lost or kept. */
static void *make(size_t size, bool lost)
{
	void *block = malloc(size);
	struct row *row = rows;

	check_that(block != NULL, "malloc");
	memset(block, 'a', size);
	pthread_mutex_lock(&lock);
	while (row->size && row->size != malloc_usable_size(block))
		row++;
	row->size = malloc_usable_size(block);
	row->lost = lost;
	row->count++;
	pthread_mutex_unlock(&lock);
	return block;
}

/* What calls have left below the stack pointer. */
__attribute__((noinline)) static void clean_stack(void)
{
	char bytes[1 << 14];

	memset(bytes, 0, sizeof(bytes));
	__asm__ volatile("" : : "r"(bytes) : "memory");
}

static void say_thread(void)
{
	pthread_attr_t attributes;
	void *start;
	size_t size;

	check_that(!pthread_getattr_np(pthread_self(), &attributes), "pthread_getattr_np");
	pthread_attr_getstack(&attributes, &start, &size);
	pthread_attr_destroy(&attributes);
	say("thread %d %lx %lx", (int)victim_tid(), (unsigned long)start,
	    (unsigned long)start + size);
}

/* For ever, with that many blocks of @size on the stack. */
__attribute__((noinline)) static void hold(size_t size)
{
	void *blocks[EACH];

	for (int i = 0; i < EACH; i++)
		blocks[i] = make(size, false);
	pthread_barrier_wait(&barrier);
	for (;;) {
		pause();
		__asm__ volatile("" : : "r"(blocks) : "memory");
	}
}

static void *run(void *unused)
{
	say_thread();
	for (int i = 0; i < EACH; i++) {
		in_tls[i] = make(1504, false);
		pthread_setspecific(keys[i], make(1604, false));
	}
	hold(1104);
	return NULL;
}

/* ---- coroutines ---- */

static ucontext_t running, resumed, suspended, resumer;

static char *coroutine_stack(int number)
{
	if (!strcmp(kind, "costatic"))
		return static_stacks[THREADS + number];
	if (!strcmp(kind, "coheap"))
		return malloc(STACK_SIZE);
	return mmap(NULL, STACK_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

static void start_coroutine(ucontext_t *context, ucontext_t *back, void (*body)(void), int number)
{
	getcontext(context);
	context->uc_stack.ss_sp = coroutine_stack(number);
	context->uc_stack.ss_size = STACK_SIZE;
	makecontext(context, body, 0);
	swapcontext(back, context);
}

static void run_on(void)
{
	hold(1204);
}

static void suspend(void)
{
	void *blocks[EACH];

	for (int i = 0; i < EACH; i++)
		blocks[i] = make(1304, false);
	__asm__ volatile("" : : "r"(blocks) : "memory");
	swapcontext(&suspended, &resumer);
	__asm__ volatile("" : : "r"(blocks) : "memory");
}

static void *run_coroutine(void *unused)
{
	void *blocks[EACH];

	say_thread();
	for (int i = 0; i < EACH; i++) {
		blocks[i] = make(1404, false);
		in_tls[i] = make(1504, false);
	}
	__asm__ volatile("" : : "r"(blocks) : "memory");
	start_coroutine(&running, &resumed, run_on, 0);
	__asm__ volatile("" : : "r"(blocks) : "memory");
	return NULL;
}

static void *run_suspended(void *unused)
{
	start_coroutine(&suspended, &resumer, suspend, 1);
	return run(NULL);
}

/* ---- alternate stacks ---- */

static void handle(int signal)
{
	hold(1204);
}

static void *run_alternate(void *memory)
{
	stack_t stack = { .ss_sp = memory, .ss_size = STACK_SIZE };
	void *blocks[EACH];

	say_thread();
	for (int i = 0; i < EACH; i++) {
		blocks[i] = make(1404, false);
		in_tls[i] = make(1504, false);
	}
	__asm__ volatile("" : : "r"(blocks) : "memory");
	check_that(!sigaltstack(&stack, NULL), "sigaltstack");
	pthread_kill(pthread_self(), SIGUSR1);
	__asm__ volatile("" : : "r"(blocks) : "memory");
	return NULL;
}

/* The alternate stack is a variable of a caller: the interrupted frames are below it. */
__attribute__((noinline)) static void run_below(void *memory)
{
	run_alternate(memory);
	__asm__ volatile("" : : "r"(memory) : "memory");
}

static void *run_own(void *unused)
{
	char memory[STACK_SIZE];

	run_below(memory);
	return memory[0] ? NULL : unused;
}

static void start_alternate(void)
{
	struct sigaction action = { .sa_handler = handle, .sa_flags = SA_ONSTACK };
	char *memories[] = { malloc(STACK_SIZE), static_stacks[0],
			     mmap(NULL, STACK_SIZE, PROT_READ | PROT_WRITE,
				  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) };
	pthread_t thread;

	sigaction(SIGUSR1, &action, NULL);
	pthread_barrier_init(&barrier, NULL, 4 + 1);
	check_that(!pthread_create(&thread, NULL, run_own, NULL), "pthread_create");
	for (int i = 0; i < 3; i++)
		check_that(!pthread_create(&thread, NULL, run_alternate, memories[i]),
			   "pthread_create");
	pthread_barrier_wait(&barrier);
}

/* ---- running threads ---- */

static void start_threads(void)
{
	bool fenced = !strcmp(kind, "fenced"), guarded = !strcmp(kind, "guarded");
	bool coroutines = !strncmp(kind, "co", 2);
	char *pool = NULL;
	pthread_t thread;

	if (fenced || guarded || !strcmp(kind, "pool"))
		pool = mmap(NULL, THREADS * STACK_SIZE, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	else if (!strcmp(kind, "heap"))
		pool = memalign(4096, THREADS * STACK_SIZE);
	else if (!strcmp(kind, "static"))
		pool = static_stacks[0];
	pthread_barrier_init(&barrier, NULL, THREADS + 1 + (coroutines ? 2 : 0));
	if (coroutines) {
		check_that(!pthread_create(&thread, NULL, run_coroutine, NULL), "pthread_create");
		check_that(!pthread_create(&thread, NULL, run_suspended, NULL), "pthread_create");
		usleep(100000);
	}
	for (int i = 0; i < THREADS; i++) {
		pthread_attr_t attributes;

		pthread_attr_init(&attributes);
		if (!strcmp(kind, "bare")) {
			pthread_attr_setguardsize(&attributes, 0);
			pthread_attr_setstacksize(&attributes, STACK_SIZE);
		}
		if (pool)
			pthread_attr_setstack(&attributes, pool + i * STACK_SIZE, STACK_SIZE);
		if (fenced)
			mprotect(pool + i * STACK_SIZE, 4096, PROT_NONE);
		/* Before Linux 6.13 there are none. */
		if (guarded)
			madvise(pool + i * STACK_SIZE, 4096, MADV_GUARD_INSTALL);
		check_that(!pthread_create(&thread, &attributes, run, NULL), "pthread_create");
	}
	pthread_barrier_wait(&barrier);
}

/* ---- ended threads ---- */

static __thread void *volatile lost_in_tls;

static void *end(void *argument)
{
	void *volatile lost = make(2104, true);
	void *result = argument ? make(2304, false) : make(2404, true);

	if (argument)
		say("joinable %p", result);
	lost_in_tls = make(2204, true);
	pthread_barrier_wait(&barrier);
	(void)lost;
	return result;
}

static void *end_detached(void *unused)
{
	pthread_detach(pthread_self());
	return end(NULL);
}

static unsigned count_tasks(void)
{
	DIR *tasks = opendir("/proc/self/task");
	unsigned count = 0;

	while (readdir(tasks))
		count++;
	closedir(tasks);
	return count - 2;
}

/* 8 of each: joined, detached, neither; the last ones' results can still be had, and their
 * arguments not. */
static void end_threads(void)
{
	pthread_t threads[24];

	pthread_barrier_init(&barrier, NULL, 24 + 1);
	for (int i = 0; i < 24; i++) {
		pthread_attr_t attributes;
		void *argument = NULL;

		pthread_attr_init(&attributes);
		pthread_attr_setstacksize(&attributes, STACK_SIZE);
		if (i >= 16)
			argument = sizeof(void *) == 8 ? make(2504, true) : &rows;
		check_that(!pthread_create(&threads[i], &attributes,
					   i / 8 == 1 ? end_detached : end, argument),
			   "pthread_create");
	}
	pthread_barrier_wait(&barrier);
	for (int i = 0; i < 8; i++)
		pthread_join(threads[i], NULL);
	while (count_tasks() > 1)
		usleep(1000);
	memset(threads, 0, sizeof(threads));
	__asm__ volatile("" : : "r"(threads) : "memory");
}

__attribute__((noinline)) static void lose(void)
{
	for (int i = 0; i < 7; i++) {
		void *volatile block = make(2604, true);

		block = NULL;
		(void)block;
	}
}

int main(int argc, char **argv)
{
	kind = argc > 1 ? argv[1] : "guard";
	victim_init();
	for (int i = 0; i < EACH; i++)
		pthread_key_create(&keys[i], NULL);
	if (!strcmp(kind, "ended"))
		end_threads();
	else if (!strcmp(kind, "alternate"))
		start_alternate();
	else
		start_threads();
	lose();
	clean_stack();
	for (struct row *row = rows; row->size; row++)
		say("%s %zu %u", row->lost ? "lost" : "kept", row->size, row->count);
	victim_ready();
	victim_serve(NULL);
	return 0;
}
