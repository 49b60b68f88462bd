/*
 * The clock of the lease: CLOCK_MONOTONIC_COARSE as the vdso reads it, from a page that the kernel
 * keeps up to date. No system call, and no time stamp counter, which strict seccomp and
 * prctl(PR_SET_TSC) take away.
 */
#include "agent_recorder.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "memprobe/elf_file.h"
#include "memprobe/log.h"

static uint64_t find_clock(struct target *target)
{
	const struct module_vec *modules;
	struct elf_symbol symbol;
	struct error *error = target_modules(target, &modules);

	if (error) {
		error_destroy(error);
		return 0;
	}
	vec_for_each (module, modules)
		if (module->is_vdso &&
		    module_symbol(target, module, "__vdso_clock_gettime", &symbol))
			return symbol.address;
	return 0;
}

/* `monotonic SECONDS NANOSECONDS` of a file timens_offsets. False: it cannot be read. */
static bool read_offset(int folder, const char *path, int64_t *ret)
{
	char line[128];
	long long seconds;
	long nanoseconds;
	int fd = openat(folder, path, O_RDONLY | O_CLOEXEC);
	FILE *file = fd < 0 ? NULL : fdopen(fd, "r");
	bool found = false;

	if (!file) {
		if (fd >= 0)
			close(fd);
		/* A kernel without time namespaces. */
		*ret = 0;
		return errno == ENOENT;
	}
	while (!found && fgets(line, sizeof(line), file))
		found = sscanf(line, "monotonic %lld %ld", &seconds, &nanoseconds) == 2;
	fclose(file);
	if (found)
		*ret = seconds * 1000000000 + nanoseconds;
	return found;
}

static bool same_namespace(const struct target *target)
{
	struct stat own, other;

	return !stat("/proc/self/ns/time", &own) &&
	       !fstatat(target->process->dirfd, "ns/time", &other, 0) &&
	       own.st_ino == other.st_ino && own.st_dev == other.st_dev;
}

void lease_clock_find(struct target *target, struct lease_clock *ret)
{
	int64_t own = 0, other = 0;

	*ret = (struct lease_clock){ .address = find_clock(target) };
	if (!ret->address || same_namespace(target))
		return;
	if (read_offset(AT_FDCWD, "/proc/self/timens_offsets", &own) &&
	    read_offset(target->process->dirfd, "timens_offsets", &other))
		ret->offset = other - own;
	else
		ret->address = 0;
}

uint64_t lease_clock_now(const struct lease_clock *clock)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
	return (uint64_t)(now.tv_sec * INT64_C(1000000000) + now.tv_nsec + clock->offset);
}
