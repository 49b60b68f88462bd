#include "target.h"

#include <stddef.h>
#include <sys/socket.h>
#include <sys/un.h>

/* Two that talk to each other: nothing may be lost, doubled or out of order. */

/* Hands the second thread what the first one made. */
struct meeting {
	atomic_bool there;
	int fds[4];
	pthread_t thread;
};

static struct meeting meetings[128];

static struct meeting *meet(unsigned index, void (*prepare)(struct meeting *meeting))
{
	struct meeting *meeting = &meetings[index / 2];

	if (index % 2 == 0) {
		prepare(meeting);
		meeting->there = true;
	}
	while (!meeting->there)
		sleep_us(500);
	return meeting;
}

/* ---- a number that goes to and fro through two pipes ---- */

static void make_pipes(struct meeting *meeting)
{
	check_that(pipe(meeting->fds) == 0 && pipe(meeting->fds + 2) == 0, "pipe");
}

/* SA_RESTART: none of the two ends with EINTR. */
static bool transfer(struct kind *kind, bool out, int fd, uint64_t *value)
{
	int handlers = handlers_run;
	ssize_t size;

	errno = ERRNO_SENTINEL;
	size = out ? write(fd, value, sizeof(*value)) : read(fd, value, sizeof(*value));
	if (size == sizeof(*value)) {
		expect_errno(kind, out ? "write" : "read");
		return true;
	}
	if (size >= 0)
		round_wrong(kind, "%s of %zd bytes", out ? "write" : "read", size);
	else
		wait_failed(kind, handlers, 0);
	return false;
}

void run_pipe(struct kind *kind, unsigned index)
{
	struct meeting *meeting = meet(index, make_pipes);
	int in = meeting->fds[index % 2 ? 0 : 2], out = meeting->fds[index % 2 ? 3 : 1];
	uint64_t number = 0, got;

	if (index % 2)
		goto answer;
	for (;;) {
		while (!transfer(kind, true, out, &number))
			;
		number++;
	answer:
		while (!transfer(kind, false, in, &got))
			;
		if (got != number)
			round_wrong(kind, "%llu came instead of %llu", (unsigned long long)got,
				    (unsigned long long)number);
		number = got + 1;
		round_done(kind);
		if (number % 64 == 0)
			sleep_us(1000);
	}
}

/* ---- turns by a condition variable ---- */

static struct turns {
	pthread_mutex_t mutex;
	pthread_cond_t changed;
	unsigned long turn;
} turns[128];

static void make_turns(struct meeting *meeting)
{
	struct turns *mine = &turns[meeting - meetings];

	pthread_mutex_init(&mine->mutex, NULL);
	pthread_cond_init(&mine->changed, NULL);
}

void run_cond(struct kind *kind, unsigned index)
{
	struct turns *mine = &turns[meet(index, make_turns) - meetings];
	unsigned long next = index % 2;

	for (;;) {
		int failed = pthread_mutex_lock(&mine->mutex);

		while (!failed && mine->turn % 2 != index % 2)
			failed = pthread_cond_wait(&mine->changed, &mine->mutex);
		if (failed)
			round_wrong(kind, "pthread error %d", failed);
		if (mine->turn != next)
			round_wrong(kind, "turn %lu instead of %lu", mine->turn, next);
		next = mine->turn + 2;
		mine->turn++;
		pthread_cond_signal(&mine->changed);
		pthread_mutex_unlock(&mine->mutex);
		round_done(kind);
		if (next % 64 < 2)
			sleep_us(500);
	}
}

/* ---- connections of a unix socket ---- */

static struct sockaddr_un address_of(const struct meeting *meeting, socklen_t *size_ret)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int length = snprintf(address.sun_path + 1, sizeof(address.sun_path) - 1,
			      "memprobe-torture-%d-%d", (int)getpid(), (int)(meeting - meetings));

	*size_ret = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)length);
	return address;
}

static void make_listener(struct meeting *meeting)
{
	socklen_t size;
	struct sockaddr_un address = address_of(meeting, &size);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	check_that(fd >= 0 && bind(fd, (void *)&address, size) == 0 && listen(fd, 4) == 0,
		   "listen");
	meeting->fds[0] = fd;
}

static int connect_to(struct kind *kind, const struct meeting *meeting)
{
	socklen_t size;
	struct sockaddr_un address = address_of(meeting, &size);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), handlers = handlers_run;

	sleep_us(1000);
	while (connect(fd, (void *)&address, size) < 0)
		if (!wait_failed(kind, handlers, 0))
			break;
	return fd;
}

