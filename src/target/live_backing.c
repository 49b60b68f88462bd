/* What lies behind a mapping, and whether reading it costs the process or its neighbours something.
 */
#include "live.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "memprobe/io.h"

#define FILE_SYSTEMS_MAX 4096u

enum file_system_kind { FILE_SYSTEM_DISK, FILE_SYSTEM_MEMORY, FILE_SYSTEM_REMOTE };

struct file_system {
	dev_t device;
	enum file_system_kind kind;
};

/*
 * By the beginning of their names. A file's holes take memory of their own when they are read
 * through a mapping: memory. What is not in the page cache comes from a process or a machine that
 * may never answer: remote.
 */
static enum file_system_kind kind_of(const char *type)
{
	static const char *const memory[] = { "tmpfs", "devtmpfs", "ramfs", "hugetlbfs", NULL };
	static const char *const remote[] = { "fuse", "nfs", "cifs", "smb",    "9p",
					      "ceph", "afs", "coda", "lustre", NULL };

	for (size_t i = 0; memory[i]; i++)
		if (!strcmp(type, memory[i]))
			return FILE_SYSTEM_MEMORY;
	for (size_t i = 0; remote[i]; i++)
		if (!strncmp(type, remote[i], strlen(remote[i])))
			return FILE_SYSTEM_REMOTE;
	return FILE_SYSTEM_DISK;
}

/* Linux Documentation/filesystems/proc.rst, 3.5: `36 35 98:0 /root /at options - type source`. */
static bool parse_mount(const char *line, struct file_system *ret)
{
	const char *type = strstr(line, " - ");
	unsigned major, minor;
	char name[32];

	if (!type || sscanf(line, "%*u %*u %u:%u", &major, &minor) != 2 ||
	    sscanf(type + 3, "%31s", name) != 1)
		return false;
	ret->device = makedev(major, minor);
	ret->kind = kind_of(name);
	return true;
}

/* From what the kernel knows: to ask the file systems themselves could hang. */
static void learn_file_systems(struct target *target)
{
	struct live *live = target->backend;
	cleanup(free) char *text = NULL;
	cleanup(error) struct error *error =
		read_file_at(target->process->dirfd, "mountinfo", &text, NULL);
	char *rest = text;

	live->file_systems_known = true;
	if (error)
		return;
	live->file_systems = calloc(FILE_SYSTEMS_MAX, sizeof(*live->file_systems));
	if (!live->file_systems)
		return;
	for (char *line;
	     live->file_system_count < FILE_SYSTEMS_MAX && (line = strsep(&rest, "\n"));)
		if (parse_mount(line, &live->file_systems[live->file_system_count]))
			live->file_system_count++;
}

/* Files of the kernel's own mounts, which mountinfo does not have. */
static bool is_memory_by_name(const struct mapping *mapping)
{
	static const char *const names[] = { "/memfd:", "/SYSV", "/dev/zero", "/anon_hugepage",
					     "/dev/shm/" };

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (!strncmp(mapping->path, names[i], strlen(names[i])))
			return true;
	return false;
}

static enum file_system_kind file_system_of(struct target *target, const struct mapping *mapping)
{
	struct live *live = target->backend;

	/* Of a disk. */
	if (major(mapping->device))
		return FILE_SYSTEM_DISK;
	if (!live->file_systems_known)
		learn_file_systems(target);
	for (size_t i = 0; i < live->file_system_count; i++)
		if (live->file_systems[i].device == mapping->device)
			return live->file_systems[i].kind;
	if (is_memory_by_name(mapping))
		return FILE_SYSTEM_MEMORY;
	/* Unmounted, or of another mount namespace. Programs run from such ones. */
	return mapping->perms & PERM_SHARED ? FILE_SYSTEM_REMOTE : FILE_SYSTEM_DISK;
}

/* O_PATH: to open a device may have effects. */
static int open_mapped(struct target *target, const struct mapping *mapping)
{
	struct stat status;
	char name[64];
	int fd;

	snprintf(name, sizeof(name), "map_files/%llx-%llx", (unsigned long long)mapping->start,
		 (unsigned long long)mapping->end);
	/* Needs CAP_CHECKPOINT_RESTORE, and never errs. */
	fd = openat(target->process->dirfd, name, O_PATH | O_CLOEXEC);
	if (fd >= 0 || mapping->deleted || mapping->path[0] != '/')
		return fd;
	fd = live_open_path(target, mapping->path, 0);
	if (fd >= 0 && (fstat(fd, &status) < 0 || status.st_ino != mapping->inode ||
			status.st_dev != mapping->device)) {
		close(fd);
		fd = -1;
	}
	return fd;
}

static enum page_backing memory_backing(struct target *target, const struct mapping *mapping,
					int *fd_ret)
{
	cleanup(close) int path_fd = open_mapped(target, mapping);
	struct stat status;
	char name[32];
	int fd;

	if (path_fd < 0 || fstat(path_fd, &status) < 0)
		return BACKING_TOUCHED;
	/* /dev/zero is memory. */
	if (S_ISCHR(status.st_mode) && status.st_rdev == makedev(1, 5))
		return BACKING_TOUCHED;
	if (!S_ISREG(status.st_mode))
		return BACKING_DEVICE;
	snprintf(name, sizeof(name), "/proc/self/fd/%d", path_fd);
	fd = open(name, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	if (fd < 0)
		return BACKING_TOUCHED;
	if (fd_ret)
		*fd_ret = fd;
	else
		close(fd);
	return BACKING_FILE;
}

enum page_backing live_backing(struct target *target, const struct mapping *mapping, int *fd_ret)
{
	if (!mapping->inode)
		return BACKING_ANY;
	switch (file_system_of(target, mapping)) {
	case FILE_SYSTEM_MEMORY:
		return memory_backing(target, mapping, fd_ret);
	case FILE_SYSTEM_REMOTE:
		/* Programs are mapped privately: what is in their files is looked for. */
		return mapping->perms & PERM_SHARED ? BACKING_TOUCHED : BACKING_ANY;
	default:
		return BACKING_ANY;
	}
}
