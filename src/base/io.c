#include "memprobe/io.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

struct error *read_file_at(int dirfd, const char *path, char **text_ret, size_t *size_ret)
{
	cleanup(close) int fd = openat(dirfd, path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return error_errno(ERROR_FAILED, errno, "cannot open %s", path);
	return read_fd(fd, path, text_ret, size_ret);
}

struct error *read_fd(int fd, const char *name, char **text_ret, size_t *size_ret)
{
	cleanup(free) char *text = NULL;
	size_t size = 0, capacity = 4096;

	for (;;) {
		char *larger;
		ssize_t got;

		if (!text || capacity - size < 4096) {
			capacity *= 2;
			larger = realloc(text, capacity);
			if (!larger)
				return &error_no_memory;
			text = larger;
		}
		got = read(fd, text + size, capacity - size - 1);
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return error_errno(ERROR_FAILED, errno, "cannot read %s", name);
		if (got == 0)
			break;
		size += got;
	}
	text[size] = '\0';
	*text_ret = take_pointer(text);
	if (size_ret)
		*size_ret = size;
	return NULL;
}

struct error *write_all(int fd, const void *bytes, size_t size, const char *name)
{
	while (size) {
		ssize_t written = write(fd, bytes, size);

		/* Only by the signal that is to end it, see cmd/interrupt.c. */
		if (written < 0 && errno == EINTR)
			return error_create(ERROR_INTERRUPTED, "interrupted");
		if (written <= 0)
			return error_errno(ERROR_FAILED, written ? errno : ENOSPC,
					   "cannot write %s", name);
		bytes = (const char *)bytes + written;
		size -= written;
	}
	return NULL;
}

struct output {
	int fd;
	bool regular;
	char *name;	 /* as the user wrote it */
	char *final;	 /* where it is renamed to; NULL: written directly */
	char *temporary; /* beside @final */
};

static void output_free(struct output *output)
{
	if (output->fd > STDERR_FILENO)
		close(output->fd);
	free(output->name);
	free(output->final);
	free(output->temporary);
	free(output);
}

static struct error *open_beside(struct output *output, const char *path)
{
	/* A symbolic link keeps its place: its goal is replaced. */
	output->final = realpath(path, NULL);
	if (!output->final)
		output->final = strdup(path);
	if (!output->final || asprintf(&output->temporary, "%s.XXXXXX", output->final) < 0) {
		output->temporary = NULL;
		return &error_no_memory;
	}
	output->fd = mkostemp(output->temporary, O_CLOEXEC); /* mode 0600 */
	if (output->fd < 0) {
		int errnum = errno;

		free(output->temporary);
		output->temporary = NULL;
		return error_errno(ERROR_FAILED, errnum, "cannot create %s", path);
	}
	output->regular = true;
	return NULL;
}

static struct error *open_in_place(struct output *output, const char *path)
{
	output->fd = open(path, O_WRONLY | O_CLOEXEC);
	if (output->fd < 0)
		return error_errno(ERROR_FAILED, errno, "cannot open %s", path);
	return NULL;
}

struct error *output_open(const char *path, struct output **ret)
{
	struct output *output = calloc(1, sizeof(*output));
	struct error *error = NULL;
	struct stat status;

	if (!output)
		return &error_no_memory;
	output->fd = -1;
	output->name = strdup(strcmp(path, "-") ? path : "standard output");
	if (!output->name)
		error = &error_no_memory;
	else if (!strcmp(path, "-"))
		output->fd = STDOUT_FILENO;
	else if (stat(path, &status) == 0 && S_ISDIR(status.st_mode))
		error = error_errno(ERROR_FAILED, EISDIR, "cannot write %s", path);
	else if (stat(path, &status) == 0 && !S_ISREG(status.st_mode))
		error = open_in_place(output, path);
	else
		error = open_beside(output, path);
	if (error) {
		output_free(output);
		return error;
	}
	*ret = output;
	return NULL;
}

struct error *output_check(const char *path)
{
	struct output *output;
	struct stat status;
	struct error *error;

	/* To open these is to be seen, or to wait for a reader. */
	if (!strcmp(path, "-") ||
	    (stat(path, &status) == 0 && !S_ISREG(status.st_mode) && !S_ISDIR(status.st_mode)))
		return NULL;
	error = output_open(path, &output);
	if (!error)
		output_abort(output);
	return error;
}

int output_fd(const struct output *output)
{
	return output->fd;
}

const char *output_name(const struct output *output)
{
	return output->name;
}

bool output_is_regular(const struct output *output)
{
	return output->regular;
}

struct error *output_commit(struct output *output)
{
	struct error *error = NULL;

	if (output->temporary) {
		/* close() reports what a network file system could not store. */
		if (close(output->fd) < 0)
			error = error_errno(ERROR_FAILED, errno, "cannot write %s", output->name);
		output->fd = -1;
		if (!error && rename(output->temporary, output->final) < 0)
			error = error_errno(ERROR_FAILED, errno, "cannot create %s", output->name);
		if (error)
			unlink(output->temporary);
	}
	output_free(output);
	return error;
}

void output_abort(struct output *output)
{
	if (!output)
		return;
	if (output->temporary)
		unlink(output->temporary);
	output_free(output);
}
