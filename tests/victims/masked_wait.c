/*
 * A thread waits by epoll_pwait(2), which alone lets SIGUSR1 in; the main thread sends it one after
 * the other, each when the one before has ended a wait. WRONG: one ran its handler, and the wait
 * went on.
 *
 * variants: 32
 */
#include <pthread.h>
#include <signal.h>
#include <sys/epoll.h>

#include "victim.h"

#define PATIENCE_US 5000000

static volatile sig_atomic_t handled;
static atomic_ulong ended;

static void on_signal(int signal)
{
	handled = 1;
}

static void *wait_for_signals(void *unused)
{
	int epoll = epoll_create1(EPOLL_CLOEXEC);
	struct epoll_event event;
	sigset_t none;

	sigemptyset(&none);
	for (;;) {
		if (epoll_pwait(epoll, &event, 1, -1, &none) >= 0 || errno != EINTR || !handled)
			continue;
		handled = 0;
		ended++;
	}
	return NULL;
}

static void *send_signals(void *waiter)
{
	for (;;) {
		unsigned long before = ended;
		unsigned waited = 0;

		pthread_kill(*(pthread_t *)waiter, SIGUSR1);
		while (ended == before && waited++ < PATIENCE_US / 50)
			usleep(50);
		if (ended == before)
			say("WRONG a signal did not end the wait");
		victim_progress++;
	}
	return NULL;
}

static bool command(const char *line)
{
	return false;
}

int main(void)
{
	struct sigaction action = { .sa_handler = on_signal };
	static pthread_t waiter;
	pthread_t sender;
	sigset_t usr1;

	victim_init();
	sigemptyset(&usr1);
	sigaddset(&usr1, SIGUSR1);
	pthread_sigmask(SIG_BLOCK, &usr1, NULL);
	sigaction(SIGUSR1, &action, NULL);
	pthread_create(&waiter, NULL, wait_for_signals, NULL);
	pthread_create(&sender, NULL, send_signals, &waiter);
	victim_ready();
	victim_serve(command);
}
