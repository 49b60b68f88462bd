#include "child.h"

#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

static int ready_pipe[2], data_pipe[2];

pid_t child_start(void (*body)(void *argument), void *argument)
{
	char byte;
	pid_t pid;

	if (data_pipe[0]) {
		close(data_pipe[0]);
		data_pipe[0] = 0;
	}
	if (pipe(ready_pipe) || pipe(data_pipe))
		abort();
	pid = fork();
	if (pid < 0)
		abort();
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		body(argument);
		child_ready();
		for (;;)
			pause();
	}
	close(ready_pipe[1]);
	close(data_pipe[1]);
	/* The end of the pipe is the end of the child: the test will see. */
	if (read(ready_pipe[0], &byte, 1) < 0)
		abort();
	close(ready_pipe[0]);
	return pid;
}

void child_tell(const void *bytes, size_t size)
{
	if (write(data_pipe[1], bytes, size) != (ssize_t)size)
		abort();
}

void child_ready(void)
{
	if (write(ready_pipe[1], "", 1) != 1)
		abort();
}

void child_hear(void *bytes, size_t size)
{
	while (size) {
		ssize_t got = read(data_pipe[0], bytes, size);

		if (got <= 0)
			abort();
		bytes = (char *)bytes + got;
		size -= got;
	}
}

void child_stop(pid_t pid)
{
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}
