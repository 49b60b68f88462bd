/*
 * unwind_table.h - the call frame information of a target's modules, compiled for fast unwinding.
 *
 * The image that results (agent/unwind_abi.h) is walked by unwind_walk() of agent/unwind_walk.h: by
 * the agent inside the target, some 5 ns a frame, and here, on copied stacks. For x86-64. Building
 * it reads files and /proc only and needs no stop: do it before one.
 */
#ifndef MEMPROBE_UNWIND_TABLE_H
#define MEMPROBE_UNWIND_TABLE_H

#include "memprobe/target.h"
#include "memprobe/thread_state.h"
#include "memprobe/unwind.h"

struct unwind_header;
struct unwind_table;

struct unwind_table_stats {
	uint64_t modules;     /* that are covered now */
	uint64_t without_cfi; /* of these: unwound by frame pointers */
	uint64_t left_out;    /* there was no room, or their headers are garbage */
	uint64_t entries;     /* FDEs read */
	uint64_t bad_entries; /* of these, left out */
	uint64_t rows;
	uint64_t unsupported; /* rows at which a walk ends */
	uint64_t bytes;	      /* of the image */
	uint64_t build_us;    /* time that compiling took, all together */
};

/* ERROR_UNSUPPORTED: not an x86-64 target. A module without or with bad information is no error. */
struct error *unwind_table_create(struct target *target, struct unwind_table **ret);
void unwind_table_destroy(struct unwind_table *table);
CLEANUP_DEFINE(unwind_table, struct unwind_table *, unwind_table_destroy)

/*
 * Makes the table cover the modules that @target has, no more and no less; only new ones are
 * compiled. To see what was loaded since, hand in a target that was opened since. *@changed_ret:
 * there is something to publish; *@removed_ret: an address may now mean something else, so that
 * caches are to be cleared after publishing.
 */
struct error *unwind_table_update(struct unwind_table *table, struct target *target,
				  bool *changed_ret, bool *removed_ret);

/* The image: valid as long as the table, at the same place; it grows at its end only. */
const struct unwind_header *unwind_table_image(const struct unwind_table *table, size_t *size_ret);

/*
 * Brings a copy of the image at @region up to date, while others read it: what is behind the first
 * *@copied bytes (0 at first) is copied, then the modules are published. ERROR_FAILED: there is not
 * enough room; the copy is as it was.
 */
struct error *unwind_table_publish(const struct unwind_table *table, void *region, size_t capacity,
				   size_t *copied);

/*
 * Appends the frames of a thread, innermost first, at least one; as unwind_thread() does, 100 times
 * faster. Only the copied stack is read.
 */
struct error *unwind_table_walk(const struct unwind_table *table, const struct thread_state *state,
				struct frame_vec *frames);

void unwind_table_stats(const struct unwind_table *table, struct unwind_table_stats *ret);

#endif
