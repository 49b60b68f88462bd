/*
 * A live process, read through /proc and process_vm_readv(2); nothing of it is stopped or changed.
 *
 * /proc/PID/mem is opened at once and stays bound to the address space that the process has now:
 * it tells when the process has exited or run another program. process_vm_readv knows only a PID
 * but moves large blocks twice as fast; each such read is confirmed by one byte through mem.
 */
#include "live.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>

#include "memprobe/io.h"
#include "memprobe/num.h"
#include "memprobe/pagemap.h"
#include "memprobe/permit.h"

/* Below this mem is faster: it takes one copy more, but finds the process sooner. */
#define SMALL_READ 8192

/* ---- why nothing can be read ---- */

struct error *live_gone(struct target *target)
{
	struct process_status status;
	struct error *error = process_read_status(target->process, 0, &status);
	struct live *live = target->backend;

	if (error) {
		error_destroy(error);
		return error_create(ERROR_FAILED, "process %d has exited", (int)target->pid);
	}
	if (status.kernel_thread)
		return error_create(ERROR_UNSUPPORTED,
				    "process %d is a kernel thread: it has no memory of its own",
				    (int)target->pid);
	if (status.state == 'Z' || status.state == 'X')
		return error_create(live->was_zombie ? ERROR_UNSUPPORTED : ERROR_FAILED,
				    "process %d has exited%s", (int)target->pid,
				    live->was_zombie ? ": it is a zombie, which has no memory"
						     : "");
	return error_hint(error_create(ERROR_FAILED, "process %d has begun to run another program",
				       (int)target->pid),
			  "run memprobe again to look at that one");
}

/* The explanation takes a dozen files: it is found once and then repeated. */
static struct error *live_denied(struct target *target, enum permit_power power, int errnum)
{
	struct live *live = target->backend;
	struct error **known = &live->denied[power == PERMIT_READ];
	struct error *error;

	if (!*known)
		*known = permit_explain(target->process, power, errnum);
	error = error_create((*known)->code, "%s", (*known)->message);
	return (*known)->hint ? error_hint(error, "%s", (*known)->hint) : error;
}

/* @errnum came from a file or call about @what of the process. */
static struct error *live_failed(struct target *target, int errnum, const char *what)
{
	bool memory = !strcmp(what, "memory");

	if (errnum == ESRCH || errnum == ENOENT)
		return live_gone(target);
	if (errnum == EPERM || errnum == EACCES)
		return live_denied(target, memory ? PERMIT_READ : PERMIT_MAPS, errnum);
	return error_errno(ERROR_FAILED, errnum, "cannot read %s of %d", what, (int)target->pid);
}

int live_open(struct target *target, const char *name, int flags)
{
	struct live *live = target->backend;
	char path[64];

	snprintf(path, sizeof(path), "%s%s", live->prefix, name);
	return openat(target->process->dirfd, path, flags | O_CLOEXEC);
}

/* ---- memory ---- */

/* Bytes read, up to the first bad address; -1: errno. 0 also where the address space is gone. */
static ssize_t read_mem(struct live *live, uint64_t address, void *buffer, size_t size)
{
	size_t done = 0;

	while (done < size) {
		/* An offset of the upper half is negative, which pread() refuses. */
		ssize_t got = address + done > INT64_MAX
				      ? 0
				      : pread(live->mem_fd, (char *)buffer + done, size - done,
					      (off_t)(address + done));

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0 && errno != EIO)
			return -1;
		if (got <= 0)
			break;
		done += got;
	}
	return done;
}

/* pread() of a dead address space gives 0, of an unmapped address EIO. */
static bool mem_is_dead(struct live *live)
{
	char byte;

	return pread(live->mem_fd, &byte, 1, 0) == 0;
}

/* Bytes read, up to the first bad address; 0 where the call may not be used. */
static size_t read_vm(struct live *live, uint64_t address, void *buffer, size_t size)
{
	size_t done = 0;

	while (done < size && !live->no_vm_readv) {
		struct iovec local = { (char *)buffer + done, size - done };
		struct iovec remote = { (void *)(uintptr_t)(address + done), size - done };
		ssize_t got = process_vm_readv(live->memory_tid, &local, 1, &remote, 1, 0);

		if (got < 0 && (errno == EPERM || errno == ENOSYS || errno == EACCES))
			live->no_vm_readv = true;
		if (got <= 0)
			break;
		done += got;
	}
	return done;
}

