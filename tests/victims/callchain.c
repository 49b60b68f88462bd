/*
 * `callchain`: threads that wait at the end of a chain of 12 calls each, compiled without frame
 * pointers, in frames of different sizes; one of them in a signal handler on a stack of its own
 * (`handler`), whose chain was interrupted while it computed. The main thread takes commands.
 *
 * Truth: a line `thread TID NAME` for each; the calls are chain_1, called by thread_main, to
 * chain_12, which calls wait_NAME.
 *
 * variants: 32 static
 * cflags: -fomit-frame-pointer -fno-optimize-sibling-calls
 */
#include "victim.h"

#include <poll.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/ipc.h>
#include <sys/sem.h>
#include <time.h>

#define NOINLINE __attribute__((noinline, noclone))

/* Read by the compiler's eyes only: keeps the frames and what is after the calls. */
static volatile int sink;

NOINLINE static void wait_nanosleep(void)
{
	struct timespec left = { .tv_sec = 100000 };

	nanosleep(&left, &left);
	sink++;
}

NOINLINE static void wait_epoll(void)
{
	struct epoll_event event;

	check_that(epoll_wait(epoll_create1(0), &event, 1, -1) == 1, "epoll_wait");
}

NOINLINE static void wait_futex(void)
{
	pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
	pthread_cond_t cond = PTHREAD_COND_INITIALIZER;

	pthread_mutex_lock(&mutex);
	pthread_cond_wait(&cond, &mutex);
}

NOINLINE static void wait_sigtimedwait(void)
{
	struct timespec long_time = { .tv_sec = 100000 };
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	check_that(sigtimedwait(&set, NULL, &long_time) == SIGUSR1, "sigtimedwait");
}

NOINLINE static void wait_poll(void)
{
	check_that(poll(NULL, 0, -1) == 1, "poll");
}

NOINLINE static void wait_handler(void)
{
	for (;;)
		sink++;
}

static void on_signal(int signal)
{
	wait_poll();
	sink++;
}

static const struct {
	const char *name;
	void (*wait)(void);
} kinds[] = {
	{ "nanosleep", wait_nanosleep },       { "epoll", wait_epoll }, { "futex", wait_futex },
	{ "sigtimedwait", wait_sigtimedwait }, { "poll", wait_poll },	{ "handler", wait_handler },
};

#define KINDS (sizeof(kinds) / sizeof(kinds[0]))

static atomic_ulong begun;
static pid_t tids[KINDS];

NOINLINE static void chain_12(unsigned kind)
{
	volatile char room[200];

	room[0] = (char)kind;
	begun++;
	kinds[kind].wait();
	sink += room[0];
}

#define CHAIN(number, next)                                \
	NOINLINE static void chain_##number(unsigned kind) \
	{                                                  \
		volatile char room[number * 24 + 1];       \
                                                           \
		room[number] = (char)kind;                 \
		chain_##next(kind);                        \
		sink += room[number];                      \
	}

CHAIN(11, 12)
CHAIN(10, 11)
CHAIN(9, 10)
CHAIN(8, 9)
CHAIN(7, 8)
CHAIN(6, 7)
CHAIN(5, 6)
CHAIN(4, 5)
CHAIN(3, 4)
CHAIN(2, 3)
CHAIN(1, 2)

static void *thread_main(void *data)
{
	unsigned kind = (unsigned)(uintptr_t)data;

	prctl(PR_SET_NAME, kinds[kind].name);
	tids[kind] = victim_tid();
	say("thread %d %s", tids[kind], kinds[kind].name);
	chain_1(kind);
	return NULL;
}

int main(void)
{
	struct sigaction action = { .sa_handler = on_signal };
	pthread_t thread;
	sigset_t set;

	victim_init();
	sigaction(SIGUSR2, &action, NULL);
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	for (uintptr_t i = 0; i < KINDS; i++)
		check_that(pthread_create(&thread, NULL, thread_main, (void *)i) == 0,
			   "pthread_create");
	while (begun < KINDS)
		usleep(1000);
	/* The last thread is the one that computes. */
	pthread_kill(thread, SIGUSR2);
	for (unsigned i = 0; i < KINDS; i++)
		await_sleep(tids[i]);
	victim_ready();
	victim_serve(NULL);
	return 0;
}
