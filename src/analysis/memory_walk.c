#include "memprobe/memory_walk.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "memprobe/lower_bound.h"
#include "memprobe/num.h"

/* Measured: smaller ones cost system calls, larger ones leave the cache. */
#define BUFFER_SIZE  (512u << 10)
#define WINDOW_PAGES 8192u

struct walk {
	struct target *target;
	const struct memory_visitor *visitor;
	void *buffer;
	bool *present; /* WINDOW_PAGES */
	/* Of the mapping at hand. */
	const struct mapping *mapping;
	enum page_backing backing;
	int fd;
};

const struct mapping *memory_first_behind(const struct mapping_vec *maps, uint64_t address)
{
	size_t low = lower_bound(maps->data, maps->size, mapping, mapping->end <= address);

	return maps->data + low;
}

bool memory_is_mapped(const struct mapping_vec *maps, uint64_t start, uint64_t end)
{
	const struct mapping *mapping = memory_first_behind(maps, start);

	return mapping < maps->data + maps->size && mapping->start < end;
}

bool memory_is_private(const struct mapping *mapping)
{
	const char *path = mapping->path;

	return !(mapping->perms & PERM_SHARED) && mapping->inode == 0 &&
	       (!path[0] || !strcmp(path, "[heap]") || !strncmp(path, "[stack", 6) ||
		!strncmp(path, "[anon:", 6));
}

/* Reads around the pages that cannot be read. */
static struct error *copy(struct walk *walk, uint64_t start, uint64_t end)
{
	const struct memory_visitor *visitor = walk->visitor;

	while (start < end) {
		size_t size = min_u64(end - start, BUFFER_SIZE);
		struct error *error = target_read(walk->target, start, walk->buffer, size);
		uint64_t bad;

		if (!error) {
			error = visitor->bytes(visitor->data, start, walk->buffer, size);
			if (error)
				return error;
			start += size;
			continue;
		}
		if (!error_is(error, ERROR_FAULT))
			return error;
		bad = max_u64(error->address, start);
		error_destroy(error);
		if (bad > start) {
			/* What is in front of it, by itself. */
			error = copy(walk, start, min_u64(bad, start + size));
			start = min_u64(bad, start + size);
		} else {
			uint64_t next = min_u64(end, round_down(start, PAGE_SIZE) + PAGE_SIZE);

			error = visitor->missing(visitor->data, start, next - start);
			start = next;
		}
		if (error)
			return error;
	}
	return NULL;
}

/* What another process wrote; where nobody did, nothing comes into being. */
static struct error *copy_file(struct walk *walk, uint64_t start, uint64_t end)
{
	const struct memory_visitor *visitor = walk->visitor;
	const uint64_t shift = walk->mapping->offset - walk->mapping->start;
	struct stat status;
	uint64_t file_end;

	if (fstat(walk->fd, &status) < 0)
		return visitor->missing(visitor->data, start, end - start);
	/* A process gets SIGBUS behind that. */
	file_end = min_u64(end, max_u64(start, round_up(status.st_size, PAGE_SIZE) - shift));
	while (start < file_end) {
		off_t data = lseek(walk->fd, (off_t)(start + shift), SEEK_DATA);
		size_t size = min_u64(file_end - start, BUFFER_SIZE);
		struct error *error;
		ssize_t got;

		/* ENXIO: there is none any more. What cannot tell (hugetlbfs) is read. */
		if (data < 0 && errno == ENXIO)
			data = (off_t)(file_end + shift);
		if (data > (off_t)(start + shift)) {
			uint64_t to = min_u64(file_end, (uint64_t)data - shift);

			error = visitor->zeros(visitor->data, start, to - start);
			start = to;
		} else {
			memset(walk->buffer, 0, size);
			got = pread(walk->fd, walk->buffer, size, (off_t)(start + shift));
			if (got < 0)
				error = visitor->missing(visitor->data, start, size);
			else
				error = visitor->bytes(visitor->data, start, walk->buffer, size);
			start += size;
		}
		if (error)
			return error;
	}
	return start < end ? visitor->missing(visitor->data, start, end - start) : NULL;
}

