/* core_private.h - what the files of the core backend share. */
#ifndef MEMPROBE_TARGET_CORE_PRIVATE_H
#define MEMPROBE_TARGET_CORE_PRIVATE_H

#include <elf.h>
#include <pthread.h>
#include <sys/stat.h>

#include "memprobe/core.h"
#include "memprobe/range.h"

/* A stretch of memory that has one source: of one PT_LOAD and at most one file. */
struct core_segment {
	uint64_t start, end; /* whole pages */
	uint64_t offset;     /* in the core */
	uint64_t dumped;     /* its first bytes that are there */
	uint64_t lost;	     /* bytes behind them that the core promises and does not have */
	unsigned perms;	     /* enum mapping_perms */
	int file;	     /* index into core->files, -1: none */
	uint64_t file_offset;
};

VEC_DEFINE(core_segment_vec, struct core_segment)

struct core_file {
	const char *path; /* into core->file_names */
	bool deleted;
	bool tried;
	int fd; /* -1: cannot be opened, or is not what was mapped */
};

VEC_DEFINE(core_file_vec, struct core_file)

/* An entry of NT_FILE. */
struct core_mapped {
	uint64_t start, end;
	uint64_t offset; /* in the file; bytes */
	int file;
};

VEC_DEFINE(core_mapped_vec, struct core_mapped)

/* Registers as the core has them where arch.core.take_regs is NULL. */
union core_registers {
	struct user_regs_struct regs;
	uint8_t bytes[512];
};

struct core_thread {
	pid_t tid;
	char state; /* 0: unknown */
	char name[64];
	union core_registers registers;
};

VEC_DEFINE(core_thread_vec, struct core_thread)

struct core {
	int fd;
	uint64_t size;	      /* of the file */
	struct timespec time; /* when it was written last */
	bool dense;	      /* the file has no holes: untouched pages are zeros in it */
	bool is_64;
	bool truncated;
	struct core_segment_vec segments; /* by address, none overlaps */
	struct core_mapped_vec mapped;	  /* by address, none overlaps */
	struct core_file_vec files;
	char *file_names;
	struct core_thread_vec threads;
	char *auxv;
	size_t auxv_size;
	char *maps_text; /* CORE_NOTE_MAPS; NULL: none */
	size_t maps_size;
	struct range_vec zeros; /* CORE_NOTE_ZEROS; normalised */
	char name[17];		/* of the process */
	bool lock_known;	/* @lock was initialised */
	pthread_mutex_t lock;	/* of @files */
};

/* Bytes read at @offset of the core: less than @size at its end. */
size_t core_pread(const struct core *core, uint64_t offset, void *buffer, size_t size);

struct core_segment *core_segment_at(const struct core *core, uint64_t address);

/* How many bytes from @address of @segment on are known to be zeros, without room in the file. */
uint64_t core_zeros(const struct core *core, const struct core_segment *segment, uint64_t address);

/* core_unpack.c: whether the bytes begin zstd data, and its contents as a nameless file; of damaged
 * or unfinished data (*whole_ret false), what lies before. */
bool core_is_packed(const void *bytes, size_t size);
struct error *core_unpack(int fd, const char *path, int *fd_ret, bool *whole_ret);

/* core_notes.c: takes the notes at [offset, offset + size) of the core. */
struct error *core_take_notes(struct target *target, uint64_t offset, uint64_t size);

/* core_maps.c: gives the segments their files, then the view of it all as mappings. */
struct error *core_place_files(struct core *core);
struct error *core_read_maps(struct target *target, enum maps_detail detail,
			     struct mapping_vec *ret);
struct error *core_page_present(struct target *target, uint64_t address, size_t pages,
				bool *present);
uint64_t core_next_present(struct target *target, uint64_t address, uint64_t end);

/* core_file.c: a descriptor of a mapped file, which the core keeps; -1. */
int core_file_fd(struct target *target, int file);
void core_files_close(struct core *core);
struct error *core_open_module(struct target *target, const struct module *module, int *fd_ret);

#endif
