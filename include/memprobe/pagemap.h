/*
 * pagemap.h - the kernel's map of a process's pages (/proc/PID/pagemap), asked for what is there.
 */
#ifndef MEMPROBE_PAGEMAP_H
#define MEMPROBE_PAGEMAP_H

#include <stdbool.h>
#include <stdint.h>

/* linux/fs.h of 6.7; the headers of older systems lack it. */
struct page_region {
	uint64_t start, end, categories;
};

struct pm_scan_arg {
	uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages;
	uint64_t category_inverted, category_mask, category_anyof_mask, return_mask;
};

#define PAGEMAP_SCAN_FILE    (1u << 2)
#define PAGEMAP_SCAN_PRESENT (1u << 3)
#define PAGEMAP_SCAN_SWAPPED (1u << 4)
#define PAGEMAP_SCAN_PFNZERO (1u << 5)
#define PAGEMAP_SCAN_HUGE    (1u << 6)

/* The ioctl with @arg: regions, or -1 and errno: ENOTTY or EINVAL where the kernel has none. */
int pagemap_scan(int fd, struct pm_scan_arg *arg);

/* Whether this kernel has the ioctl (Linux 6.7). */
bool pagemap_can_scan(void);

/*
 * The first page in [start, end) that is present or swapped, or @end: *ret. What was only reserved
 * is passed over at once. Returns 0 or errno as pagemap_scan().
 */
int pagemap_next(int fd, uint64_t start, uint64_t end, uint64_t *ret);

#endif
