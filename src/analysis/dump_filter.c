#include "memprobe/dump_filter.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "memprobe/memory_walk.h"
#include "memprobe/num.h"

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

/* What is in shared memory is in the file behind it. */
static uint64_t next_in_file(int fd, const struct mapping *mapping, uint64_t at, uint64_t end)
{
	const uint64_t shift = mapping->offset - mapping->start;
	off_t data = lseek(fd, (off_t)(at + shift), SEEK_DATA);

	if (data < 0)
		return errno == ENXIO ? end : at;
	return min_u64(end, round_down((uint64_t)data, PAGE_SIZE) - shift);
}

struct error *dump_find_reserves(struct target *target, const struct mapping *mapping,
				 uint64_t size, struct range_vec *ret)
{
	uint64_t at = mapping->start, end = mapping->start + size;
	cleanup(close) int fd = -1;

	if (size < DUMP_RESERVE)
		return NULL;
	if (mapping->perms & PERM_SHARED)
		target_backing(target, mapping, &fd);
	if (fd < 0 && !memory_is_private(mapping))
		return NULL;
	while (at < end) {
		uint64_t next = fd < 0 ? target_next_present(target, at, end)
				       : next_in_file(fd, mapping, at, end);

		if (next >= at + DUMP_RESERVE) {
			struct range reserve = { at, next };
			struct error *error = range_vec_append(ret, &reserve);

			if (error)
				return error;
		}
		/* From each multiple on: what is smaller and lies between two is not looked for. */
		at = min_u64(end, round_down(max_u64(at, next), DUMP_RESERVE) + DUMP_RESERVE);
	}
	return NULL;
}
