/*
 * maps.h - parses the text of /proc/PID/maps and /proc/PID/smaps.
 *
 * One pass, no allocation per line but for paths, every field checked: garbage gives ERROR_FAILED
 * naming the line, never a crash. Source of the format: Linux fs/proc/task_mmu.c.
 */
#ifndef MEMPROBE_MAPS_H
#define MEMPROBE_MAPS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "memprobe/vec.h"

/* What a mapping is, as `memprobe maps` names it. The text is mapping_type_name(). */
enum mapping_type {
	MAPPING_EXE,
	MAPPING_LIB,
	MAPPING_FILE,
	MAPPING_HEAP,	    /* brk area */
	MAPPING_ARENA,	    /* heap of a non-main arena of glibc, reserve included */
	MAPPING_MMAP_CHUNK, /* a block that malloc mapped by itself */
	MAPPING_STACK,	    /* of the main thread */
	MAPPING_THREAD_STACK,
	MAPPING_ANON,
	MAPPING_SHM,	/* shared anonymous, memfd, /dev/shm, System V */
	MAPPING_GUARD,	/* no access, nothing behind it */
	MAPPING_KERNEL, /* vdso, vvar, vsyscall */
	MAPPING_TYPES
};

enum mapping_perms {
	PERM_READ = 1,
	PERM_WRITE = 2,
	PERM_EXEC = 4,
	PERM_SHARED = 8,
};

/* Bytes, from smaps. Unknown (only maps was read, or kernel too old) is the struct's absence:
 * mapping.usage_known is false and all of it is 0. */
struct mapping_usage {
	uint64_t rss, pss, private_clean, private_dirty, shared_clean, shared_dirty;
	uint64_t anonymous, swap;
	uint64_t huge; /* AnonHugePages + ShmemPmdMapped + FilePmdMapped + *_Hugetlb */
};

struct mapping {
	uint64_t start, end; /* [start, end) */
	uint64_t offset;     /* in the file */
	uint64_t inode;
	dev_t device;
	unsigned perms; /* enum mapping_perms */
	bool deleted;	/* the file has no name any more */
	bool usage_known;
	bool no_fork; /* VmFlags has dc: MADV_DONTFORK */
	bool no_dump; /* dd: MADV_DONTDUMP; or io: a device's */
	bool is_huge; /* ht: hugetlbfs */
	struct mapping_usage usage;
	/* Owned; as the kernel shows it, its escaped newline undone, without ` (deleted)` (which a
	 * file may really be called: the live target looks, the parser cannot); "" where it has
	 * none; "[heap]" and its like stay. */
	char *path;
	/* Filled by mappings_classify() (analysis), not by the parser. */
	enum mapping_type type;
	pid_t tid;    /* thread-stack, arena: a thread that uses it; 0: none known */
	char *thread; /* owned; the name of that thread; NULL */
	char *label;  /* owned; for people, e.g. `arena 3 of 12`; NULL */
};

VEC_DEFINE(mapping_vec, struct mapping)

/* Frees paths, labels and names, too. */
void mappings_deinit(struct mapping_vec *maps);

/*
 * @text of @size bytes (without a NUL) is maps, or smaps if its lines are there. Appends; what was
 * parsed before an error stays, for mappings_deinit(). The result is sorted and free of overlaps
 * even where the process changed between two reads of the file.
 */
struct error *maps_parse(const char *text, size_t size, struct mapping_vec *maps);

/* The same from an open maps or smaps, without holding its text: 16 MiB for 22,000 mappings. @name
 * is for the message; error.errnum is that of read(2), ESRCH if the process has exited. */
struct error *maps_read(int fd, const char *name, struct mapping_vec *maps);

/* The mapping that holds @address in a sorted vector, or NULL. O(log n). */
struct mapping *mappings_find(const struct mapping_vec *maps, uint64_t address);

const char *mapping_type_name(enum mapping_type type);
/* False: there is no type of that name. */
bool mapping_type_parse(const char *name, enum mapping_type *ret);

/* `rw-p` into @text. */
void mapping_perms_text(unsigned perms, char text[5]);

#endif
