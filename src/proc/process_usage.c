#include "memprobe/process_usage.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "memprobe/io.h"
#include "memprobe/num.h"

#define TEXT_MAX 4096u

/* A file of at most @size - 1 bytes, which is enough of all that is read here. -1: errno. */
static ssize_t read_text(int dirfd, const char *name, char *text, size_t size)
{
	int fd = openat(dirfd, name, O_RDONLY | O_CLOEXEC);
	ssize_t length = fd < 0 ? -1 : 0, part = 1;
	int errnum;

	while (fd >= 0 && part > 0 && (size_t)length + 1 < size) {
		part = read(fd, text + length, size - 1 - length);
		length = part < 0 ? -1 : length + part;
	}
	errnum = errno;
	if (fd >= 0)
		close(fd);
	errno = errnum;
	if (length >= 0)
		text[length] = '\0';
	return length;
}

/* The number behind @key, which begins a line. */
static uint64_t value_of(const char *text, const char *key)
{
	size_t length = strlen(key);

	for (const char *line = text; line && *line;) {
		if (!strncmp(line, key, length))
			return strtoull(line + length, NULL, 10);
		line = strchr(line, '\n');
		line = line ? line + 1 : NULL;
	}
	return USAGE_UNKNOWN;
}

static uint64_t kib_of(const char *text, const char *key)
{
	uint64_t value = value_of(text, key);

	return value == USAGE_UNKNOWN || value > UINT64_MAX / 1024 ? USAGE_UNKNOWN : value * 1024;
}

static struct error *ended(void)
{
	return error_create(ERROR_NO_TARGET, "the process has ended");
}

/* proc_pid_stat(5): numbers from the third field on, behind the name's last parenthesis. */
static struct error *parse_stat(const char *text, struct usage *ret)
{
	enum { MINOR = 10, MAJOR = 12, USER = 14, SYSTEM, THREADS = 20, START = 22, SIZE, RSS };
	const uint64_t tick = 1000000u / (uint64_t)sysconf(_SC_CLK_TCK);
	const char *name = strchr(text, '('), *at = strrchr(text, ')');
	uint64_t fields[RSS + 1] = { 0 };
	bool is_over;

	if (!name || !at || at < name || at[1] != ' ')
		return error_create(ERROR_FAILED, "/proc/PID/stat makes no sense");
	snprintf(ret->name, sizeof(ret->name), "%.*s", (int)(at - name - 1), name + 1);
	is_over = at[2] == 'Z' || at[2] == 'X';
	at += 3;
	for (unsigned i = 4; i <= RSS; i++) {
		char *end;

		fields[i] = strtoull(at, &end, 10);
		if (end == at)
			return error_create(ERROR_FAILED, "/proc/PID/stat makes no sense");
		at = end;
	}
	/* The first thread may have ended before others. */
	if (is_over && fields[THREADS] <= 1)
		return ended();
	ret->minor_faults = fields[MINOR];
	ret->major_faults = fields[MAJOR];
	ret->cpu_us = (fields[USER] + fields[SYSTEM]) * tick;
	ret->threads = fields[THREADS];
	ret->start = fields[START];
	ret->size = fields[SIZE];
	ret->rss = fields[RSS] * (uint64_t)sysconf(_SC_PAGESIZE);
	return NULL;
}

static struct error *read_stat(int dirfd, struct usage *ret)
{
	char text[TEXT_MAX];

	return read_text(dirfd, "stat", text, sizeof(text)) <= 0 ? ended() : parse_stat(text, ret);
}

static struct error *read_status(int dirfd, struct usage *ret)
{
	char text[TEXT_MAX];

	if (read_text(dirfd, "status", text, sizeof(text)) <= 0)
		return ended();
	ret->rss = kib_of(text, "VmRSS:");
	ret->peak_rss = kib_of(text, "VmHWM:");
	ret->anon = kib_of(text, "RssAnon:");
	ret->file = kib_of(text, "RssFile:");
	ret->shmem = kib_of(text, "RssShmem:");
	ret->swap = kib_of(text, "VmSwap:");
	ret->page_tables = kib_of(text, "VmPTE:");
	return NULL;
}

static void read_io(int dirfd, struct usage *ret)
{
	char text[TEXT_MAX];

	if (read_text(dirfd, "io", text, sizeof(text)) <= 0)
		return;
	ret->read_chars = value_of(text, "rchar:");
	ret->written_chars = value_of(text, "wchar:");
}

static void count_fds(int dirfd, struct usage *ret)
{
	int fd = openat(dirfd, "fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *folder = fd < 0 ? NULL : fdopendir(fd);
	uint64_t count = 0;

	if (!folder && fd >= 0)
		close(fd);
	if (!folder)
		return;
	for (struct dirent *entry; (entry = readdir(folder));)
		count += entry->d_name[0] != '.';
	closedir(folder);
	ret->fds = count;
}

static void read_pss(int dirfd, struct usage *ret)
{
	char text[TEXT_MAX];

	if (read_text(dirfd, "smaps_rollup", text, sizeof(text)) > 0)
		ret->pss = kib_of(text, "Pss:");
}

struct error *usage_read(int dirfd, unsigned parts, struct usage *ret)
{
	struct error *error = NULL;

	memset(ret, 0xff, sizeof(*ret));
	ret->name[0] = '\0';
	if (parts & USAGE_STAT)
		error = read_stat(dirfd, ret);
	if (!error && parts & USAGE_STATUS)
		error = read_status(dirfd, ret);
	if (error)
		return error;
	if (parts & USAGE_IO)
		read_io(dirfd, ret);
	if (parts & USAGE_FDS)
		count_fds(dirfd, ret);
	if (parts & USAGE_PSS)
		read_pss(dirfd, ret);
	return NULL;
}

struct error *usage_read_stat(int proc, const char *pid, struct usage *ret)
{
	char path[32], text[TEXT_MAX];
	ssize_t length = -1;
	int fd;

	memset(ret, 0xff, sizeof(*ret));
	ret->name[0] = '\0';
	snprintf(path, sizeof(path), "%.10s/stat", pid);
	fd = openat(proc, path, O_RDONLY | O_CLOEXEC);
	/* It is shorter than this, and comes at once. */
	if (fd >= 0)
		length = read(fd, text, sizeof(text) - 1);
	if (fd >= 0)
		close(fd);
	if (length <= 0)
		return ended();
	text[length] = '\0';
	return parse_stat(text, ret);
}
