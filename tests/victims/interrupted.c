/*
 * Waits in one system call, which a signal is to end: SIGTERM while memprobe calls slow(). Its
 * other functions return into the stub late, or are there to be called in a hurry. slow() and
 * deep() say `in slow` and `in deep`, and last until a signal waits for the thread to come out of
 * the stub. SIGUSR1 is such a one and else has no effect, but that its handler says `told`.
 *
 * usage: interrupted pause|poll|epoll|read|nanosleep|none
 * variants: 32
 * cflags: -rdynamic
 */
#include "victim.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>

int slow(void);
int deep(void);
int quick(void);

static volatile sig_atomic_t handled;

static void on_term(int signal)
{
	handled = 1;
}

static void on_alarm(int signal)
{
	volatile char large[60000];
	struct timespec while_in_it = { 0, 3000000 };

	large[0] = large[sizeof(large) - 1] = 1;
	nanosleep(&while_in_it, NULL);
}

static void sleep_ms(long ms)
{
	struct timespec left = { ms / 1000, ms % 1000 * 1000000 };

	while (nanosleep(&left, &left) < 0 && errno == EINTR)
		;
}

static void on_usr1(int signal)
{
	say("told");
}

/* Signals are blocked as long as memprobe's stub calls. */
static void wait_for_signal(void)
{
	const int signals[] = { SIGTERM, SIGUSR1 };
	sigset_t pending;

	for (int i = 0; i < 10000 && !handled; i++) {
		sigpending(&pending);
		for (unsigned k = 0; k < sizeof(signals) / sizeof(signals[0]); k++)
			if (sigismember(&pending, signals[k]))
				return;
		sleep_ms(10);
	}
}

int slow(void)
{
	say("in slow");
	wait_for_signal();
	return 1;
}

/* Its frame is larger than what a quick look at a stack takes in. */
int deep(void)
{
	volatile char large[100000];

	large[0] = large[sizeof(large) - 1] = 1;
	say("in deep");
	wait_for_signal();
	return large[0];
}

int quick(void)
{
	return 7;
}

static long wait_in(const char *call)
{
	struct timespec long_time = { 1000, 0 };
	struct epoll_event event;
	int ends[2];
	char byte;

	if (pipe(ends) < 0)
		return -2;
	if (!strcmp(call, "pause"))
		return pause();
	if (!strcmp(call, "poll"))
		return poll(NULL, 0, -1);
	if (!strcmp(call, "epoll"))
		return epoll_wait(epoll_create1(0), &event, 1, -1);
	if (!strcmp(call, "read"))
		return read(ends[0], &byte, 1);
	if (!strcmp(call, "nanosleep"))
		return nanosleep(&long_time, NULL);
	for (;;)
		sleep_ms(1000);
}

int main(int argc, char **argv)
{
	struct sigaction action = { .sa_handler = on_term };
	long result;

	victim_init();
	sigaction(SIGTERM, &action, NULL);
	action.sa_handler = on_usr1;
	action.sa_flags = SA_RESTART;
	sigaction(SIGUSR1, &action, NULL);
	action.sa_handler = on_alarm;
	sigaction(SIGALRM, &action, NULL);
	victim_ready();
	result = wait_in(argc > 1 ? argv[1] : "none");
	say("ended %ld errno %d handled %d", result, errno, (int)handled);
	for (;;)
		sleep_ms(1000);
}
