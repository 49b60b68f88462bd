#include "target.h"

#include <fcntl.h>
#include <sys/wait.h>

/* Things that come and go: blocks, threads, processes. */

/* ---- malloc ---- */

#define SLOTS 256

struct block {
	unsigned char *bytes;
	size_t size;
	unsigned char mark;
};

static void check_block(struct kind *kind, const struct block *block, size_t size)
{
	for (size_t i = 0; i < size; i++)
		if (block->bytes[i] != block->mark) {
			round_wrong(kind, "block %p of %zu, byte %zu", (void *)block->bytes, size,
				    i);
			return;
		}
}

static void renew(struct kind *kind, struct block *block, uint32_t *random)
{
	/* Some beyond the thread cache, a few beyond the mmap threshold. */
	size_t size = random_next(random) % (random_next(random) % 200 ? 3000 : 300000) + 1;
	uint32_t way = random_next(random) % 4;

	if (block->bytes)
		check_block(kind, block, block->size);
	if (way == 0 && block->bytes) {
		block->bytes = realloc(block->bytes, size);
		if (block->bytes)
			check_block(kind, block, size < block->size ? size : block->size);
	} else {
		free(block->bytes);
		block->bytes = way == 1 ? calloc(1, size) : malloc(size);
		if (way == 1 && block->bytes && (block->bytes[0] || block->bytes[size - 1]))
			round_wrong(kind, "calloc of %zu is not zero", size);
	}
	if (!block->bytes) {
		round_wrong(kind, "malloc of %zu", size);
		return;
	}
	block->size = size;
	block->mark = (unsigned char)random_next(random);
	memset(block->bytes, block->mark, size);
}

void run_malloc(struct kind *kind, unsigned index)
{
	struct block blocks[SLOTS] = { 0 };
	uint32_t random = random_seed();

	for (;;) {
		for (int i = 0; i < 256; i++)
			renew(kind, &blocks[random_next(&random) % SLOTS], &random);
		round_done(kind);
	}
}

/* ---- threads that are cancelled wherever they are ---- */

enum work { WORK_READ, WORK_SLEEP, WORK_PAUSE, WORK_CALLS, WORK_COUNT };

struct cancelled {
	enum work work;
	int fd; /* nobody writes to it */
	atomic_bool entered;
	atomic_int cleaned, destroyed, order;
};

static pthread_key_t cancelled_key;

static void on_destroy(void *data)
{
	struct cancelled *cancelled = data;

	cancelled->destroyed++;
	cancelled->order = cancelled->order * 10 + 3;
}

static void on_outer(void *data)
{
	struct cancelled *cancelled = data;

	cancelled->cleaned++;
	cancelled->order = cancelled->order * 10 + 2;
}

static void on_inner(void *data)
{
	struct cancelled *cancelled = data;

	cancelled->cleaned++;
	cancelled->order = cancelled->order * 10 + 1;
}

static void work(const struct cancelled *cancelled)
{
	struct timespec short_time = { .tv_nsec = 200000 };
	char byte;

	switch (cancelled->work) {
	case WORK_READ:
		while (read(cancelled->fd, &byte, 1) < 0)
			;
		break;
	case WORK_SLEEP:
		for (;;)
			nanosleep(&short_time, NULL);
	case WORK_PAUSE:
		for (;;)
			pause();
	default:
		for (;;) {
			free(malloc(100));
			pthread_testcancel();
		}
	}
}

static void *be_cancelled(void *data)
{
	struct cancelled *cancelled = data;

	pthread_setspecific(cancelled_key, cancelled);
	pthread_cleanup_push(on_outer, cancelled);
	pthread_cleanup_push(on_inner, cancelled);
	cancelled->entered = true;
	work(cancelled);
	pthread_cleanup_pop(0);
	pthread_cleanup_pop(0);
	return NULL;
}

void run_cancel(struct kind *kind, unsigned index)
{
	uint32_t random = random_seed();
	int fds[2];

	check_that(pipe(fds) == 0, "pipe");
	pthread_key_create(&cancelled_key, on_destroy);
	for (;;) {
		struct cancelled cancelled = { .work = random_next(&random) % WORK_COUNT,
					       .fd = fds[0] };
		pthread_t thread = spawn(be_cancelled, &cancelled);
		void *returned = NULL;

		while (!cancelled.entered)
			sleep_us(50);
		sleep_us(random_next(&random) % 3000);
		if (pthread_cancel(thread) || pthread_join(thread, &returned))
			round_wrong(kind, "pthread_cancel or pthread_join");
		if (returned != PTHREAD_CANCELED)
			round_wrong(kind, "joined with %p", returned);
		if (cancelled.cleaned != 2 || cancelled.destroyed != 1 || cancelled.order != 123)
			round_wrong(kind, "handlers ran %d, %d times, in the order %d",
				    cancelled.cleaned, cancelled.destroyed, cancelled.order);
		round_done(kind);
	}
}

/* ---- threads that end by themselves ---- */

static __thread unsigned own_word = 0xfeed;

static void *live_briefly(void *data)
{
	uintptr_t number = (uintptr_t)data;
	unsigned found = own_word;
	void *block = malloc(number % 5000);

	own_word = (unsigned)number;
	if (number % 3 == 0)
		sleep_us(500);
	free(block);
	return (void *)(found == 0xfeed && own_word == (unsigned)number ? number * 3 : 0);
}

void run_create(struct kind *kind, unsigned index)
{
	for (uintptr_t number = 1;; number++) {
		void *returned = NULL;
		pthread_t thread = spawn(live_briefly, (void *)number);

		if (pthread_join(thread, &returned) || (uintptr_t)returned != number * 3)
			round_wrong(kind, "thread %lu returned %lu", (unsigned long)number,
				    (unsigned long)(uintptr_t)returned);
		round_done(kind);
		if (number % 8 == 0)
			sleep_us(1000);
	}
}

/* ---- children ---- */

/*
 * One thread only: it waits for any child, and none but its own may come. A snapshot is seen by
 * who waits with __WALL or __WCLONE (memprobe(1), LIMITS): not by an ordinary wait.
 */
void run_fork(struct kind *kind, unsigned index)
{
	for (unsigned number = 0;; number++) {
		int status = 0, handlers = handlers_run;
		pid_t got, child = fork();

		if (child == 0) {
			free(malloc(1000));
			_exit((int)(number % 200));
		}
		if (child < 0) {
			round_wrong(kind, "fork");
			continue;
		}
		while ((got = waitpid(-1, &status, 0)) < 0 && wait_failed(kind, handlers, 0))
			;
		if (got != child)
			round_wrong(kind, "waitpid found %d instead of %d", (int)got, (int)child);
		else if (!WIFEXITED(status) || WEXITSTATUS(status) != (int)(number % 200))
			round_wrong(kind, "child ended with %x instead of %u", status,
				    number % 200);
		if (waitpid(-1, &status, WNOHANG) >= 0 || errno != ECHILD)
			round_wrong(kind, "one child more");
		round_done(kind);
		sleep_us(2000);
	}
}
