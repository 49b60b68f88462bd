#include "memprobe/guard.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "memprobe/log.h"

#define WATCHER_STACK (64u << 10)

/* How many threads are in a section, and whether memprobe has been killed: one word, so that the
 * last one out and the watcher agree on who ends the process. It belongs to the process as a whole,
 * as its end does. */
#define ORPHAN 0x40000000
static atomic_int guard_state;

static void end(void)
{
	kill(getpid(), SIGKILL);
	for (;;)
		pause();
}

void guard_enter(void)
{
	if (atomic_fetch_add(&guard_state, 1) == ORPHAN)
		end();
}

void guard_leave(void)
{
	if (atomic_fetch_sub(&guard_state, 1) == ORPHAN + 1)
		end();
}

bool guard_is_orphan(void)
{
	return atomic_load(&guard_state) & ORPHAN;
}

/* ---- the child ---- */

/* Nobody writes: a pipe's other end is closed when the first process ends, however it does. */
static void *watch(void *data)
{
	int life = (int)(intptr_t)data;
	char byte;

	while (read(life, &byte, 1) < 0 && errno == EINTR)
		;
	if (atomic_fetch_or(&guard_state, ORPHAN) == 0)
		end();
	return NULL;
}

static void start_watcher(int life)
{
	pthread_attr_t attributes;
	pthread_t thread;
	sigset_t all, before;

	/* Signals are for the threads that wait for them. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	pthread_attr_init(&attributes);
	pthread_attr_setstacksize(&attributes, WATCHER_STACK);
	pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
	if (pthread_create(&thread, &attributes, watch, (void *)(intptr_t)life))
		_exit(1);
	pthread_attr_destroy(&attributes);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
}

/* ---- the process that stays behind ---- */

static _Noreturn void end_as(int status)
{
	sigset_t set;
	int signal_number = WTERMSIG(status);

	if (WIFEXITED(status))
		_exit(WEXITSTATUS(status));
	signal(signal_number, SIG_DFL);
	sigemptyset(&set);
	sigaddset(&set, signal_number);
	sigprocmask(SIG_UNBLOCK, &set, NULL);
	raise(signal_number);
	_exit(128 + signal_number);
}

/* As if it had not been blocked: it stops or ends this process, or does nothing. The child may have
 * a target in its hands, which it lets go of before it ends, too. */
static void take(int signal_number)
{
	sigset_t set, before;

	sigemptyset(&set);
	sigaddset(&set, signal_number);
	raise(signal_number);
	sigprocmask(SIG_UNBLOCK, &set, &before);
	sigprocmask(SIG_SETMASK, &before, NULL);
}

/* What the child has a handler for is for the child. */
static void hand_on(pid_t child, int signal_number)
{
	struct sigaction action;

	if (sigaction(signal_number, NULL, &action) < 0 || action.sa_handler == SIG_IGN)
		return;
	if (action.sa_handler == SIG_DFL)
		take(signal_number);
	else
		kill(child, signal_number);
}

/* All signals are blocked. */
static _Noreturn void stay_behind(pid_t child)
{
	const struct timespec second = { 1, 0 };
	sigset_t all;

	sigfillset(&all);
	for (;;) {
		int signal_number = sigtimedwait(&all, NULL, &second), status;

		if (waitpid(child, &status, WNOHANG) == child)
			end_as(status);
		if (signal_number > 0 && signal_number != SIGCHLD)
			hand_on(child, signal_number);
	}
}

void guard_begin(void)
{
	sigset_t all, before;
	int life[2];
	pid_t child;

	if (pipe2(life, O_CLOEXEC) < 0)
		return;
	fflush(NULL);
	/* Whoever started us may ignore it, and then there is nothing to wait for. */
	signal(SIGCHLD, SIG_DFL);
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, &before);
	child = fork();
	if (child > 0) {
		close(life[0]);
		stay_behind(child);
	}
	close(life[1]);
	if (child == 0) {
		/* What is sent to all of a terminal or of a job is handed on, and comes once. */
		setpgid(0, 0);
		signal(SIGTTOU, SIG_IGN);
		start_watcher(life[0]);
	} else {
		close(life[0]);
		log_debug("no child can be made to finish what a SIGKILL would interrupt");
	}
	sigprocmask(SIG_SETMASK, &before, NULL);
}