static struct error *copy_absent(struct walk *walk, uint64_t start, uint64_t end)
{
	const struct memory_visitor *visitor = walk->visitor;

	if (memory_is_private(walk->mapping))
		return visitor->zeros(visitor->data, start, end - start);
	if (walk->backing == BACKING_FILE)
		return copy_file(walk, start, end);
	return visitor->missing(visitor->data, start, end - start);
}

/* At most WINDOW_PAGES pages of memory whose absent ones are not to be read. */
static struct error *copy_present(struct walk *walk, uint64_t start, uint64_t end)
{
	uint64_t first = round_down(start, PAGE_SIZE);
	size_t pages = (round_up(end, PAGE_SIZE) - first) / PAGE_SIZE;
	struct error *error = target_page_present(walk->target, first, pages, walk->present);

	if (error_is(error, ERROR_UNSUPPORTED) || error_is(error, ERROR_PERMISSION)) {
		error_destroy(error);
		return copy(walk, start, end);
	}
	for (size_t i = 0; !error && i < pages;) {
		uint64_t from = max_u64(start, first + i * PAGE_SIZE), to;
		bool present = walk->present[i];

		while (i < pages && walk->present[i] == present)
			i++;
		to = min_u64(end, first + i * PAGE_SIZE);
		error = present ? copy(walk, from, to) : copy_absent(walk, from, to);
	}
	return error;
}

static struct error *walk_mapping(struct walk *walk, const struct mapping *mapping, uint64_t start,
				  uint64_t end)
{
	cleanup(close) int fd = -1;
	struct error *error = NULL;

	walk->mapping = mapping;
	walk->backing = target_backing(walk->target, mapping, &fd);
	walk->fd = fd;
	if (!memory_is_private(mapping) && walk->backing != BACKING_FILE &&
	    walk->backing != BACKING_TOUCHED)
		return copy(walk, start, end);
	while (!error && start < end) {
		uint64_t next = target_next_present(walk->target, start, end);
		uint64_t to = min_u64(end, round_down(next, PAGE_SIZE) +
						   (uint64_t)WINDOW_PAGES * PAGE_SIZE);

		if (next > start)
			error = copy_absent(walk, start, next);
		if (!error && next < end)
			error = copy_present(walk, next, to);
		start = next < end ? to : end;
	}
	return error;
}

static struct error *walk_all(struct walk *walk, const struct mapping_vec *maps, uint64_t start,
			      uint64_t end)
{
	const struct memory_visitor *visitor = walk->visitor;
	const struct mapping *mapping = memory_first_behind(maps, start);
	struct error *error = NULL;

	while (!error && start < end) {
		bool mapped = mapping < maps->data + maps->size && mapping->start < end;
		uint64_t to = mapped ? max_u64(mapping->start, start) : end;

		if (to > start)
			error = visitor->missing(visitor->data, start, to - start);
		start = to;
		if (error || !mapped)
			continue;
		to = min_u64(mapping->end, end);
		error = walk_mapping(walk, mapping, start, to);
		start = to;
		mapping++;
	}
	return error;
}

struct error *memory_walk(struct target *target, const struct mapping_vec *maps, uint64_t start,
			  uint64_t end, const struct memory_visitor *visitor)
{
	cleanup(free) void *buffer = malloc(BUFFER_SIZE);
	cleanup(free) bool *present = calloc(WINDOW_PAGES + 1, sizeof(*present));
	struct walk walk = {
		.target = target,
		.visitor = visitor,
		.buffer = buffer,
		.present = present,
	};

	if (!buffer || !present)
		return &error_no_memory;
	return walk_all(&walk, maps, start, end);
}
