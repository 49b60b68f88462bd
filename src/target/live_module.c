/* Opens the file that a live process maps, whatever mount namespace it lives in. */
#include "live.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>

/*
 * @path below the target's root, without leaving it by a symbolic link. O_PATH: a name may have
 * become a FIFO or a device meanwhile, and opening those has effects.
 */
int live_open_path(struct target *target, const char *path, int flags)
{
	struct live *live = target->backend;
	struct open_how how = {
		.flags = (uint64_t)flags | O_PATH | O_CLOEXEC,
		.resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS,
	};
	int fd;

	if (live->root_fd < 0)
		live->root_fd = live_open(target, "root", O_PATH | O_DIRECTORY);
	if (live->root_fd < 0)
		return -1;
	fd = (int)syscall(__NR_openat2, live->root_fd, path, &how, sizeof(how));
	/* Before Linux 5.6, or forbidden by a filter that does not know it. */
	if (fd < 0 && (errno == ENOSYS || errno == EPERM))
		fd = openat(live->root_fd, path + strspn(path, "/"), flags | O_PATH | O_CLOEXEC);
	return fd;
}

bool live_path_has_inode(struct target *target, const char *path, uint64_t inode)
{
	cleanup(close) int fd = live_open_path(target, path, 0);
	struct stat status;

	return fd >= 0 && fstat(fd, &status) == 0 && status.st_ino == inode;
}

/*
 * Some file systems (overlayfs, btrfs) show other numbers in maps than in stat: then the first
 * page, which has the headers and mostly the build-id, decides.
 */
static bool is_same_file(struct target *target, const struct module *module, int fd)
{
	char in_file[PAGE_SIZE], in_memory[PAGE_SIZE];
	struct error *error;
	struct stat status;
	ssize_t size;

	if (fstat(fd, &status) < 0 || !S_ISREG(status.st_mode))
		return false;
	if (status.st_ino == module->inode && status.st_dev == module->device)
		return true;
	size = pread(fd, in_file, sizeof(in_file), 0);
	if (size <= 0 || !module->segments.size || module->segments.data[0].offset != 0)
		return false;
	error = target_read(target, module->segments.data[0].start, in_memory, size);
	if (error) {
		error_destroy(error);
		return false;
	}
	return !memcmp(in_file, in_memory, size);
}

/* Takes an O_PATH descriptor and gives one for reading if it is the module's file; else -1. */
static int reopen(struct target *target, const struct module *module, int path_fd)
{
	cleanup(close) int fd = -1;
	struct stat status;
	char name[32];

	if (fstat(path_fd, &status) < 0 || !S_ISREG(status.st_mode))
		return -1;
	snprintf(name, sizeof(name), "/proc/self/fd/%d", path_fd);
	fd = open(name, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	if (fd < 0 || !is_same_file(target, module, fd))
		return -1;
	return take_fd(&fd);
}

static int open_map_file(struct target *target, const struct module *module)
{
	const struct module_segment *segment = module->segments.data;
	cleanup(close) int fd = -1;
	struct stat status;
	char name[64];

	if (!module->segments.size)
		return -1;
	snprintf(name, sizeof(name), "map_files/%llx-%llx", (unsigned long long)segment->start,
		 (unsigned long long)segment->end);
	fd = openat(target->process->dirfd, name, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	if (fd < 0 || fstat(fd, &status) < 0 || !S_ISREG(status.st_mode))
		return -1;
	return take_fd(&fd);
}

struct error *live_open_module(struct target *target, const struct module *module, int *fd_ret)
{
	int path_fd, fd;

	if (module->is_vdso)
		return error_create(ERROR_UNSUPPORTED, "the vdso has no file");
	/* Needs CAP_CHECKPOINT_RESTORE, and never errs. */
	fd = open_map_file(target, module);
	if (fd < 0 && !module->deleted && module->path[0] == '/') {
		path_fd = live_open_path(target, module->path, 0);
		if (path_fd >= 0) {
			fd = reopen(target, module, path_fd);
			close(path_fd);
		}
	}
	if (fd < 0 && module->is_exe) {
		path_fd = live_open(target, "exe", O_PATH);
		if (path_fd >= 0) {
			fd = reopen(target, module, path_fd);
			close(path_fd);
		}
	}
	if (fd < 0)
		return error_create(ERROR_FAILED, "cannot open %s of %d", module->path,
				    (int)target->pid);
	*fd_ret = fd;
	return NULL;
}

/* Of nobody else's: in /tmp everybody may make a file. */
static bool is_own_file(const struct live *live, const struct stat *status)
{
	if (!S_ISREG(status->st_mode))
		return false;
	for (unsigned i = 0; i < sizeof(live->uids) / sizeof(live->uids[0]); i++)
		if (status->st_uid == live->uids[i])
			return true;
	return !status->st_uid;
}

struct error *live_open_perf_map(struct target *target, int *fd_ret)
{
	const struct live *live = target->backend;
	cleanup(close) int path_fd = -1;
	cleanup(close) int fd = -1;
	struct stat status;
	char name[64];

	snprintf(name, sizeof(name), "/tmp/perf-%d.map", (int)live->ns_pid);
	path_fd = live_open_path(target, name, O_NOFOLLOW);
	if (path_fd >= 0 && fstat(path_fd, &status) == 0 && is_own_file(live, &status)) {
		snprintf(name, sizeof(name), "/proc/self/fd/%d", path_fd);
		fd = open(name, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	}
	if (fd < 0)
		return error_create(ERROR_UNSUPPORTED, "%d has no perf map", (int)target->pid);
	*fd_ret = take_fd(&fd);
	return NULL;
}
