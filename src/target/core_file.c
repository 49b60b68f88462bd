/* The files that a core's process had mapped, as they are on this machine now. */
#include "core_private.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "memprobe/log.h"
#include "memprobe/num.h"

/* A file that nobody asks for is not opened: beyond this many, memory is read from the core only.
 */
#define OPEN_MAX 400u

/* O_PATH first: a name of a core's may by now be that of a FIFO or a device. */
static int open_regular(const char *path)
{
	cleanup(close) int path_fd = open(path, O_PATH | O_CLOEXEC);
	struct stat status;
	char name[32];

	if (path_fd < 0 || fstat(path_fd, &status) < 0 || !S_ISREG(status.st_mode))
		return -1;
	snprintf(name, sizeof(name), "/proc/self/fd/%d", path_fd);
	return open(name, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
}

static bool is_older(const struct timespec *time, const struct timespec *than)
{
	return time->tv_sec != than->tv_sec ? time->tv_sec < than->tv_sec
					    : time->tv_nsec <= than->tv_nsec;
}

/* memprobe's own cores tell inode and device. */
static bool has_identity(struct target *target, const struct core_file *file,
			 const struct stat *status)
{
	struct core *core = target->backend;
	struct mapping_vec maps = { 0 };
	struct error *error = NULL;
	bool same = false;

	if (core->maps_text)
		error = maps_parse(core->maps_text, core->maps_size, &maps);
	vec_for_each (mapping, &maps)
		if (!same && !strcmp(mapping->path, file->path))
			same = mapping->inode == status->st_ino &&
			       mapping->device == status->st_dev;
	mappings_deinit(&maps);
	error_destroy(error);
	return same;
}

/*
 * The kernel, gcore and memprobe dump the first page of ELF files, which mostly has the build-id.
 * Without it, a file that is older than the core and of the same identity, or else an ELF file, is
 * taken. Of others it cannot be told.
 */
enum sameness { SAME, OTHER, UNTOLD };

static enum sameness is_what_was_mapped(struct target *target, int index, int fd)
{
	struct core *core = target->backend;
	char in_core[PAGE_SIZE], in_file[PAGE_SIZE];
	struct stat status;
	ssize_t size = pread(fd, in_file, sizeof(in_file), 0);

	if (fstat(fd, &status) < 0 || size <= 0)
		return OTHER;
	vec_for_each (segment, &core->segments)
		if (segment->file == index && segment->file_offset == 0 &&
		    segment->dumped >= (uint64_t)size && !(segment->perms & PERM_WRITE) &&
		    core_pread(core, segment->offset, in_core, size) == (size_t)size)
			return memcmp(in_core, in_file, size) ? OTHER : SAME;
	if (!is_older(&status.st_mtim, &core->time))
		return OTHER;
	if (has_identity(target, &core->files.data[index], &status))
		return SAME;
	if (core->maps_text)
		return OTHER;
	return size >= SELFMAG && !memcmp(in_file, ELFMAG, SELFMAG) ? SAME : UNTOLD;
}

static int open_file(struct target *target, int index)
{
	struct core *core = target->backend;
	struct core_file *file = &core->files.data[index];
	size_t open = 0;
	int fd;

	if (file->path[0] != '/' || file->deleted)
		return -1;
	vec_for_each (other, &core->files)
		open += other->fd >= 0;
	fd = open < OPEN_MAX ? open_regular(file->path) : -1;
	if (fd < 0) {
		log_debug("%s, which the core's process had mapped, cannot be opened", file->path);
		return -1;
	}
	switch (is_what_was_mapped(target, index, fd)) {
	case SAME:
		return fd;
	case OTHER:
		log_warn("%s is not the file that the core's process had mapped: it is left out",
			 file->path);
		break;
	case UNTOLD:
		log_debug("whether the core's process had mapped %s as it is now cannot be told: "
			  "it is left out",
			  file->path);
		break;
	}
	close(fd);
	return -1;
}

int core_file_fd(struct target *target, int file)
{
	struct core *core = target->backend;
	int fd;

	pthread_mutex_lock(&core->lock);
	if (!core->files.data[file].tried) {
		core->files.data[file].fd = open_file(target, file);
		core->files.data[file].tried = true;
	}
	fd = core->files.data[file].fd;
	pthread_mutex_unlock(&core->lock);
	return fd;
}

void core_files_close(struct core *core)
{
	vec_for_each (file, &core->files)
		if (file->fd >= 0)
			close(file->fd);
	core_file_vec_deinit(&core->files);
}

struct error *core_open_module(struct target *target, const struct module *module, int *fd_ret)
{
	struct core *core = target->backend;
	const struct core_segment *segment = core_segment_at(core, module->start);
	int fd = segment && segment->file >= 0 ? core_file_fd(target, segment->file) : -1;

	if (fd >= 0)
		fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	if (fd < 0)
		return error_create(ERROR_FAILED, "cannot open %s of the core", module->path);
	*fd_ret = fd;
	return NULL;
}
