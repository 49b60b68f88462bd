/*
 * dump_filter.h - which memory belongs into a core, as the kernel decides it.
 */
#ifndef MEMPROBE_DUMP_FILTER_H
#define MEMPROBE_DUMP_FILTER_H

#include "memprobe/range.h"
#include "memprobe/target.h"

/* Bits of /proc/PID/coredump_filter: core(5). */
enum dump_filter {
	DUMP_ANON_PRIVATE = 1,
	DUMP_ANON_SHARED = 2,
	DUMP_FILE_PRIVATE = 4,
	DUMP_FILE_SHARED = 8,
	DUMP_ELF_HEADERS = 16,
	DUMP_HUGE_PRIVATE = 32,
	DUMP_HUGE_SHARED = 64,
	DUMP_DEFAULT = DUMP_ANON_PRIVATE | DUMP_ANON_SHARED | DUMP_ELF_HEADERS | DUMP_HUGE_PRIVATE,
	DUMP_ALL = 0x10000, /* memprobe's own: whatever can be read */
};

/*
 * How many bytes from its start on to dump of @mapping, which was read with MAPS_USAGE: all, none,
 * or the first page, for the headers of an ELF file (which @target is asked for). Source: Linux
 * fs/coredump.c, vma_dump_size().
 */
uint64_t dump_filter_size(struct target *target, const struct mapping *mapping, unsigned filter);

/*
 * Appends those stretches of the first @size bytes of @mapping, of DUMP_RESERVE and more, that
 * nothing is in. None are found where the target cannot tell without looking at every page.
 */
#define DUMP_RESERVE (256ull << 20)
struct error *dump_find_reserves(struct target *target, const struct mapping *mapping,
				 uint64_t size, struct range_vec *ret);

#endif
