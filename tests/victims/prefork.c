/*
 * A server that forks workers: `child`, `orphan` (adopted by init), `nobody` (of another user), and
 * `strict` (in seccomp's strict mode) each make one that allocates for ever, or waits: `made PID`.
 * `work`: whether each that allocates still does: `working COUNT`.
 */
#include "victim.h"

#include <errno.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MOST = 32 };

static volatile unsigned long *counters;
static unsigned workers;
static pid_t server;
static int lifeline[2]; /* ends with the server */

__attribute__((noinline, noreturn)) static void work(unsigned which)
{
	while (!kill(server, 0) || errno != ESRCH) {
		char *block = malloc(100 + which);

		memset(block, 1, 100);
		free(block);
		counters[which]++;
		usleep(200);
	}
	_exit(0);
}

__attribute__((noreturn)) static void be(const char *kind)
{
	char byte;

	close(lifeline[1]);
	if (!strcmp(kind, "nobody") && setuid(65534))
		_exit(1);
	if (strcmp(kind, "strict") != 0)
		work(workers);
	if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT))
		_exit(1);
	syscall(SYS_read, lifeline[0], &byte, 1);
	syscall(SYS_exit, 0);
	__builtin_unreachable();
}

static bool make(const char *kind)
{
	int ends[2];
	pid_t pid, made = 0;

	check_that(!pipe(ends), "pipe");
	pid = fork();
	if (!pid) {
		if (!strcmp(kind, "orphan")) {
			setsid();
			if (fork())
				_exit(0);
		}
		made = getpid();
		if (write(ends[1], &made, sizeof(made)) != sizeof(made))
			_exit(1);
		be(kind);
	}
	check_that(pid > 0 && read(ends[0], &made, sizeof(made)) == sizeof(made), "fork");
	close(ends[0]);
	close(ends[1]);
	if (!strcmp(kind, "orphan"))
		check_that(waitpid(pid, NULL, 0) == pid, "waitpid");
	workers += strcmp(kind, "strict") != 0;
	say("made %d", (int)made);
	return true;
}

static bool command(const char *line)
{
	unsigned working = 0;

	if (strcmp(line, "work") != 0)
		return workers < MOST && make(line);
	for (unsigned i = 0; i < workers; i++) {
		unsigned long before = counters[i];

		for (unsigned n = 0; n < 3000 && counters[i] == before; n++)
			usleep(10000);
		working += counters[i] != before;
	}
	say("working %u", working);
	return true;
}

int main(void)
{
	counters = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	check_that(counters != MAP_FAILED, "mmap");
	check_that(!pipe(lifeline), "pipe");
	server = getpid();
	victim_init();
	victim_ready();
	victim_serve(command);
	return 0;
}
