/*
 * Does on command what pulls the ground from under a tracer: `exec` (itself, `ready` again), `fork`
 * (`child PID`, which pauses), `thread` (`thread TID`, which pauses), `thread-exit` (the thread
 * made last ends), `leader-exit` (the main thread ends, another one takes the commands), `stop`
 * (SIGSTOP to itself), `zombie` (`zombie PID`: a child that has exited and is not reaped), `exit`.
 *
 * `exec_fork_exit churn`: without commands, forks, runs short threads, and execs itself every 50
 * rounds, for ever.
 *
 * variants: 32 static
 */
#include "victim.h"

#include <pthread.h>
#include <semaphore.h>
#include <sys/wait.h>

static char **arguments;
static sem_t end_of_thread;

static void exec_again(void)
{
	char path[4096];
	ssize_t length = readlink("/proc/self/exe", path, sizeof(path) - 1);

	path[length > 0 ? length : 0] = '\0';
	execv(path, arguments);
	say("WRONG exec: %s", strerror(errno));
}

static pid_t fork_child(bool exits)
{
	pid_t pid = fork();

	check_that(pid >= 0, "fork");
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		while (!exits)
			pause();
		_exit(0);
	}
	return pid;
}

static void *thread_main(void *data)
{
	say("thread %d", victim_tid());
	while (sem_wait(&end_of_thread) < 0)
		say("WRONG sem_wait: %s", strerror(errno));
	return NULL;
}

static void *brief_thread(void *data)
{
	return data;
}

static void start_thread(void *(*function)(void *), pthread_t *ret)
{
	check_that(pthread_create(ret, NULL, function, NULL) == 0, "pthread_create");
}

static bool command(const char *line);

static void *serve_on(void *data)
{
	say("thread %d", victim_tid());
	victim_serve(command);
	exit(0);
}

static bool command(const char *line)
{
	pthread_t thread;

	if (!strcmp(line, "exec")) {
		exec_again();
	} else if (!strcmp(line, "fork")) {
		say("child %d", fork_child(false));
	} else if (!strcmp(line, "zombie")) {
		pid_t pid = fork_child(true);

		check_that(waitid(P_PID, pid, NULL, WEXITED | WNOWAIT) == 0, "waitid");
		say("zombie %d", pid);
	} else if (!strcmp(line, "thread")) {
		start_thread(thread_main, &thread);
		pthread_detach(thread);
	} else if (!strcmp(line, "thread-exit")) {
		sem_post(&end_of_thread);
		say("thread-exit");
	} else if (!strcmp(line, "leader-exit")) {
		start_thread(serve_on, &thread);
		pthread_exit(NULL);
	} else if (!strcmp(line, "stop")) {
		say("stop");
		raise(SIGSTOP);
	} else {
		return false;
	}
	return true;
}

static void churn(void)
{
	for (int round = 0; round < 50; round++) {
		pid_t pid = fork_child(true);
		pthread_t thread;
		int status;

		start_thread(brief_thread, &thread);
		check_that(pthread_join(thread, NULL) == 0, "pthread_join");
		check_that(waitpid(pid, &status, 0) == pid && WIFEXITED(status), "waitpid");
		usleep(500);
	}
	exec_again();
}

int main(int argc, char **argv)
{
	arguments = argv;
	victim_init();
	sem_init(&end_of_thread, 0, 0);
	victim_ready();
	if (argc > 1 && !strcmp(argv[1], "churn"))
		churn();
	victim_serve(command);
	return 0;
}
