#include "interrupt.h"

#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include "memprobe/cmd.h"
#include "poke.h"

static volatile sig_atomic_t interrupted;

/* What a signal handler must know: whether the command is a recording, which writes what it has;
 * whether an output is being written; and the target, which must be as it was. */
static bool interrupt_ends_recording;
static volatile sig_atomic_t is_writing, is_done;
static struct target *interrupt_target;

/* A command that has been told to end and works on something that does not look for it. */
#define LAST_US 200000
#define NEXT_US 20000

static void arm(suseconds_t us)
{
	const struct itimerval timer = { .it_value = { 0, us } };

	setitimer(ITIMER_REAL, &timer, NULL);
}

/* Without SA_RESTART: it also ends a write that nobody reads, in whatever thread. */
static void on_alarm(int signal, siginfo_t *info, void *context)
{
	int errnum = errno;

	(void)context;
	if (info->si_code == SI_TKILL || is_done)
		return;
	if (!is_writing && (!interrupt_target || !atomic_load(&interrupt_target->busy)))
		_exit(128 + interrupted);
	poke_threads(signal);
	arm(NEXT_US);
	errno = errnum;
}

static void on_interrupt(int signal)
{
	interrupted = signal;
	if (!interrupt_ends_recording)
		arm(LAST_US);
}

bool interrupt_ends_now(void)
{
	return interrupted && !interrupt_ends_recording && !is_done;
}

void command_written(void)
{
	is_done = true;
}

struct error *interrupt_error(void)
{
	return error_create(ERROR_INTERRUPTED, "interrupted");
}

bool command_interrupted(void)
{
	return interrupted != 0;
}

void command_interrupt_obeyed(void)
{
	interrupted = 0;
}

void interrupt_catch(void)
{
	struct sigaction action = { .sa_handler = on_interrupt, .sa_flags = SA_RESTART }, before;
	const struct sigaction last = { .sa_sigaction = on_alarm, .sa_flags = SA_SIGINFO };

	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
	/* Unless by nohup. */
	if (!sigaction(SIGHUP, NULL, &before) && before.sa_handler != SIG_IGN)
		sigaction(SIGHUP, &action, NULL);
	sigaction(SIGALRM, &last, NULL);
	action.sa_flags = 0;
	/* A closed pipe is a write error, not a death with a target in our hands. */
	action.sa_handler = SIG_IGN;
	sigaction(SIGPIPE, &action, NULL);
	/* So is a file that is to become larger than ulimit -f allows, those in memory included. */
	sigaction(SIGXFSZ, &action, NULL);
}

int interrupt_signal(void)
{
	return interrupted;
}

void interrupt_set_recording(bool is_recording)
{
	interrupt_ends_recording = is_recording;
}

void interrupt_set_target(struct target *target)
{
	interrupt_target = target;
}

void interrupt_set_writing(bool writing)
{
	is_writing = writing;
}

bool interrupt_is_over(void)
{
	return is_done;
}

bool command_sleep_until(uint64_t us)
{
	const struct timespec time = { .tv_sec = (time_t)(us / 1000000),
				       .tv_nsec = (long)(us % 1000000) * 1000 };

	while (!interrupted) {
		int failed = clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &time, NULL);

		if (failed != EINTR)
			return !failed;
	}
	return false;
}