static struct error *live_read(struct target *target, uint64_t address, void *buffer, size_t size)
{
	struct live *live = target->backend;
	size_t done = 0;
	ssize_t got;

	if (live->mem_fd < 0)
		return live_failed(target, live->mem_errno, "memory");
	if (size > SMALL_READ)
		done = read_vm(live, address, buffer, size);
	if (done == size && !mem_is_dead(live))
		return NULL;
	if (done == size)
		return live_gone(target);
	/* Also what the process may not read itself, devices, and the exact end. */
	got = read_mem(live, address + done, (char *)buffer + done, size - done);
	if (got < 0)
		return live_failed(target, errno, "memory");
	done += got;
	/* What mem gave, it gave of a living address space. */
	if (done == size)
		return NULL;
	return mem_is_dead(live) ? live_gone(target) : error_fault(address + done);
}

/* ---- mappings ---- */

/*
 * A file whose name really ends in ` (deleted)` is not deleted: it is there, with its inode.
 * Mappings of one file stand together, so that only the last answer is remembered.
 */
static struct error *restore_names(struct target *target, struct mapping_vec *maps, size_t first)
{
	const struct mapping *known = NULL;
	bool known_exists = false;

	for (size_t i = first; i < maps->size; i++) {
		struct mapping *mapping = &maps->data[i];
		char *path;

		if (!mapping->deleted || mapping->path[0] != '/' || !mapping->inode)
			continue;
		if (asprintf(&path, "%s (deleted)", mapping->path) < 0)
			return &error_no_memory;
		if (!known || known->inode != mapping->inode || known->device != mapping->device)
			known_exists = live_path_has_inode(target, path, mapping->inode);
		known = mapping;
		if (!known_exists) {
			free(path);
			continue;
		}
		free(mapping->path);
		mapping->path = path;
		mapping->deleted = false;
	}
	return NULL;
}

static struct error *live_read_maps(struct target *target, enum maps_detail detail,
				    struct mapping_vec *ret)
{
	const char *name = detail == MAPS_USAGE ? "smaps" : "maps";
	cleanup(close) int fd = live_open(target, name, O_RDONLY);
	const size_t first = ret->size;
	struct error *error;

	/* A kernel without smaps (CONFIG_PROC_PAGE_MONITOR) has maps. */
	if (fd < 0 && errno == ENOENT && detail == MAPS_USAGE)
		fd = live_open(target, name = "maps", O_RDONLY);
	if (fd < 0)
		return live_failed(target, errno, name);
	error = maps_read(fd, name, ret);
	if (error && error->errnum == ESRCH) {
		error_destroy(error);
		return live_gone(target);
	}
	if (!error && ret->size == first)
		return live_gone(target);
	return error ? error : restore_names(target, ret, first);
}

static struct error *live_read_auxv(struct target *target, char **bytes_ret, size_t *size_ret)
{
	struct live *live = target->backend;
	char path[64];

	snprintf(path, sizeof(path), "%sauxv", live->prefix);
	return read_file_at(target->process->dirfd, path, bytes_ret, size_ret);
}

/* ---- pages ---- */

/* Linux Documentation/admin-guide/mm/pagemap.rst */
#define PAGEMAP_PRESENT (1ULL << 63)
#define PAGEMAP_SWAPPED (1ULL << 62)
/* Linux 6.14: with PAGEMAP_SWAPPED, but there is nothing. */
#define PAGEMAP_GUARD (1ULL << 58)

static int open_pagemap(struct target *target)
{
	struct live *live = target->backend;

	pthread_mutex_lock(&live->lock);
	if (live->pagemap_fd < 0)
		live->pagemap_fd = live_open(target, "pagemap", O_RDONLY);
	pthread_mutex_unlock(&live->lock);
	return live->pagemap_fd;
}

