/*
 * core.h - ELF core files as targets: from the kernel, from gcore, from memprobe.
 *
 * ELF64 and ELF32, little endian, any size, also compressed by zstd (unpacked into a nameless
 * temporary file). Everything in the file is foreign: what lies is left out or answered by an
 * error. The file is read with pread(2), never mapped: one that shrinks later gives faults.
 *
 * What the core does not hold of a mapping that nobody could write to is read from the file that
 * NT_FILE names, if that file is still the one that was mapped. Other memory that was not dumped is
 * a fault.
 */
#ifndef MEMPROBE_CORE_H
#define MEMPROBE_CORE_H

#include <stdbool.h>
#include <stdint.h>

#include "memprobe/target.h"
#include "memprobe/thread_state.h"

/*
 * Opens @path. ERROR_NO_TARGET: there is no such file, or it is no core; the message says why.
 * ERROR_UNSUPPORTED: a core of an unknown architecture. A core that was cut short is opened; warns
 * of what it lacks.
 */
struct error *target_open_core(const char *path, struct target **ret);

/* Whether @path is a regular file that begins like a core, compressed or not. */
bool core_probe(const char *path);

bool target_is_core(const struct target *target);

/* Whether the file ends before what its headers promise. False for other targets. */
bool core_is_truncated(const struct target *target);

/*
 * The registers of all threads at the moment of the dump, in the order of the file (the thread that
 * died comes first in the kernel's); the stacks are not copied: read them from the target.
 * ERROR_UNSUPPORTED: no core, or the registers of an architecture that this build has no room for.
 */
struct error *core_thread_states(struct target *target, struct thread_state_vec *ret);

/* Notes of memprobe's own, by the owner CORE_NOTE_OWNER: what the usual ones lack. */
#define CORE_NOTE_OWNER "memprobe"
enum core_note {
	CORE_NOTE_MAPS = 0x6d700001,	/* the text of /proc/PID/maps */
	CORE_NOTE_THREADS = 0x6d700002, /* struct core_note_thread, for each thread */
	/* struct range, for each stretch of zeros that has no room in the file: p_filesz is less
	 * than p_memsz there, as if it were not in the core. Sorted. */
	CORE_NOTE_ZEROS = 0x6d700003,
};

struct core_note_thread {
	uint32_t tid;
	char state;
	char name[27]; /* NUL-terminated */
};

#endif