static int accept_from(struct kind *kind, const struct meeting *meeting)
{
	int handlers = handlers_run, fd;

	errno = ERRNO_SENTINEL;
	while ((fd = accept(meeting->fds[0], NULL, NULL)) < 0)
		if (!wait_failed(kind, handlers, 0))
			return -1;
	if (errno != EINTR)
		expect_errno(kind, "accept");
	return fd;
}

void run_accept(struct kind *kind, unsigned index)
{
	struct meeting *meeting = meet(index, make_listener);
	uint64_t number = 0;

	for (;;) {
		bool server = index % 2 == 0;
		int fd = server ? accept_from(kind, meeting) : connect_to(kind, meeting);
		uint64_t got = 0;

		while (!transfer(kind, server, fd, server ? &number : &got) && fd >= 0)
			;
		if (!server && got != number)
			round_wrong(kind, "connection %llu is %llu", (unsigned long long)number,
				    (unsigned long long)got);
		number++;
		close(fd);
		round_done(kind);
	}
}

/* ---- sigsuspend, woken by pthread_kill ---- */

static __thread volatile sig_atomic_t user_signals;

static void on_user_signal(int signal)
{
	user_signals++;
	handlers_run++;
}

static void *wake_suspended(void *data)
{
	struct meeting *meeting = data;

	for (;;) {
		sleep_us(3000);
		pthread_kill(meeting->thread, SIGUSR1);
	}
	return NULL;
}

void run_sigsuspend(struct kind *kind, unsigned index)
{
	struct sigaction action = { .sa_handler = on_user_signal };
	struct meeting *meeting = &meetings[index / 2];
	sigset_t blocked, open;

	sigaction(SIGUSR1, &action, NULL);
	sigemptyset(&blocked);
	sigaddset(&blocked, SIGUSR1);
	pthread_sigmask(SIG_BLOCK, &blocked, &open);
	sigaddset(&open, SIGALRM); /* only the one signal ends it */
	sigdelset(&open, SIGUSR1);
	meeting->thread = pthread_self();
	spawn(wake_suspended, meeting);
	for (;;) {
		int before = user_signals, got = sigsuspend(&open);
		sigset_t now;

		if (got != -1 || errno != EINTR)
			round_wrong(kind, "sigsuspend returned %d", got);
		if (user_signals == before)
			kind->eintr++;
		pthread_sigmask(SIG_BLOCK, NULL, &now);
		if (!sigismember(&now, SIGUSR1))
			round_wrong(kind, "the signal mask was not put back");
		round_done(kind);
	}
}

/* ---- queued signals, counted ---- */

static atomic_ulong queue_received;
static atomic_int queue_disorder;

static void on_queued(int signal, siginfo_t *info, void *context)
{
	unsigned long expected = queue_received++;

	if (info->si_code != SI_QUEUE || (unsigned)info->si_value.sival_int != (unsigned)expected)
		queue_disorder++;
	handlers_run++;
}

static void *receive_queue(void *data)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGRTMIN + 3);
	pthread_sigmask(SIG_UNBLOCK, &set, NULL);
	*(atomic_bool *)data = true;
	for (volatile unsigned long spin = 0;; spin++)
		if (spin % 4096 == 0)
			sleep_us(700);
	return NULL;
}

void run_queue(struct kind *kind, unsigned index)
{
	struct sigaction action = { .sa_sigaction = on_queued,
				    .sa_flags = SA_SIGINFO | SA_RESTART };
	static atomic_bool ready;
	pthread_t receiver;
	unsigned long sent = 0;

	if (ready) {
		say("WRONG only one thread may be of the kind queue");
		exit(2);
	}
	sigaction(SIGRTMIN + 3, &action, NULL);
	receiver = spawn(receive_queue, &ready);
	while (!ready)
		sleep_us(500);
	for (;;) {
		uint64_t deadline = now_ns() + UINT64_C(20000000000);

		for (unsigned i = 0; i < 20; i++) {
			union sigval value = { .sival_int = (int)sent };

			if (pthread_sigqueue(receiver, SIGRTMIN + 3, value) == 0)
				sent++;
		}
		while (queue_received != sent && now_ns() < deadline)
			sleep_us(500);
		if (queue_received != sent || queue_disorder) {
			round_wrong(kind, "%lu signals sent, %lu received, %d out of order", sent,
				    (unsigned long)queue_received, queue_disorder);
			sent = queue_received;
			queue_disorder = 0;
		}
		round_done(kind);
	}
}