static struct error *live_page_present(struct target *target, uint64_t address, size_t pages,
				       bool *present)
{
	enum { PART = 32768 };
	struct live *live = target->backend;
	cleanup(free) uint64_t *entries = NULL;

	if (open_pagemap(target) < 0)
		return live_failed(target, errno, "pagemap");
	entries = malloc(min_u64(pages, PART) * sizeof(*entries) + 1);
	if (!entries)
		return &error_no_memory;
	for (size_t done = 0; done < pages;) {
		size_t count = min_u64(pages - done, PART);
		ssize_t got = pread(live->pagemap_fd, entries, count * sizeof(*entries),
				    (off_t)((address / PAGE_SIZE + done) * sizeof(*entries)));

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return live_failed(target, errno, "pagemap");
		count = got / sizeof(*entries);
		/* Its end is that of user space; or the address space is gone. */
		if (!count) {
			if (live->mem_fd >= 0 && mem_is_dead(live))
				return live_gone(target);
			memset(present + done, 0, (pages - done) * sizeof(*present));
			break;
		}
		for (size_t i = 0; i < count; i++)
			present[done + i] = (entries[i] & (PAGEMAP_PRESENT | PAGEMAP_SWAPPED)) &&
					    !(entries[i] & PAGEMAP_GUARD);
		done += count;
	}
	return NULL;
}

/* Below that, the page map is as fast. */
#define LARGE_RESERVE (1ull << 30)

/* By smaps as it was at the first call: a mapping of which no page was there. */
static bool was_empty(struct target *target, uint64_t address, uint64_t end)
{
	struct live *live = target->backend;
	const struct mapping *mapping;
	bool is_empty;

	pthread_mutex_lock(&live->lock);
	if (!live->usage_known) {
		struct error *error = live_read_maps(target, MAPS_USAGE, &live->usage);

		error_destroy(error);
		live->usage_known = true;
	}
	mapping = mappings_find(&live->usage, address);
	is_empty = mapping && end <= mapping->end && mapping->usage_known && !mapping->usage.rss &&
		   !mapping->usage.swap;
	pthread_mutex_unlock(&live->lock);
	return is_empty;
}

static uint64_t live_next_present(struct target *target, uint64_t address, uint64_t end)
{
	int fd = open_pagemap(target);
	uint64_t next;

	if (fd >= 0 &&
	    !pagemap_next(fd, round_down(address, PAGE_SIZE), round_up(end, PAGE_SIZE), &next))
		return min_u64(max_u64(next, address), end);
	if (end - address >= LARGE_RESERVE && was_empty(target, address, end))
		return end;
	return address;
}

/* ---- opening ---- */

static void live_destroy(struct target *target)
{
	struct live *live = target->backend;

	if (!live)
		return;
	if (live->mem_fd >= 0)
		close(live->mem_fd);
	if (live->pagemap_fd >= 0)
		close(live->pagemap_fd);
	if (live->root_fd >= 0)
		close(live->root_fd);
	error_destroy(live->denied[0]);
	error_destroy(live->denied[1]);
	free(live->file_systems);
	mappings_deinit(&live->usage);
	pthread_mutex_destroy(&live->lock);
	free(live);
}

static const struct target_ops live_ops = {
	.read = live_read,
	.read_maps = live_read_maps,
	.read_threads = live_read_threads,
	.open_module = live_open_module,
	.open_perf_map = live_open_perf_map,
	.read_auxv = live_read_auxv,
	.page_present = live_page_present,
	.next_present = live_next_present,
	.backing = live_backing,
	.destroy = live_destroy,
};

int target_open_proc(struct target *target, const char *name)
{
	if (target->ops != &live_ops) {
		errno = ENOENT;
		return -1;
	}
	return live_open(target, name, O_RDONLY);
}

/* The leader of a process may have ended before its threads: then they have the memory. */
static struct error *choose_thread(struct target *target)
{
	struct live *live = target->backend;
	struct pid_vec tids = { 0 };
	struct error *error = process_list_threads(target->process, &tids);
	struct process_status status;

