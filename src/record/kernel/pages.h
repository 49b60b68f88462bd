/*
 * pages.h - which pages of a process are in memory: what its RSS consists of, page by page.
 *
 * From /proc/PID/pagemap, by the PAGEMAP_SCAN ioctl (Linux 6.7) where there is one, which also
 * knows the zero page: it is mapped where memory was only read, and counts for no RSS. Without it,
 * such pages count as resident (zero_unknown). Pages of hugetlbfs are no RSS and left out.
 */
#ifndef RECORD_PAGES_H
#define RECORD_PAGES_H

#include <stdbool.h>
#include <stdint.h>

#include "memprobe/target.h"
#include "memprobe/vec.h"

enum page_flags {
	PAGES_RESIDENT = 1, /* in memory, and counted in RSS */
	PAGES_FILE = 2,	    /* of a file or shared memory */
	PAGES_SWAPPED = 4,
	PAGES_HUGE = 8, /* mapped as a huge page */
};

/* Pages of one kind, [start, end). */
struct page_run {
	uint64_t start, end;
	unsigned flags; /* enum page_flags, never 0 */
};

VEC_DEFINE(page_run_vec, struct page_run)

struct pages {
	struct page_run_vec runs;   /* by address */
	uint64_t resident, swapped; /* bytes */
	bool zero_unknown;
};

/*
 * Of all of @maps, which must be fresh and by address. *ret has to be zeroed. ERROR_PERMISSION
 * without ptrace access; ERROR_NO_TARGET if it has exited.
 */
struct error *pages_read(struct target *target, const struct mapping_vec *maps, struct pages *ret);
void pages_deinit(struct pages *pages);

/*
 * Calls @visit for each run of what is resident in @after and not in @before, with the flags that
 * it has in @after. Swap the two for what is gone.
 */
void pages_difference(const struct pages *before, const struct pages *after,
		      void (*visit)(void *data, uint64_t start, uint64_t end, unsigned flags),
		      void *data);

#endif
