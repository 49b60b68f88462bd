/*
 * core_writer.h - writes an ELF core file that gdb and memprobe open.
 *
 * The layout is the kernel's: headers, notes, memory. Memory without data is a hole in the file.
 */
#ifndef MEMPROBE_CORE_WRITER_H
#define MEMPROBE_CORE_WRITER_H

#include <stdbool.h>
#include <stdint.h>

#include "memprobe/arch.h"
#include "memprobe/maps.h"
#include "memprobe/memory_walk.h"
#include "memprobe/range.h"
#include "memprobe/thread_state.h"

/* A mapping, and how much of its memory is to be in the core. */
struct core_piece {
	const struct mapping *mapping;
	uint64_t size; /* bytes from its start on; whole pages */
};

VEC_DEFINE(core_piece_vec, struct core_piece)

/* All that a core holds but the bytes of memory. */
struct core_image {
	const struct arch *arch;
	struct core_piece_vec pieces; /* by address */
	/* Parts of one of them each that hold nothing and are to take no room in the file, by
	 * address. Holes of files count for their size, which has a limit: 16 TiB (ext4). */
	struct range_vec reserves;
	const struct thread_state_vec *threads; /* the first one is the one that gdb shows first */
	const char *name;			/* of the process */
	const char *arguments;			/* separated by blanks */
	pid_t pid, ppid, pgrp, sid;
	uid_t uid;
	gid_t gid;
	char state;
	const char *auxv;
	size_t auxv_size;
};

struct core_written {
	uint64_t size;	/* of the file */
	uint64_t data;	/* bytes of memory that are in it; the rest is holes */
	bool too_large; /* an ELF32 file cannot address all of it */
};

/* Visits the memory of the pieces, in order. */
typedef struct error *core_memory(void *data, const struct memory_visitor *visitor);

/*
 * Writes @image to @fd, which is at its beginning; @name is for messages. @regular: holes can be
 * left, else they are written as zeros. @compress: as zstd. The memory comes from @memory, called
 * with @data; what it reports as missing becomes zeros and is handed to @missing (address, size).
 */
struct core_output {
	int fd;
	const char *name;
	bool regular, compress;
	core_memory *memory;
	struct error *(*missing)(void *data, uint64_t address, uint64_t size);
	void *data;
};

struct error *core_write(const struct core_image *image, const struct core_output *output,
			 struct core_written *ret);

#endif
