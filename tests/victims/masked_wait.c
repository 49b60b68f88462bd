/*
 * The main thread waits by epoll_pwait(2), which alone lets SIGUSR1 in; another one sends it, each
 * when the one before has ended a wait. WRONG: one ran its handler, and the wait went on.
 *
 * variants: 32
 */
#include <pthread.h>
#include <signal.h>
#include <sys/epoll.h>

#include "victim.h"

#define PATIENCE_US 60000000

static volatile sig_atomic_t handled;
static atomic_ulong ended;

static void on_signal(int signal)
{
	handled = 1;
}

static void wait_for_signals(void)
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

static void *serve(void *unused)
{
	victim_serve(command);
	exit(0);
}

int main(void)
{
	struct sigaction action = { .sa_handler = on_signal };
	static pthread_t waiter;
	pthread_t sender, server;
	sigset_t usr1;

	victim_init();
	sigemptyset(&usr1);
	sigaddset(&usr1, SIGUSR1);
	pthread_sigmask(SIG_BLOCK, &usr1, NULL);
	sigaction(SIGUSR1, &action, NULL);
	waiter = pthread_self();
	pthread_create(&sender, NULL, send_signals, &waiter);
	pthread_create(&server, NULL, serve, NULL);
	victim_ready();
	wait_for_signals();
}
