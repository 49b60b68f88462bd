/*
 * live.h - what the files of the live backend share.
 */
#ifndef MEMPROBE_TARGET_LIVE_H
#define MEMPROBE_TARGET_LIVE_H

#include <pthread.h>

#include "memprobe/target.h"

struct live {
	int mem_fd; /* /proc/PID/mem; -1: mem_errno tells why */
	int mem_errno;
	int pagemap_fd; /* -1: not opened yet */
	int root_fd;	/* /proc/PID/root; -1: not opened yet */
	/* When it was opened: what it calls itself, and whose its files are. */
	pid_t ns_pid;
	uid_t uids[3];
	pid_t memory_tid; /* a thread that has the memory: the leader, unless that has ended */
	char prefix[32];  /* of files below process->dirfd that tell about the memory */
	bool no_vm_readv; /* process_vm_readv is forbidden, by a seccomp filter say */
	struct error *denied[2];  /* why its files in /proc, and its memory, may not be read */
	pthread_mutex_t lock;	  /* of what is opened or read late: several threads may ask */
	struct mapping_vec usage; /* smaps, for next_present without the ioctl */
	bool usage_known;
	bool was_zombie;		  /* when it was opened */
	struct file_system *file_systems; /* live_backing.c */
	size_t file_system_count;
	bool file_systems_known;
};

/* Opens a file of the process about its memory; -1: errno. */
int live_open(struct target *target, const char *name, int flags);

/* Why a process that was there has no memory any more. */
struct error *live_gone(struct target *target);

/* Whether @path, as the target sees it, is a file with that inode now. */
bool live_path_has_inode(struct target *target, const char *path, uint64_t inode);

/* An O_PATH descriptor of @path as the target sees it; -1: errno. O_NOFOLLOW in @flags: not what a
 * symbolic link at its end leads to, but the link. */
int live_open_path(struct target *target, const char *path, int flags);

enum page_backing live_backing(struct target *target, const struct mapping *mapping, int *fd_ret);
struct error *live_open_module(struct target *target, const struct module *module, int *fd_ret);
struct error *live_open_perf_map(struct target *target, int *fd_ret);
struct error *live_read_threads(struct target *target, struct thread_vec *ret);

#endif
