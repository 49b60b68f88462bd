#include "target.h"

#include <linux/futex.h>
#include <poll.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ipc.h>
#include <sys/sem.h>

/* Waits: the result, the time, and errno must be right, and nothing may end them early. */

static uint64_t random_wait(uint32_t *random)
{
	return UINT64_C(500000) + random_next(random) % 15000000;
}

void run_nanosleep(struct kind *kind, unsigned index)
{
	uint32_t random = random_seed();

	for (;;) {
		uint64_t ns = random_wait(&random), start = now_ns();
		struct timespec request = ns_to_timespec(ns);
		int handlers = handlers_run;

		errno = ERRNO_SENTINEL;
		if (nanosleep(&request, NULL) < 0) {
			wait_failed(kind, handlers, 0);
		} else {
			expect_errno(kind, "nanosleep");
			expect_elapsed(kind, start, ns, "nanosleep");
		}
		round_done(kind);
	}
}

void run_poll(struct kind *kind, unsigned index)
{
	struct pollfd never = { .fd = eventfd(0, 0), .events = POLLIN };
	uint32_t random = random_seed();

	for (;;) {
		int ms = 1 + (int)(random_next(&random) % 15), handlers = handlers_run, got;
		uint64_t start = now_ns();

		errno = ERRNO_SENTINEL;
		got = poll(&never, 1, ms);
		if (got < 0) {
			wait_failed(kind, handlers, 0);
		} else {
			if (got)
				round_wrong(kind, "poll returned %d", got);
			expect_errno(kind, "poll");
			expect_elapsed(kind, start, (uint64_t)ms * 1000000, "poll");
		}
		round_done(kind);
	}
}

/* ---- epoll ---- */

static void *poke_eventfd(void *data)
{
	uint64_t one = 1;

	for (;;) {
		sleep_us(3000);
		if (write((int)(uintptr_t)data, &one, sizeof(one)) != sizeof(one))
			return NULL;
	}
}

static int epoll_over(int fd, uint64_t cookie)
{
	struct epoll_event event = { .events = EPOLLIN, .data.u64 = cookie };
	int epoll = epoll_create1(EPOLL_CLOEXEC);

	check_that(epoll >= 0 && epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) == 0, "epoll");
	return epoll;
}

/* For ever, and somebody comes. */
void run_epoll(struct kind *kind, unsigned index)
{
	int fd = eventfd(0, EFD_CLOEXEC), epoll = epoll_over(fd, 0x1234567890);

	spawn(poke_eventfd, (void *)(uintptr_t)fd);
	for (;;) {
		struct epoll_event event = { 0 };
		int handlers = handlers_run, got;
		uint64_t value = 0;

		errno = ERRNO_SENTINEL;
		got = epoll_wait(epoll, &event, 1, -1);
		if (got < 0) {
			wait_failed(kind, handlers, 0);
		} else {
			expect_errno(kind, "epoll_wait");
			if (got != 1 || event.data.u64 != 0x1234567890)
				round_wrong(kind, "epoll_wait returned %d", got);
			else if (read(fd, &value, sizeof(value)) != sizeof(value) || !value)
				round_wrong(kind, "nothing to read");
		}
		round_done(kind);
	}
}

void run_epoll_timeout(struct kind *kind, unsigned index)
{
	int epoll = epoll_over(eventfd(0, EFD_CLOEXEC), 1);
	uint32_t random = random_seed();

	for (;;) {
		struct epoll_event event;
		int ms = 1 + (int)(random_next(&random) % 15), handlers = handlers_run, got;
		uint64_t start = now_ns();

		errno = ERRNO_SENTINEL;
		got = epoll_wait(epoll, &event, 1, ms);
		if (got < 0) {
			wait_failed(kind, handlers, 0);
		} else {
			if (got)
				round_wrong(kind, "epoll_wait returned %d", got);
			expect_errno(kind, "epoll_wait");
			expect_elapsed(kind, start, (uint64_t)ms * 1000000, "epoll_wait");
		}
		round_done(kind);
	}
}

/* ---- futex ---- */

static long futex(atomic_uint *word, int operation, unsigned value, const struct timespec *timeout)
{
	return syscall(SYS_futex, word, operation, value, timeout, NULL, 0);
}

static void *poke_futex(void *data)
{
	atomic_uint *word = data;

	for (;;) {
		sleep_us(3000);
		(*word)++;
		futex(word, FUTEX_WAKE_PRIVATE, 1, NULL);
	}
	return NULL;
}

void run_futex(struct kind *kind, unsigned index)
{
	static __thread atomic_uint word;

	spawn(poke_futex, &word);
	for (;;) {
		unsigned seen = word;
		int handlers = handlers_run;
		long got;

		errno = ERRNO_SENTINEL;
		got = futex(&word, FUTEX_WAIT_PRIVATE, seen, NULL);
		if (got < 0)
			wait_failed(kind, handlers, EAGAIN);
		else if (got > 0)
			round_wrong(kind, "futex returned %ld", got);
		else
			expect_errno(kind, "futex");
		/* EAGAIN says that the word had changed already; it is never woken before that. */
		if (errno != EINTR && word == seen)
			round_wrong(kind, "woken by nobody");
		round_done(kind);
	}
}

void run_futex_timeout(struct kind *kind, unsigned index)
{
	static __thread atomic_uint word;
	uint32_t random = random_seed();

	for (;;) {
		uint64_t ns = random_wait(&random), start = now_ns();
		struct timespec timeout = ns_to_timespec(ns);
		int handlers = handlers_run;

		if (futex(&word, FUTEX_WAIT_PRIVATE, 0, &timeout) == 0)
			round_wrong(kind, "woken by nobody");
		else if (!wait_failed(kind, handlers, ETIMEDOUT))
			expect_elapsed(kind, start, ns, "futex");
		round_done(kind);
	}
}

/* ---- waits that the kernel ends with EINTR at every stop ---- */

void run_sigtimedwait(struct kind *kind, unsigned index)
{
	uint32_t random = random_seed();
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR2);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	for (;;) {
		uint64_t ns = random_wait(&random), start = now_ns();
		struct timespec timeout = ns_to_timespec(ns);
		int handlers = handlers_run, got = sigtimedwait(&set, NULL, &timeout);

		if (got >= 0)
			round_wrong(kind, "signal %d", got);
		else if (!wait_failed(kind, handlers, EAGAIN))
			expect_elapsed(kind, start, ns, "sigtimedwait");
		round_done(kind);
	}
}

/*
 * One semaphore that is always 0. In an IPC namespace of the thread's own it goes away with it;
 * without the right to one, all runs of a user share one under a fixed key.
 */
static int open_semaphore(void)
{
	if (unshare(CLONE_NEWIPC) == 0)
		return semget(IPC_PRIVATE, 1, IPC_CREAT | 0600);
	return semget((key_t)(0x6d650000 + (getuid() & 0xffff)), 1, IPC_CREAT | 0600);
}

void run_semtimedop(struct kind *kind, unsigned index)
{
	uint32_t random = random_seed();
	int semaphore = open_semaphore();

	check_that(semaphore >= 0, "semget");
	for (;;) {
		uint64_t ns = random_wait(&random), start = now_ns();
		struct timespec timeout = ns_to_timespec(ns);
		struct sembuf take = { .sem_op = -1 };
		int handlers = handlers_run;

		if (semtimedop(semaphore, &take, 1, &timeout) == 0)
			round_wrong(kind, "semtimedop got what nobody gave");
		else if (!wait_failed(kind, handlers, EAGAIN))
			expect_elapsed(kind, start, ns, "semtimedop");
		round_done(kind);
	}
}
