#include "watch_trigger.h"

#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "memprobe/clock.h"
#include "memprobe/cmd.h"
#include "memprobe/log.h"
#include "memprobe/num.h"

/* Growth is a change over this time, unless the condition names another. */
#define GROWTH_SECONDS 10.0
/* How often is looked whether a command has ended. */
#define LOOK_US 20000u

static double number(uint64_t figure)
{
	return figure == USAGE_UNKNOWN ? NAN : (double)figure;
}

static double limit_percent(const struct watch_sample *sample)
{
	if (!sample->has_group || sample->group_limit == CGROUP_UNKNOWN || !sample->group_limit)
		return NAN;
	return 100 * number(sample->group_usage) / (double)sample->group_limit;
}

static double metric_of(const struct watch_condition *condition, const struct watch_series *series)
{
	const struct watch_sample *last = &series->last;
	double seconds = (double)condition->for_us / 1e6;

	switch (condition->metric) {
	case WATCH_RSS:
		return number(last->usage.rss);
	case WATCH_ANON:
		return number(last->usage.anon);
	case WATCH_SWAP:
		return number(last->usage.swap);
	case WATCH_SHMEM:
		return number(last->usage.shmem);
	case WATCH_THREADS:
		return number(last->usage.threads);
	case WATCH_FDS:
		return number(last->usage.fds);
	case WATCH_GROWTH:
		return watch_series_growth(series, seconds > 0 ? seconds : GROWTH_SECONDS);
	case WATCH_LIMIT:
		return limit_percent(last);
	}
	return NAN;
}

static char *fill(const struct watch_trigger *trigger, const struct watch_sample *sample)
{
	time_t now = (time_t)sample->time;
	char text[32] = "";
	struct tm local;

	if (localtime_r(&now, &local))
		strftime(text, sizeof(text), "%Y%m%d-%H%M%S", &local);
	return watch_command_fill(trigger->command, sample->pid, sample->usage.name, text);
}

/* In a new session, so that Ctrl-C does not end it. What it prints goes to stderr. */
static void start(const struct watch_trigger *trigger, const struct watch_sample *sample)
{
	cleanup(free) char *command = fill(trigger, sample);
	pid_t child;

	if (!command)
		return;
	log_warn("the condition holds for %d: running %s", sample->pid, command);
	child = fork();
	if (child == 0) {
		const struct sigaction usual = { .sa_handler = SIG_DFL };

		setsid();
		sigaction(SIGPIPE, &usual, NULL);
		sigaction(SIGXFSZ, &usual, NULL);
		dup2(STDERR_FILENO, STDOUT_FILENO);
		execl("/bin/sh", "sh", "-c", command, (char *)NULL);
		_exit(127);
	}
	if (child < 0)
		log_warn("cannot start it: %s", strerror(errno));
}

void watch_trigger_look(const struct watch_trigger *trigger, const struct watch_series *series,
			struct watch_trigger_state *state)
{
	double now = series->last.seconds;
	bool holds;

	if (!trigger->command)
		return;
	holds = watch_condition_holds(&trigger->condition, metric_of(&trigger->condition, series));
	if (holds && !state->holds)
		state->since = now;
	state->holds = holds;
	/* A rate is one of so long a time anyhow. */
	if (!holds || (trigger->condition.metric != WATCH_GROWTH &&
		       now - state->since < (double)trigger->condition.for_us / 1e6))
		return;
	if (state->has_run &&
	    (!trigger->every_us || now - state->last < (double)trigger->every_us / 1e6))
		return;
	state->has_run = true;
	state->last = now;
	start(trigger, &series->last);
}

static void say_status(int status)
{
	if (WIFEXITED(status) && !WEXITSTATUS(status))
		log_debug("the command has ended");
	else if (WIFEXITED(status))
		log_warn("the command ended with exit status %d", WEXITSTATUS(status));
	else if (WIFSIGNALED(status))
		log_warn("the command was ended by signal %d", WTERMSIG(status));
}

void watch_trigger_reap(bool wait)
{
	/* Ctrl-C is not to wait for it. */
	for (;;) {
		int status;
		pid_t child = waitpid(-1, &status, WNOHANG);

		if (child > 0)
			say_status(status);
		else if (child < 0 || !wait || !command_sleep_until(clock_us() + LOOK_US))
			return;
	}
}
