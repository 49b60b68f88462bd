#include "memprobe/memory_walk.h"

#include <string.h>

#include "memprobe/num.h"

/* Measured: smaller ones cost system calls, larger ones leave the cache. */
#define BUFFER_SIZE  (512u << 10)
#define WINDOW_PAGES 8192u

struct walk {
	struct target *target;
	const struct memory_visitor *visitor;
	void *buffer;
	bool *present; /* WINDOW_PAGES */
};

const struct mapping *memory_first_behind(const struct mapping_vec *maps, uint64_t address)
{
	size_t low = 0, high = maps->size;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (maps->data[middle].end <= address)
			low = middle + 1;
		else
			high = middle;
	}
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

/* At most WINDOW_PAGES pages of private memory. */
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
		if (present)
			error = copy(walk, from, to);
		else
			error = walk->visitor->zeros(walk->visitor->data, from, to - from);
	}
	return error;
}

static struct error *walk_mapping(struct walk *walk, const struct mapping *mapping, uint64_t start,
				  uint64_t end)
{
	struct error *error = NULL;

	if (!memory_is_private(mapping))
		return copy(walk, start, end);
	while (!error && start < end) {
		uint64_t window = round_down(start, PAGE_SIZE) + (uint64_t)WINDOW_PAGES * PAGE_SIZE;
		uint64_t to = min_u64(end, window);

		error = copy_present(walk, start, to);
		start = to;
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
	struct walk walk = { target, visitor, buffer, present };

	if (!buffer || !present)
		return &error_no_memory;
	return walk_all(&walk, maps, start, end);
}
