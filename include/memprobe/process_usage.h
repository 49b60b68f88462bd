/*
 * process_usage.h - what /proc tells about a process's use of memory and machine at one moment.
 *
 * Cheap: no mapping is walked and nothing is stopped. Source: Linux
 * Documentation/filesystems/proc.rst, getrlimit(2), Documentation/mm/overcommit-accounting.rst.
 */
#ifndef MEMPROBE_PROCESS_USAGE_H
#define MEMPROBE_PROCESS_USAGE_H

#include <stdint.h>

#include "memprobe/error.h"

/* What is not told, or not permitted. */
#define USAGE_UNKNOWN UINT64_MAX

enum usage_part {
	USAGE_STAT = 1,	  /* name, start, cpu_us, faults, threads; rss and size */
	USAGE_STATUS = 2, /* anon, file, shmem, swap, peak_rss, page_tables */
	USAGE_IO = 4,	  /* needs ptrace access, as do fds */
	USAGE_FDS = 8,
	USAGE_PSS = 16, /* walks the page tables: milliseconds per GiB */
	USAGE_ALL_QUICK = USAGE_STAT | USAGE_STATUS | USAGE_IO | USAGE_FDS,
};

/* Sizes in bytes. */
struct usage {
	char name[64];
	uint64_t start; /* clock ticks after boot: with the PID, the identity */
	uint64_t size, rss, peak_rss;
	uint64_t anon, file, shmem; /* of rss; before Linux 4.5 unknown */
	uint64_t swap, page_tables, pss;
	uint64_t threads, fds;
	uint64_t minor_faults, major_faults; /* counts since the start, as what follows */
	uint64_t cpu_us;
	uint64_t read_chars, written_chars; /* by read(), write() and their like: sockets, too */
};

/* Of the process whose folder of /proc is @dirfd; @parts: bits of enum usage_part; the rest is
 * unknown. ERROR_NO_TARGET: it has ended, or is a zombie, which has no memory. */
struct error *usage_read(int dirfd, unsigned parts, struct usage *ret);

/* The same of the one file `stat` in the folder @pid of @proc, which is /proc: what a look at all
 * processes can afford. */
struct error *usage_read_stat(int proc, const char *pid, struct usage *ret);

/* What may make malloc() and mmap() fail. USAGE_UNKNOWN: there is no such limit. */
struct usage_limits {
	uint64_t space, space_limit;   /* mapped addresses; RLIMIT_AS, in bytes */
	uint64_t data, data_limit;     /* private writable mappings; RLIMIT_DATA */
	uint64_t commit, commit_limit; /* of the machine, where vm.overcommit_memory is 2 */
};

void usage_read_limits(int dirfd, struct usage_limits *ret);

#endif
