/*
 * `threads N`: N threads (default 12), each in another blocking call, beside the main thread, which
 * takes commands. None of the calls may ever return: no signal comes, nothing is written.
 *
 * Truth: a line `thread TID NAME STACK_START STACK_SIZE` for each.
 *
 * variants: 32 static
 */
#include "victim.h"

#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/select.h>
#include <sys/sem.h>
#include <sys/socket.h>
#include <time.h>

static void in_nanosleep(void)
{
	struct timespec left = { .tv_sec = 100000 };

	nanosleep(&left, &left);
}

static void in_pipe(void)
{
	int fds[2];
	char byte;

	check_that(pipe(fds) == 0, "pipe");
	check_that(read(fds[0], &byte, 1) == 1, "read of a pipe");
}

static void in_futex(void)
{
	pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
	pthread_cond_t cond = PTHREAD_COND_INITIALIZER;

	pthread_mutex_lock(&mutex);
	pthread_cond_wait(&cond, &mutex);
}

static void in_epoll(void)
{
	struct epoll_event event;

	check_that(epoll_wait(epoll_create1(0), &event, 1, -1) == 1, "epoll_wait");
}

static void in_poll(void)
{
	check_that(poll(NULL, 0, -1) == 1, "poll");
}

static void in_select(void)
{
	check_that(select(0, NULL, NULL, NULL, NULL) == 1, "select");
}

static void in_sigtimedwait(void)
{
	struct timespec long_time = { .tv_sec = 100000 };
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	check_that(sigtimedwait(&set, NULL, &long_time) == SIGUSR1, "sigtimedwait");
}

static void in_sigsuspend(void)
{
	sigset_t set;

	sigfillset(&set);
	sigdelset(&set, SIGUSR2);
	sigsuspend(&set);
}

static void in_accept(void)
{
	struct sockaddr_in address = { .sin_family = AF_INET };
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	check_that(fd >= 0 && bind(fd, (struct sockaddr *)&address, sizeof(address)) == 0 &&
			   listen(fd, 1) == 0,
		   "listen");
	check_that(accept(fd, NULL, NULL) >= 0, "accept");
}

static void in_recv(void)
{
	int fds[2];
	char byte;

	check_that(socketpair(AF_UNIX, SOCK_DGRAM, 0, fds) == 0, "socketpair");
	check_that(recv(fds[0], &byte, 1, 0) == 1, "recv");
}

static void in_semtimedop(void)
{
	struct timespec long_time = { .tv_sec = 100000 };
	struct sembuf take = { .sem_op = -1 };
	int id = semget(IPC_PRIVATE, 1, 0600);

	check_that(id >= 0, "semget");
	check_that(semtimedop(id, &take, 1, &long_time) == 0, "semtimedop");
}

static void in_msgrcv(void)
{
	struct {
		long type;
		char text[8];
	} message;
	int id = msgget(IPC_PRIVATE, 0600);

	check_that(id >= 0, "msgget");
	check_that(msgrcv(id, &message, sizeof(message.text), 0, 0) >= 0, "msgrcv");
}

static const struct {
	const char *name;
	void (*wait)(void);
} kinds[] = {
	{ "nanosleep", in_nanosleep },
	{ "pipe", in_pipe },
	{ "futex", in_futex },
	{ "epoll", in_epoll },
	{ "poll", in_poll },
	{ "select", in_select },
	{ "sigtimedwait", in_sigtimedwait },
	{ "sigsuspend", in_sigsuspend },
	{ "accept", in_accept },
	{ "recv", in_recv },
	{ "semtimedop", in_semtimedop },
	{ "msgrcv", in_msgrcv },
};

#define THREADS_MAX 4096

static pid_t tids[THREADS_MAX];
static atomic_ulong begun;
static unsigned long kind_count = sizeof(kinds) / sizeof(kinds[0]);

static void *thread_main(void *data)
{
	unsigned long index = (unsigned long)data;
	unsigned long kind = index % kind_count;
	pthread_attr_t attributes;
	char name[16];
	void *stack;
	size_t size;

	snprintf(name, sizeof(name), "%s", kinds[kind].name);
	prctl(PR_SET_NAME, name);
	check_that(pthread_getattr_np(pthread_self(), &attributes) == 0, "pthread_getattr_np");
	pthread_attr_getstack(&attributes, &stack, &size);
	pthread_attr_destroy(&attributes);
	say("thread %d %s 0x%lx %zu", victim_tid(), name, (unsigned long)stack, size);
	tids[index] = victim_tid();
	begun++;
	kinds[kind].wait();
	say("WRONG %s: returned", name);
	return NULL;
}

int main(int argc, char **argv)
{
	unsigned long count = victim_number(argc, argv, 1, sizeof(kinds) / sizeof(kinds[0]));
	sigset_t set;

	victim_init();
	if (count > THREADS_MAX)
		return 2;
	/* System V objects outlive us unless their namespace is our own: do without the last two.
	 */
	if (unshare(CLONE_NEWIPC) < 0)
		kind_count -= 2;
	/* sigtimedwait() wants its signal blocked everywhere. */
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	for (unsigned long i = 0; i < count; i++) {
		pthread_t thread;
		pthread_attr_t attributes;

		pthread_attr_init(&attributes);
		pthread_attr_setstacksize(&attributes, 256 << 10);
		check_that(pthread_create(&thread, &attributes, thread_main, (void *)i) == 0,
			   "pthread_create");
		pthread_attr_destroy(&attributes);
	}
	while (begun < count)
		usleep(1000);
	for (unsigned long i = 0; i < count; i++)
		await_sleep(tids[i]);
	victim_ready();
	victim_serve(NULL);
	return 0;
}
