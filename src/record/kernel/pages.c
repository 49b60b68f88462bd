#include "pages.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "memprobe/pagemap.h"

#define SCAN_INTERESTING (PAGEMAP_SCAN_PRESENT | PAGEMAP_SCAN_SWAPPED)
#define REGIONS		 1024u

/* Documentation/admin-guide/mm/pagemap.rst */
#define PAGEMAP_PRESENT (1ull << 63)
#define PAGEMAP_SWAPPED (1ull << 62)
#define PAGEMAP_FILE	(1ull << 61)
#define ENTRIES		8192u

static struct error *append(struct pages *pages, uint64_t start, uint64_t end, unsigned flags)
{
	struct page_run_vec *runs = &pages->runs;
	struct page_run *last = runs->size ? &runs->data[runs->size - 1] : NULL;

	if (flags & PAGES_RESIDENT)
		pages->resident += end - start;
	if (flags & PAGES_SWAPPED)
		pages->swapped += end - start;
	if (last && last->end == start && last->flags == flags) {
		last->end = end;
		return NULL;
	}
	return page_run_vec_append(runs, &(struct page_run){ start, end, flags });
}

static unsigned flags_of_scan(uint64_t categories)
{
	unsigned flags = 0;

	if (categories & PAGEMAP_SCAN_SWAPPED)
		flags |= PAGES_SWAPPED;
	if (categories & PAGEMAP_SCAN_PRESENT && !(categories & PAGEMAP_SCAN_PFNZERO))
		flags |= PAGES_RESIDENT;
	if (flags && categories & PAGEMAP_SCAN_FILE)
		flags |= PAGES_FILE;
	if (flags & PAGES_RESIDENT && categories & PAGEMAP_SCAN_HUGE)
		flags |= PAGES_HUGE;
	return flags;
}

/* Returns errno; ENOTTY: the kernel has no such ioctl. */
static int scan(int fd, const struct mapping *mapping, struct page_region *regions,
		struct pages *pages, struct error **error)
{
	uint64_t at = mapping->start;

	while (at < mapping->end) {
		struct pm_scan_arg arg = {
			.start = at,
			.end = mapping->end,
			.vec = (uintptr_t)regions,
			.vec_len = REGIONS,
			.category_anyof_mask = SCAN_INTERESTING,
			.return_mask = SCAN_INTERESTING | PAGEMAP_SCAN_FILE | PAGEMAP_SCAN_PFNZERO |
				       PAGEMAP_SCAN_HUGE,
		};
		int count = pagemap_scan(fd, &arg);

		if (count < 0)
			return errno;
		for (int i = 0; i < count && !*error; i++) {
			unsigned flags = flags_of_scan(regions[i].categories);

			if (flags)
				*error = append(pages, regions[i].start, regions[i].end, flags);
		}
		if (*error || arg.walk_end <= at)
			break;
		at = arg.walk_end;
	}
	return 0;
}

/* Returns errno. */
static int read_entries(int fd, const struct mapping *mapping, uint64_t *entries,
			struct pages *pages, struct error **error)
{
	for (uint64_t at = mapping->start; at < mapping->end && !*error;) {
		size_t wanted = (mapping->end - at) / PAGE_SIZE;
		ssize_t got;

		if (wanted > ENTRIES)
			wanted = ENTRIES;
		got = pread(fd, entries, wanted * sizeof(*entries),
			    (off_t)(at / PAGE_SIZE * sizeof(*entries)));
		if (got < 0)
			return errno;
		if (got < (ssize_t)sizeof(*entries))
			break;
		for (size_t i = 0; i < (size_t)got / sizeof(*entries) && !*error; i++) {
			unsigned flags = 0;

			if (entries[i] & PAGEMAP_PRESENT)
				flags = PAGES_RESIDENT;
			else if (entries[i] & PAGEMAP_SWAPPED)
				flags = PAGES_SWAPPED;
			if (flags && entries[i] & PAGEMAP_FILE)
				flags |= PAGES_FILE;
			if (flags)
				*error = append(pages, at + i * PAGE_SIZE, at + (i + 1) * PAGE_SIZE,
						flags);
		}
		at += (uint64_t)got / sizeof(*entries) * PAGE_SIZE;
	}
	return 0;
}

/* What lies there is counted in no RSS. */
static bool is_outside_rss(const struct mapping *mapping)
{
	return mapping->is_huge || !strncmp(mapping->path, "/anon_hugepage", 14) ||
	       !strncmp(mapping->path, "[vvar", 5) || !strcmp(mapping->path, "[vsyscall]") ||
	       !strncmp(mapping->path, "/dev/hugepages/", 15);
}

struct error *pages_read(struct target *target, const struct mapping_vec *maps, struct pages *ret)
{
	cleanup(free) void *buffer = malloc(ENTRIES * sizeof(uint64_t));
	cleanup(close) int fd = -1;
	struct error *error = NULL;

	_Static_assert(REGIONS * sizeof(struct page_region) <= ENTRIES * sizeof(uint64_t), "");
	if (!buffer)
		return &error_no_memory;
	if (!target->process)
		return error_create(ERROR_UNSUPPORTED, "a core file has no page map");
	fd = target_open_proc(target, "pagemap");
	if (fd < 0)
		return error_errno(errno == ENOENT ? ERROR_NO_TARGET : ERROR_PERMISSION, errno,
				   "cannot read the page map of %d", target->pid);
	vec_for_each (mapping, maps) {
		int errnum = ENOTTY;

		if (is_outside_rss(mapping))
			continue;
		if (!ret->zero_unknown)
			errnum = scan(fd, mapping, buffer, ret, &error);
		if (errnum == ENOTTY || errnum == EINVAL) {
			ret->zero_unknown = true;
			errnum = read_entries(fd, mapping, buffer, ret, &error);
		}
		if (!error && errnum)
			error = error_errno(errnum == ESRCH ? ERROR_NO_TARGET : ERROR_FAILED,
					    errnum, "cannot read the page map of %d", target->pid);
		if (error)
			return error;
	}
	return NULL;
}

void pages_deinit(struct pages *pages)
{
	page_run_vec_deinit(&pages->runs);
	*pages = (struct pages){ 0 };
}

void pages_difference(const struct pages *before, const struct pages *after,
		      void (*visit)(void *data, uint64_t start, uint64_t end, unsigned flags),
		      void *data)
{
	size_t i = 0;

	vec_for_each (run, &after->runs) {
		uint64_t at = run->start;

		if (!(run->flags & PAGES_RESIDENT))
			continue;
		while (i < before->runs.size && before->runs.data[i].end <= at)
			i++;
		for (size_t j = i; j < before->runs.size; j++) {
			const struct page_run *old = &before->runs.data[j];

			if (old->start >= run->end)
				break;
			if (!(old->flags & PAGES_RESIDENT))
				continue;
			if (old->start > at)
				visit(data, at, old->start, run->flags);
			at = old->end;
		}
		if (at < run->end)
			visit(data, at, run->end, run->flags);
	}
}
