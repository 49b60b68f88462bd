/*
 * victim.h - what every victim does: it says `ready PID`, prints its own truth, and checks itself.
 *
 * Truth goes to stdout as lines of `KEY VALUE...`; a line that begins with WRONG says that
 * something harmed the victim, and fails the test. A victim dies with the shell that started it.
 */
#ifndef VICTIM_H
#define VICTIM_H

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifdef __cplusplus
#include <atomic>
using std::atomic_ulong;
#else
#include <stdatomic.h>
#endif

#ifndef PR_SET_PTRACER
#define PR_SET_PTRACER	   0x59616d61
#define PR_SET_PTRACER_ANY ((unsigned long)-1)
#endif

#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102
#endif

/* Rounds of work done, for `ping`: it must go on growing. */
static atomic_ulong victim_progress __attribute__((unused));

/* One line on stdout by one write(), without malloc: also from threads that test malloc. */
__attribute__((format(printf, 1, 2), unused)) static void say(const char *format, ...)
{
	char line[1024];
	va_list args;
	int length;

	va_start(args, format);
	length = vsnprintf(line, sizeof(line) - 1, format, args);
	va_end(args);
	if (length > (int)sizeof(line) - 2)
		length = sizeof(line) - 2;
	line[length++] = '\n';
	if (write(STDOUT_FILENO, line, length) < 0)
		_exit(3);
}

__attribute__((unused)) static void victim_init(void)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	/* Under Yama, memprobe is no ancestor of ours. */
	prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY);
}

/* The main arena has memory: to glibc 2.41 any malloc() sees to it, later ones only a small one. */
__attribute__((unused)) static void have_heap(void)
{
	static void *volatile kept __attribute__((unused));

	kept = malloc(100);
}

/* The last line before the test begins. */
__attribute__((unused)) static void victim_ready(void)
{
	say("ready %d", (int)getpid());
}

__attribute__((unused)) static pid_t victim_tid(void)
{
	return (pid_t)syscall(SYS_gettid);
}

__attribute__((unused)) static void check_that(bool good, const char *what)
{
	if (!good)
		say("WRONG %s: %s", what, strerror(errno));
}

/* No mapping of its own where the kernel can do that (Linux 6.13). */
__attribute__((unused)) static void make_guard(char *start, size_t size)
{
	check_that(!madvise(start, size, MADV_GUARD_INSTALL) || !mprotect(start, size, PROT_NONE),
		   "guard");
}

/* Until the thread @tid sleeps: one that does nothing else before it waits has come to its wait. */
__attribute__((unused)) static void await_sleep(pid_t tid)
{
	char path[64], stat[512];

	snprintf(path, sizeof(path), "/proc/self/task/%d/stat", (int)tid);
	for (;;) {
		int fd = open(path, O_RDONLY | O_CLOEXEC);
		ssize_t got = fd < 0 ? -1 : read(fd, stat, sizeof(stat) - 1);
		const char *name_end;

		if (fd >= 0)
			close(fd);
		if (got <= 0) {
			say("WRONG %s: %s", path, strerror(errno));
			return;
		}
		stat[got] = '\0';
		name_end = strrchr(stat, ')');
		if (name_end && name_end[2] == 'S')
			return;
		usleep(1000);
	}
}

/*
 * The main thread's life: reads commands, a line each, from stdin. `ping` is answered by
 * `pong PROGRESS`, `exit` ends the process; others go to @command (false: unknown). Ends at EOF.
 */
__attribute__((unused)) static void victim_serve(bool (*command)(const char *line))
{
	char line[256];

	for (;;) {
		size_t length = 0;

		for (;;) {
			ssize_t got = read(STDIN_FILENO, line + length, 1);

			if (got < 0)
				say("WRONG read of stdin: %s", strerror(errno));
			if (got <= 0)
				return;
			if (line[length] == '\n' || length == sizeof(line) - 1)
				break;
			length++;
		}
		line[length] = '\0';
		if (!strcmp(line, "ping"))
			say("pong %lu", (unsigned long)victim_progress);
		else if (!strcmp(line, "exit"))
			exit(0);
		else if (!command || !command(line))
			say("WRONG command: %s", line);
	}
}

/* A number of the command line, or @otherwise. */
__attribute__((unused)) static unsigned long victim_number(int argc, char **argv, int index,
							   unsigned long otherwise)
{
	return index < argc ? strtoul(argv[index], NULL, 10) : otherwise;
}

#endif
