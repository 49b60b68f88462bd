/*
 * The parent of a vfork(): it sleeps uninterruptibly until the child, who shares its memory, has
 * read a line. Then it serves like others. With an argument there is another thread, too.
 *
 * variants: 32
 */
#include "victim.h"

#include <pthread.h>
#include <sys/wait.h>

static void *wait_for_ever(void *data)
{
	for (;;)
		pause();
	return data;
}

int main(int argc, char **argv)
{
	void *volatile block = malloc(1000);
	int status = 0;
	pthread_t thread;
	pid_t child;

	victim_init();
	if (argc > 1 && pthread_create(&thread, NULL, wait_for_ever, NULL))
		return 1;
	check_that(block != NULL, "malloc");
	victim_ready();
	child = vfork();
	if (!child) {
		char byte = 0;

		while (byte != '\n' && read(STDIN_FILENO, &byte, 1) == 1)
			;
		_exit(7);
	}
	check_that(waitpid(child, &status, 0) == child && WEXITSTATUS(status) == 7, "waitpid");
	say("vfork over");
	victim_serve(NULL);
	return 0;
}