	vec_for_each (tid, &tids) {
		if (error || *tid == target->pid)
			continue;
		error = process_read_status(target->process, *tid, &status);
		if (error || status.state == 'Z' || status.state == 'X') {
			error_destroy(error);
			error = NULL;
			continue;
		}
		live->memory_tid = *tid;
		snprintf(live->prefix, sizeof(live->prefix), "task/%d/", (int)*tid);
		live->was_zombie = false;
		break;
	}
	pid_vec_deinit(&tids);
	return error;
}

static const struct arch *arch_of_exe(struct target *target)
{
	cleanup(close) int fd = live_open(target, "exe", O_RDONLY | O_NOCTTY | O_NONBLOCK);
	unsigned char ident[20];

	if (fd < 0 || pread(fd, ident, sizeof(ident), 0) != sizeof(ident) ||
	    memcmp(ident, "\177ELF", 4))
		return NULL;
	return arch_find(ident[4], (uint16_t)(ident[18] | ident[19] << 8));
}

/* By the size of its words: an auxiliary vector begins with a small number and ends with zeros. */
static const struct arch *arch_of_auxv(struct target *target)
{
	cleanup(free) char *bytes = NULL;
	size_t size;
	cleanup(error) struct error *error = live_read_auxv(target, &bytes, &size);

	if (error || size < 16)
		return NULL;
	return load_word(bytes + 4, 4) ? arch_find(1, arch_i386.elf_machine) : NULL;
}

static char *read_exe_path(struct target *target)
{
	static const char suffix[] = " (deleted)";
	struct live *live = target->backend;
	char link[64], path[PATH_MAX + sizeof(suffix)];
	struct stat status;
	ssize_t size;

	snprintf(link, sizeof(link), "%sexe", live->prefix);
	size = readlinkat(target->process->dirfd, link, path, sizeof(path) - 1);
	if (size <= 0)
		return strdup("");
	path[size] = '\0';
	if ((size_t)size > sizeof(suffix) - 1 &&
	    !strcmp(path + size - (sizeof(suffix) - 1), suffix) &&
	    (fstatat(target->process->dirfd, link, &status, 0) < 0 ||
	     !live_path_has_inode(target, path, status.st_ino)))
		path[size - (sizeof(suffix) - 1)] = '\0';
	return strdup(path);
}

static struct error *live_init(struct target *target)
{
	struct live *live = target->backend;
	struct process_status status;
	struct error *error = process_read_status(target->process, 0, &status);

	if (error)
		return error;
	live->memory_tid = target->pid;
	live->ns_pid = status.ns_tid ? status.ns_tid : target->pid;
	live->uids[0] = status.uid;
	live->uids[1] = status.euid;
	live->uids[2] = status.fsuid;
	live->was_zombie = status.state == 'Z' || status.state == 'X';
	if (live->was_zombie && status.threads > 1) {
		error = choose_thread(target);
		if (error)
			return error;
	}
	live->mem_fd = live_open(target, "mem", O_RDONLY);
	live->mem_errno = live->mem_fd < 0 ? errno : 0;
	/* Names of its code are asked for when it may have ended. */
	live->root_fd = live_open(target, "root", O_PATH | O_DIRECTORY);
	target->name = strdup(status.name);
	target->exe = read_exe_path(target);
	if (!target->name || !target->exe)
		return &error_no_memory;
	target->arch = arch_of_exe(target);
	if (!target->arch)
		target->arch = arch_of_auxv(target);
	if (!target->arch)
		target->arch = arch_native();
	return NULL;
}

void target_live_shares_pages(struct target *target)
{
	struct live *live = target->backend;

	live->no_vm_readv = true;
}

struct error *target_open_live(pid_t pid, struct target **ret)
{
	cleanup(target) struct target *target = calloc(1, sizeof(*target));
	struct live *live = calloc(1, sizeof(*live));
	struct error *error;

	if (!target || !live) {
		free(live);
		return &error_no_memory;
	}
	*live = (struct live){ .mem_fd = -1, .pagemap_fd = -1, .root_fd = -1 };
	pthread_mutex_init(&live->lock, NULL);
	target->ops = &live_ops;
	target->backend = live;
	target->pid = pid;
	error = process_open(pid, &target->process);
	if (!error)
		error = live_init(target);
	if (error)
		return error;
	*ret = take_pointer(target);
	return NULL;
}
