/*
 * Allocates through a library that comes and goes: `load`, `call` (`called`: what libz allocates
 * for three streams stays), `unload`; `fork` (`forked STATUS`: of a child that allocates and
 * exits); `jump` (`jumped`: signal handlers that leave by siglongjmp, between calls of malloc).
 */
#include "victim.h"

#include <dlfcn.h>
#include <setjmp.h>
#include <sys/time.h>
#include <sys/wait.h>

static void *library;
static sigjmp_buf back;
static volatile sig_atomic_t may_jump;

/* deflateInit_ fills in a z_stream of 112 bytes. */
static bool call(void)
{
	int (*init)(void *stream, int level, const char *version, int size);
	static char streams[3][112];

	*(void **)&init = library ? dlsym(library, "deflateInit_") : NULL;
	for (unsigned i = 0; init && i < 3; i++)
		if (init(streams[i], 6, "1", sizeof(streams[i])))
			return false;
	return init;
}

static void fork_child(void)
{
	int status = -1;
	pid_t child = fork();

	if (child == 0) {
		for (unsigned i = 0; i < 100000; i++)
			free(realloc(malloc(i % 500), i % 3000));
		_exit(7);
	}
	check_that(waitpid(child, &status, 0) == child, "waitpid");
	say("forked %d", WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status));
}

static void on_alarm(int signal)
{
	if (may_jump)
		siglongjmp(back, 1);
}

static void jump(void)
{
	struct itimerval often = { { 0, 500 }, { 0, 500 } }, never = { { 0 }, { 0 } };
	static volatile unsigned jumps;
	static void *volatile held;

	jumps = 0;
	signal(SIGALRM, on_alarm);
	sigsetjmp(back, 1);
	if (jumps++ == 0)
		setitimer(ITIMER_REAL, &often, NULL);
	while (jumps < 200) {
		may_jump = 1;
		/* Never in malloc: the program would be wrong by itself. */
		for (volatile unsigned i = 0; i < 1000; i++)
			;
		may_jump = 0;
		held = malloc(100);
		free(held);
	}
	may_jump = 0;
	setitimer(ITIMER_REAL, &never, NULL);
	say("jumped");
}

static bool command(const char *line)
{
	if (!strcmp(line, "load")) {
		library = dlopen("libz.so.1", RTLD_NOW);
		check_that(library, "dlopen");
		say("loaded");
	} else if (!strcmp(line, "unload")) {
		check_that(!dlclose(library), "dlclose");
		library = NULL;
		say("unloaded");
	} else if (!strcmp(line, "call")) {
		check_that(call(), "deflateInit_");
		say("called");
	} else if (!strcmp(line, "fork")) {
		fork_child();
	} else if (!strcmp(line, "jump")) {
		jump();
	} else {
		return false;
	}
	return true;
}

int main(void)
{
	victim_init();
	victim_ready();
	victim_serve(command);
	return 0;
}
