#include "memprobe/dump_filter.h"

#include <string.h>

static bool is_special(const struct mapping *mapping, const char *name)
{
	return !mapping->inode && !strncmp(mapping->path, name, strlen(name));
}

/* A shared file without a name is memory: memfd, System V, /dev/zero. */
static bool is_unnamed(const struct mapping *mapping)
{
	return mapping->deleted || !mapping->inode;
}

static bool wants_all(const struct mapping *mapping, unsigned filter)
{
	const bool shared = mapping->perms & PERM_SHARED;
	/* Where nothing is known of the pages, what could be written has been. */
	const bool has_anonymous = mapping->usage_known
					   ? mapping->usage.anonymous || mapping->usage.swap
					   : mapping->perms & PERM_WRITE;

	if (mapping->is_huge)
		return filter & (shared ? DUMP_HUGE_SHARED : DUMP_HUGE_PRIVATE);
	if (shared)
		return filter & (is_unnamed(mapping) ? DUMP_ANON_SHARED : DUMP_FILE_SHARED);
	if (!mapping->inode || has_anonymous) {
		if (filter & DUMP_ANON_PRIVATE)
			/* Reserved and never touched: there is nothing to dump. */
			return (mapping->perms & PERM_READ) || has_anonymous;
		return mapping->inode && (filter & DUMP_FILE_PRIVATE);
	}
	return filter & DUMP_FILE_PRIVATE;
}

uint64_t dump_filter_size(struct target *target, const struct mapping *mapping, unsigned filter)
{
	const uint64_t size = mapping->end - mapping->start;

	if (is_special(mapping, "[vdso]"))
		return size;
	if (is_special(mapping, "[vvar") || is_special(mapping, "[vsyscall]"))
		return 0;
	if (target_backing(target, mapping, NULL) == BACKING_DEVICE)
		return 0;
	if (filter & DUMP_ALL)
		return size;
	if (mapping->no_dump)
		return 0;
	if (wants_all(mapping, filter))
		return size;
	if ((filter & DUMP_ELF_HEADERS) && mapping->inode && mapping->offset == 0 &&
	    (mapping->perms & PERM_READ) && !(mapping->perms & PERM_SHARED) &&
	    target_may_be_elf(target, mapping))
		return size < PAGE_SIZE ? size : PAGE_SIZE;
	return 0;
}
