/*
 * Processes that are hard to look at. `refuse dumpable`: not dumpable. `refuse zombie`: has a
 * zombie as its child (`child PID`). `refuse traced`: has a child and traces it. `refuse leader`:
 * has a child whose main thread has ended while another lives, whose stack is in the midst of a
 * mapping. `refuse execs`: has a child that is stuck in an execve(), to which nobody can attach.
 */
#include "victim.h"

#include <pthread.h>
#include <sys/ptrace.h>
#include <sys/wait.h>

#define STACK_SIZE (1u << 20)

static pid_t child_that(bool exits)
{
	pid_t child = fork();

	if (child == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (exits)
			_exit(0);
		for (;;)
			pause();
	}
	check_that(child > 0, "fork");
	say("child %d", (int)child);
	return child;
}

static void have_zombie(void)
{
	pid_t child = child_that(true);
	siginfo_t info;

	/* Without collecting it. */
	check_that(!waitid(P_PID, (id_t)child, &info, WEXITED | WNOWAIT), "waitid");
}

static void trace_child(void)
{
	pid_t child = child_that(false);

	check_that(!ptrace(PTRACE_SEIZE, child, 0, 0), "ptrace");
}

static void *tell_when_leader_is_gone(void *pipe)
{
	char path[64], line[256] = "";

	snprintf(path, sizeof(path), "/proc/self/task/%d/stat", (int)getpid());
	do {
		FILE *file = fopen(path, "r");

		check_that(file && fgets(line, sizeof(line), file), "stat");
		fclose(file);
	} while (!strstr(line, ") Z "));
	check_that(write(*(int *)pipe, "", 1) == 1, "write");
	for (;;)
		pause();
	return NULL;
}

static void have_leaderless(void)
{
	static int gone[2];
	char *memory = mmap(NULL, 3 * STACK_SIZE, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	pthread_attr_t attributes;
	pthread_t thread;
	pid_t child;
	char byte;

	check_that(memory != MAP_FAILED && !pipe(gone), "mmap, pipe");
	pthread_attr_init(&attributes);
	pthread_attr_setstack(&attributes, memory + STACK_SIZE, STACK_SIZE);
	child = fork();
	if (child == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		check_that(
			!pthread_create(&thread, &attributes, tell_when_leader_is_gone, &gone[1]),
			"pthread_create");
		pthread_exit(NULL);
	}
	check_that(child > 0 && read(gone[0], &byte, 1) == 1, "read");
	say("child %d", (int)child);
}

static void *wait_for_ever(void *pipe)
{
	pid_t tid = victim_tid();

	check_that(write(*(int *)pipe, &tid, sizeof(tid)) == sizeof(tid), "write");
	for (;;)
		pause();
	return NULL;
}

/* execve() first ends the other threads; one of these is held at its end. */
static void have_stuck_exec(void)
{
	int told[2], go[2], status;
	pid_t child, tid = 0;
	pthread_t thread;
	char byte = 0;

	check_that(!pipe(told) && !pipe(go), "pipe");
	child = fork();
	if (child == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		check_that(!pthread_create(&thread, NULL, wait_for_ever, &told[1]), "create");
		if (read(go[0], &byte, 1) == 1)
			execl("/proc/self/exe", "refuse", NULL);
		_exit(1);
	}
	check_that(child > 0 && read(told[0], &tid, sizeof(tid)) == sizeof(tid), "read");
	check_that(!ptrace(PTRACE_SEIZE, tid, 0, PTRACE_O_TRACEEXIT), "ptrace");
	check_that(write(go[1], &byte, 1) == 1, "write");
	check_that(waitpid(tid, &status, __WALL) == tid && status >> 16 == PTRACE_EVENT_EXIT,
		   "waitpid");
	say("child %d", (int)child);
}

int main(int argc, char **argv)
{
	const char *mode = argc > 1 ? argv[1] : "";

	victim_init();
	if (!strcmp(mode, "dumpable"))
		check_that(!prctl(PR_SET_DUMPABLE, 0), "prctl");
	if (!strcmp(mode, "zombie"))
		have_zombie();
	if (!strcmp(mode, "traced"))
		trace_child();
	if (!strcmp(mode, "leader"))
		have_leaderless();
	if (!strcmp(mode, "execs"))
		have_stuck_exec();
	victim_ready();
	victim_serve(NULL);
	return 0;
}
