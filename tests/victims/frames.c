/*
 * `frames`: two threads that compute for ever in frames of all kinds, without frame pointers: small
 * and very large ones, with alloca, realigned, called back by libc, called through lazily bound
 * entries of the PLT, and in signal handlers that interrupt any of them. The main thread takes
 * commands.
 *
 * Truth: every stack of a computing thread has worker as its last function but one to three of
 * libc's; with on_alarm in it, too. With musl, none of the frames above it is libc's.
 *
 * variants: static musl
 * cflags: -fomit-frame-pointer -fno-optimize-sibling-calls -Wl,-z,lazy
 */
#include "victim.h"

#include <alloca.h>
#include <pthread.h>
#include <sys/time.h>

#define NOINLINE __attribute__((noinline, noclone))

/* musl says nothing about its frames: there only the timer's signals come, and stay long. */
#ifdef __GLIBC__
#define HANDLER_TIMES 20000
#else
#define HANDLER_TIMES 1000000
#endif

static _Thread_local volatile unsigned sink;

NOINLINE static void spin(unsigned times)
{
	for (unsigned i = 0; i < times; i++)
		sink = sink * 31 + i;
}

NOINLINE static void in_large_frame(unsigned depth)
{
	volatile char room[700000];

	room[depth] = (char)depth;
	spin(300);
	sink += room[depth];
}

NOINLINE static void in_alloca(unsigned depth)
{
	volatile char *room = alloca(16 + depth * 32);

	room[depth] = 1;
	spin(200);
	sink += room[depth];
}

NOINLINE static void realigned(unsigned depth, void (*next)(unsigned))
{
	volatile char room[128] __attribute__((aligned(128)));
	volatile char *more = alloca(depth + 1);

	more[depth] = room[depth] = 1;
	spin(100);
	next(depth);
	sink += room[depth] + more[depth];
}

NOINLINE static unsigned recurse(unsigned depth)
{
	unsigned below;

	if (!depth) {
		spin(400);
		return sink;
	}
	below = recurse(depth - 1);
	spin(10);
	return below + depth * sink;
}

static int compare(const void *a, const void *b)
{
	spin(20);
	return *(const int *)a - *(const int *)b;
}

NOINLINE __attribute__((unused)) static void by_libc(unsigned depth)
{
	int numbers[32];
	char text[64];

	for (unsigned i = 0; i < 32; i++)
		numbers[i] = (int)(sink + i * 7919) % 1000;
	qsort(numbers, 32, sizeof(numbers[0]), compare);
	for (unsigned i = 0; i < 20; i++)
		sink += (unsigned)snprintf(text, sizeof(text), "%d %f %s", numbers[i], i / 3.0,
					   "text");
	free(malloc(100 + depth));
}

static void on_alarm(int signal)
{
	realigned(3, in_alloca);
	recurse(5);
	spin(HANDLER_TIMES);
}

static void *worker(void *data)
{
	for (unsigned i = 0;; i++) {
		in_large_frame(i % 1000);
		in_alloca(i % 100);
		realigned(i % 50, in_alloca);
		recurse(i % 40);
#ifdef __GLIBC__
		realigned(i % 50, by_libc);
		if (i % 8 == 0)
			raise(SIGUSR1);
#endif
		victim_progress++;
	}
	return data;
}

int main(void)
{
	struct sigaction action = { .sa_handler = on_alarm, .sa_flags = SA_RESTART };
	struct itimerval every = { { 0, 3000 }, { 0, 3000 } };
	pthread_attr_t attributes;
	pthread_t thread;
	sigset_t set;

	victim_init();
	sigaction(SIGUSR1, &action, NULL);
	sigaction(SIGPROF, &action, NULL);
	pthread_attr_init(&attributes);
	pthread_attr_setstacksize(&attributes, 4 << 20);
	for (int i = 0; i < 2; i++)
		check_that(!pthread_create(&thread, &attributes, worker, NULL), "pthread_create");
	/* Their processor time only. */
	sigemptyset(&set);
	sigaddset(&set, SIGPROF);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	setitimer(ITIMER_PROF, &every, NULL);
	victim_ready();
	victim_serve(NULL);
	return 0;
}
