#include "memprobe/kernel_log.h"

#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <string.h>
#include <sys/wait.h>

#include "memprobe/cleanup.h"

#define PIECE (256U << 10)

extern char **environ;

static struct error *read_all(int fd, const char *name, kernel_log_sink *sink, void *data)
{
	cleanup(free) char *bytes = malloc(PIECE);

	if (!bytes)
		return &error_no_memory;
	for (;;) {
		ssize_t got = read(fd, bytes, PIECE);
		struct error *error;

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return error_errno(ERROR_FAILED, errno, "cannot read %s", name);
		if (got == 0)
			return NULL;
		error = sink(data, bytes, (size_t)got);
		if (error)
			return error;
	}
}

struct error *kernel_log_read_file(const char *path, kernel_log_sink *sink, void *data)
{
	cleanup(close) int fd = -1;

	if (!strcmp(path, "-"))
		return read_all(STDIN_FILENO, "standard input", sink, data);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return error_errno(errno == EACCES ? ERROR_PERMISSION : ERROR_FAILED, errno,
				   "cannot open %s", path);
	return read_all(fd, path, sink, data);
}

/* ---- this machine ---- */

/* A read gives one message; lines after its first are what it is about (`SUBSYSTEM=pci`). */
struct error *kernel_log_read_kmsg(kernel_log_sink *sink, void *data)
{
	cleanup(close) int fd = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	char message[16 << 10];

	if (fd < 0 && (errno == EPERM || errno == EACCES))
		return error_errno(ERROR_PERMISSION, errno, "cannot open /dev/kmsg");
	if (fd < 0)
		return error_errno(ERROR_UNSUPPORTED, errno, "cannot open /dev/kmsg");
	for (;;) {
		ssize_t got = read(fd, message, sizeof(message));
		const char *end;
		struct error *error;

		/* EPIPE: messages were overwritten before they were read; it goes on behind them.
		 */
		if (got < 0 && (errno == EINTR || errno == EPIPE))
			continue;
		if (got == 0 || (got < 0 && errno == EAGAIN))
			return NULL;
		if (got < 0)
			return error_errno(errno == EPERM ? ERROR_PERMISSION : ERROR_FAILED, errno,
					   "cannot read /dev/kmsg");
		end = memchr(message, '\n', (size_t)got);
		error = sink(data, message, end ? (size_t)(end + 1 - message) : (size_t)got);
		if (error)
			return error;
	}
}

/* Its standard output is @fd; it says nothing else. */
static int spawn_journalctl(int fd, pid_t *ret)
{
	char *arguments[] = { "journalctl", "-k", "-q", "--no-pager", "-o", "short-iso", NULL };
	posix_spawn_file_actions_t actions;
	int errnum = posix_spawn_file_actions_init(&actions);

	if (errnum)
		return errnum;
	errnum = posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
	if (!errnum)
		errnum = posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null",
							  O_WRONLY, 0);
	if (!errnum)
		errnum = posix_spawn_file_actions_adddup2(&actions, fd, STDOUT_FILENO);
	if (!errnum)
		errnum = posix_spawnp(ret, arguments[0], &actions, NULL, arguments, environ);
	posix_spawn_file_actions_destroy(&actions);
	return errnum;
}

struct error *kernel_log_read_journal(kernel_log_sink *sink, void *data)
{
	cleanup(close) int from = -1;
	cleanup(close) int to = -1;
	int ends[2], errnum, status = 0;
	struct error *error;
	pid_t pid;

	if (pipe2(ends, O_CLOEXEC))
		return error_errno(ERROR_FAILED, errno, "cannot make a pipe");
	from = ends[0];
	to = ends[1];
	errnum = spawn_journalctl(to, &pid);
	if (errnum)
		return error_errno(ERROR_UNSUPPORTED, errnum, "cannot run journalctl");
	close(take_fd(&to));
	error = read_all(from, "journalctl's output", sink, data);
	/* If that ended early, a write that fails ends it. */
	close(take_fd(&from));
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (error || (WIFEXITED(status) && !WEXITSTATUS(status)))
		return error;
	return error_create(ERROR_UNSUPPORTED, "journalctl failed");
}
