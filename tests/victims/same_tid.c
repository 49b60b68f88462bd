/*
 * At `go` it makes threads one after the other, the third of each three with the id that the first
 * one had, while the second is still there. `same N` is how many did get it; `refused`: it may not
 * choose ids. WRONG: one did not come to its end.
 */
#include <fcntl.h>
#include <pthread.h>
#include <time.h>

#include "victim.h"

#define ROUNDS	    200
#define SAME_WANTED 8

static int ends[2];

static void *short_life(void *tid)
{
	*(pid_t *)tid = victim_tid();
	return NULL;
}

static void *until_told(void *unused)
{
	char byte;

	check_that(read(ends[0], &byte, 1) == 1, "read of a pipe");
	return NULL;
}

/* Others may come first. */
static bool choose_next(pid_t tid)
{
	int fd = open("/proc/sys/kernel/ns_last_pid", O_WRONLY | O_CLOEXEC);
	bool chosen = fd >= 0 && dprintf(fd, "%d", (int)tid - 1) > 0;

	if (fd >= 0)
		close(fd);
	return chosen;
}

/* Whether the id came again; -1: there is no choice. */
static int make_three(void)
{
	pthread_t first, second, third;
	pid_t tid = 0, again = 0;
	struct timespec until;
	bool chosen;

	pthread_create(&first, NULL, short_life, &tid);
	pthread_join(first, NULL);
	/* Joined is not yet gone. */
	while (!syscall(SYS_tgkill, getpid(), tid, 0))
		usleep(100);
	pthread_create(&second, NULL, until_told, NULL);
	chosen = choose_next(tid);
	pthread_create(&third, NULL, short_life, &again);
	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += 20;
	errno = pthread_timedjoin_np(third, NULL, &until);
	check_that(!errno, "a thread with an id that was another one's");
	check_that(write(ends[1], "", 1) == 1, "write to a pipe");
	pthread_join(second, NULL);
	return chosen ? again == tid : -1;
}

static bool command(const char *line)
{
	int same = 0;

	if (strcmp(line, "go"))
		return false;
	for (unsigned i = 0; i < ROUNDS && same < SAME_WANTED; i++) {
		int is_same = make_three();

		if (is_same < 0) {
			say("refused");
			break;
		}
		same += is_same;
	}
	say("same %d", same);
	return true;
}

int main(void)
{
	victim_init();
	check_that(pipe(ends) == 0, "pipe");
	victim_ready();
	victim_serve(command);
}
