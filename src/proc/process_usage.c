#include "memprobe/process_usage.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "proc_text.h"

static uint64_t kib_of(const char *text, const char *key)
{
	uint64_t value = text_number(text, key, USAGE_UNKNOWN);

	return value == USAGE_UNKNOWN || value > UINT64_MAX / 1024 ? USAGE_UNKNOWN : value * 1024;
}

static struct error *ended(void)
{
	return error_create(ERROR_NO_TARGET, "the process has ended");
}

static uint64_t stat_number(const char *text, unsigned number)
{
	const char *field = stat_field(text, number);

	return field ? strtoull(field, NULL, 10) : USAGE_UNKNOWN;
}

/* proc_pid_stat(5). */
static struct error *parse_stat(const char *text, struct usage *ret)
{
	const uint64_t tick = 1000000u / (uint64_t)sysconf(_SC_CLK_TCK);
	const char *name = strchr(text, '('), *end = strrchr(text, ')');
	const char *state = stat_field(text, 3);

	if (!name || !end || end < name || !state || !stat_field(text, 24))
		return error_create(ERROR_FAILED, "/proc/PID/stat makes no sense");
	snprintf(ret->name, sizeof(ret->name), "%.*s", (int)(end - name - 1), name + 1);
	ret->minor_faults = stat_number(text, 10);
	ret->major_faults = stat_number(text, 12);
	ret->cpu_us = (stat_number(text, 14) + stat_number(text, 15)) * tick;
	ret->threads = stat_number(text, 20);
	ret->start = stat_number(text, 22);
	ret->size = stat_number(text, 23);
	ret->rss = stat_number(text, 24) * (uint64_t)sysconf(_SC_PAGESIZE);
	/* The first thread may have ended before others. */
	return (*state == 'Z' || *state == 'X') && ret->threads <= 1 ? ended() : NULL;
}

static struct error *read_stat(int dirfd, const char *path, struct usage *ret)
{
	cleanup(free) char *text = text_of_file(dirfd, path);

	return text ? parse_stat(text, ret) : ended();
}

static struct error *read_status(int dirfd, struct usage *ret)
{
	cleanup(free) char *text = text_of_file(dirfd, "status");

	if (!text)
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
	cleanup(free) char *text = text_of_file(dirfd, "io");

	ret->read_chars = text_number(text, "rchar:", USAGE_UNKNOWN);
	ret->written_chars = text_number(text, "wchar:", USAGE_UNKNOWN);
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
	cleanup(free) char *text = text_of_file(dirfd, "smaps_rollup");

	ret->pss = kib_of(text, "Pss:");
}

static void forget(struct usage *usage)
{
	memset(usage, 0xff, sizeof(*usage));
	usage->name[0] = '\0';
}

struct error *usage_read(int dirfd, unsigned parts, struct usage *ret)
{
	struct error *error = NULL;

	forget(ret);
	if (parts & USAGE_STAT)
		error = read_stat(dirfd, "stat", ret);
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
	char path[32];

	forget(ret);
	snprintf(path, sizeof(path), "%.10s/stat", pid);
	return read_stat(proc, path, ret);
}

/* ---- limits ---- */

static void read_commit(struct usage_limits *ret)
{
	cleanup(free) char *mode = text_of_file(AT_FDCWD, "/proc/sys/vm/overcommit_memory");
	cleanup(free) char *machine = NULL;

	if (!mode || mode[0] != '2')
		return;
	machine = text_of_file(AT_FDCWD, "/proc/meminfo");
	ret->commit = kib_of(machine, "Committed_AS:");
	ret->commit_limit = kib_of(machine, "CommitLimit:");
}

void usage_read_limits(int dirfd, struct usage_limits *ret)
{
	cleanup(free) char *limits = text_of_file(dirfd, "limits");
	cleanup(free) char *status = text_of_file(dirfd, "status");

	memset(ret, 0xff, sizeof(*ret));
	ret->space = kib_of(status, "VmSize:");
	ret->data = kib_of(status, "VmData:");
	/* `unlimited` is no number. */
	ret->space_limit = text_number(limits, "Max address space", USAGE_UNKNOWN);
	ret->data_limit = text_number(limits, "Max data size", USAGE_UNKNOWN);
	read_commit(ret);
}
