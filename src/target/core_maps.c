/* A core's segments as mappings: with their files, names and what was dumped of them. */
#include "core_private.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "memprobe/log.h"
#include "memprobe/num.h"

#define WINDOW_PAGES 4096u

/* The kernel puts the heap at most this far behind the executable: arch_randomize_brk(). */
#define BRK_DISTANCE_MAX (1ull << 30)

/* ---- the segments' files ---- */

static int compare_segments(const void *left, const void *right)
{
	const struct core_segment *a = left, *b = right;

	return a->start < b->start ? -1 : a->start > b->start;
}

static int compare_mapped(const void *left, const void *right)
{
	const struct core_mapped *a = left, *b = right;

	return a->start < b->start ? -1 : a->start > b->start;
}

/* The part [start, end) of @segment. */
static struct core_segment cut(const struct core_segment *segment, uint64_t start, uint64_t end)
{
	const uint64_t skip = start - segment->start, size = end - start;
	const uint64_t promised = segment->dumped + segment->lost;
	struct core_segment part = *segment;

	part.start = start;
	part.end = end;
	part.offset += min_u64(skip, promised);
	part.file_offset += skip;
	part.dumped = min_u64(segment->dumped - min_u64(segment->dumped, skip), size);
	part.lost = min_u64(promised - min_u64(promised, skip), size) - part.dumped;
	return part;
}

static struct error *sort_segments(struct core *core)
{
	struct core_segment_vec sorted = { 0 };
	uint64_t end = 0;

	if (core->segments.size)
		qsort(core->segments.data, core->segments.size, sizeof(*core->segments.data),
		      compare_segments);
	vec_for_each (segment, &core->segments) {
		struct core_segment part;
		struct error *error;

		if (segment->end <= end)
			continue;
		part = cut(segment, max_u64(segment->start, end), segment->end);
		error = core_segment_vec_append(&sorted, &part);
		if (error) {
			core_segment_vec_deinit(&sorted);
			return error;
		}
		end = part.end;
	}
	core_segment_vec_deinit(&core->segments);
	core->segments = sorted;
	return NULL;
}

static void sort_mapped(struct core_mapped_vec *mapped)
{
	size_t kept = 0;
	uint64_t end = 0;

	if (mapped->size)
		qsort(mapped->data, mapped->size, sizeof(*mapped->data), compare_mapped);
	for (size_t i = 0; i < mapped->size; i++) {
		if (mapped->data[i].start < end)
			continue;
		end = mapped->data[i].end;
		mapped->data[kept++] = mapped->data[i];
	}
	mapped->size = kept;
}

/* Appends the parts of @segment, each with its file. @next is the first file entry that ends behind
 * its start. */
static struct error *split(const struct core *core, const struct core_segment *segment, size_t next,
			   struct core_segment_vec *ret)
{
	uint64_t at = segment->start;

	while (at < segment->end) {
		const struct core_mapped *mapped =
			next < core->mapped.size ? &core->mapped.data[next] : NULL;
		struct core_segment part;
		struct error *error;

		if (!mapped || mapped->start >= segment->end) {
			part = cut(segment, at, segment->end);
		} else if (mapped->start > at) {
			part = cut(segment, at, mapped->start);
		} else {
			part = cut(segment, at, min_u64(mapped->end, segment->end));
			part.file = mapped->file;
			part.file_offset = mapped->offset + (at - mapped->start);
			next++;
		}
		error = core_segment_vec_append(ret, &part);
		if (error)
			return error;
		at = part.end;
	}
	return NULL;
}

/* gcore leaves out what it does not dump. What is not written to was code or constants. */
static struct error *add_unlisted(const struct core *core, const struct core_mapped *mapped,
				  size_t first, struct core_segment_vec *ret)
{
	uint64_t at = mapped->start;

	for (size_t i = first; at < mapped->end; i++) {
		const struct core_segment *segment =
			i < core->segments.size ? &core->segments.data[i] : NULL;
		struct core_segment part = {
			.start = at,
			.end = segment ? min_u64(max_u64(segment->start, at), mapped->end)
				       : mapped->end,
			.perms = PERM_READ | PERM_EXEC,
			.file = mapped->file,
			.file_offset = mapped->offset + (at - mapped->start),
		};
		struct error *error =
			part.start < part.end ? core_segment_vec_append(ret, &part) : NULL;

		if (error)
			return error;
		at = segment ? max_u64(segment->end, at) : mapped->end;
	}
	return NULL;
}

static void mark_deleted(struct core_file *file)
{
	static const char suffix[] = " (deleted)";
	size_t size = strlen(file->path), suffix_size = sizeof(suffix) - 1;

	file->deleted = size > suffix_size && !strcmp(file->path + size - suffix_size, suffix);
}

struct error *core_place_files(struct core *core)
{
	struct core_segment_vec placed = { 0 };
	struct error *error = sort_segments(core);
	size_t next = 0, first = 0;

	sort_mapped(&core->mapped);
	vec_for_each (file, &core->files)
		mark_deleted(file);
	for (size_t i = 0; !error && i < core->segments.size; i++) {
		const struct core_segment *segment = &core->segments.data[i];

		while (next < core->mapped.size && core->mapped.data[next].end <= segment->start)
			next++;
		error = split(core, segment, next, &placed);
	}
	for (size_t i = 0; !error && i < core->mapped.size; i++) {
		while (first < core->segments.size &&
		       core->segments.data[first].end <= core->mapped.data[i].start)
			first++;
		error = add_unlisted(core, &core->mapped.data[i], first, &placed);
	}
	if (error) {
		core_segment_vec_deinit(&placed);
		return error;
	}
	core_segment_vec_deinit(&core->segments);
	core->segments = placed;
	if (placed.size)
		qsort(placed.data, placed.size, sizeof(*placed.data), compare_segments);
	return NULL;
}

/* ---- which pages have data ---- */

static bool is_zero(const unsigned char *bytes, size_t size)
{
	return !bytes[0] && !memcmp(bytes, bytes + 1, size - 1);
}

/* In a file without holes, untouched pages are zeros. */
static void find_nonzero(const struct core *core, uint64_t offset, size_t pages, bool *present)
{
	unsigned char buffer[16 * PAGE_SIZE];

	for (size_t i = 0; i < pages;) {
		size_t count = min_u64(pages - i, sizeof(buffer) / PAGE_SIZE);
		size_t got = core_pread(core, offset + i * PAGE_SIZE, buffer, count * PAGE_SIZE);

		memset(buffer + got, 0, count * PAGE_SIZE - got);
		for (size_t page = 0; page < count; page++)
			present[i + page] = !is_zero(buffer + page * PAGE_SIZE, PAGE_SIZE);
		i += count;
	}
}

/* By the holes of the file. */
static void find_extents(const struct core *core, uint64_t offset, size_t pages, bool *present)
{
	uint64_t at = offset, end = offset + pages * PAGE_SIZE;

	memset(present, 0, pages * sizeof(*present));
	while (at < end) {
		off_t data = lseek(core->fd, (off_t)at, SEEK_DATA);
		off_t hole = data < 0 ? -1 : lseek(core->fd, data, SEEK_HOLE);
		uint64_t last;

		if (data < 0 || (uint64_t)data >= end)
			return;
		last = hole < data ? end : min_u64((uint64_t)hole, end);
		for (size_t page = ((uint64_t)data - offset) / PAGE_SIZE;
		     page < (last - offset + PAGE_SIZE - 1) / PAGE_SIZE; page++)
			present[page] = true;
		at = max_u64(last, at + 1);
	}
}

static void find_data(const struct core *core, uint64_t offset, size_t pages, bool *present)
{
	if (offset > INT64_MAX || pages * PAGE_SIZE > INT64_MAX - offset)
		memset(present, 0, pages * sizeof(*present));
	else if (core->dense)
		find_nonzero(core, offset, pages, present);
	else
		find_extents(core, offset, pages, present);
}

/* The first page of [at, end) of a segment's dumped bytes that is no hole of the file. */
static uint64_t next_data(const struct core *core, const struct core_segment *segment, uint64_t at,
			  uint64_t end)
{
	const uint64_t offset = segment->offset + at;
	off_t data;

	if (core->dense || offset > INT64_MAX)
		return at;
	data = lseek(core->fd, (off_t)offset, SEEK_DATA);
	if (data < 0)
		return errno == ENXIO ? end : at;
	return min_u64(end, round_down(at + ((uint64_t)data - offset), PAGE_SIZE));
}

uint64_t core_next_present(struct target *target, uint64_t address, uint64_t end)
{
	const struct core *core = target->backend;
	const struct core_segment *segment = core_segment_at(core, address);
	uint64_t at, dumped, zeros;

	if (!segment)
		return address;
	zeros = core_zeros(core, segment, address);
	if (zeros)
		return min_u64(end, address + zeros);
	at = address - segment->start;
	dumped = min_u64(round_up(segment->dumped, PAGE_SIZE), end - segment->start);
	return at < dumped ? max_u64(address, segment->start + next_data(core, segment, at, dumped))
			   : address;
}

struct error *core_page_present(struct target *target, uint64_t address, size_t pages,
				bool *present)
{
	const struct core *core = target->backend;

	address = round_down(address, PAGE_SIZE);
	for (size_t i = 0; i < pages;) {
		const struct core_segment *segment = core_segment_at(core, address + i * PAGE_SIZE);
		uint64_t at, dumped, zeros;
		size_t count;

		if (!segment) {
			present[i++] = false;
			continue;
		}
		at = address + i * PAGE_SIZE - segment->start;
		dumped = (segment->dumped + PAGE_SIZE - 1) / PAGE_SIZE;
		if (at / PAGE_SIZE < dumped) {
			count = min_u64(pages - i, dumped - at / PAGE_SIZE);
			find_data(core, segment->offset + at, count, present + i);
		} else if ((zeros = core_zeros(core, segment, segment->start + at))) {
			count = min_u64(pages - i, zeros / PAGE_SIZE);
			memset(present + i, 0, count * sizeof(*present));
		} else {
			/* Not known to be zeros: to be read, and then a fault. */
			bool unknown = segment->lost || (segment->perms & 7);

			count = min_u64(pages - i,
					(segment->end - segment->start - at) / PAGE_SIZE);
			for (size_t page = 0; page < count; page++)
				present[i + page] = unknown;
		}
		i += count;
	}
	return NULL;
}

static uint64_t count_dumped(const struct core *core, const struct core_segment *segment,
			     bool *window)
{
	uint64_t pages = (segment->dumped + PAGE_SIZE - 1) / PAGE_SIZE, count = 0;

	for (uint64_t at = 0; at < pages; at += WINDOW_PAGES) {
		size_t part;

		at = next_data(core, segment, at * PAGE_SIZE, pages * PAGE_SIZE) / PAGE_SIZE;
		part = min_u64(pages - at, WINDOW_PAGES);

		find_data(core, segment->offset + at * PAGE_SIZE, part, window);
		for (size_t i = 0; i < part; i++)
			count += window[i];
	}
	return count * PAGE_SIZE;
}

/* ---- mappings ---- */

static bool holds(const struct core_segment *segment, uint64_t address)
{
	return address && address >= segment->start && address < segment->end;
}

/* What the kernel writes into the auxiliary vector lies at the upper end of the first stack. */
static const char *special_name(struct target *target, const struct core_segment *segment)
{
	const struct core *core = target->backend;
	const struct core_segment *next = segment + 1;
	const struct core_segment *end = core->segments.data + core->segments.size;
	uint64_t value = 0;

	if (segment->start == 0xffffffffff600000)
		return "[vsyscall]";
	if (target_auxv(target, AT_SYSINFO_EHDR, &value)) {
		if (holds(segment, value))
			return "[vdso]";
		if (next < end && next->start == segment->end && holds(next, value) &&
		    !segment->dumped && !(segment->perms & PERM_WRITE))
			return "[vvar]";
	}
	if (!(segment->perms & PERM_WRITE))
		return "";
	if ((target_auxv(target, AT_RANDOM, &value) && holds(segment, value)) ||
	    (target_auxv(target, AT_EXECFN, &value) && holds(segment, value)))
		return "[stack]";
	return "";
}

/* The end of the file that has the program headers; 0: not found. */
static uint64_t exe_end(struct target *target)
{
	const struct core *core = target->backend;
	uint64_t headers = 0, end = 0;
	int file = -1;

	if (!target_auxv(target, AT_PHDR, &headers))
		return 0;
	vec_for_each (segment, &core->segments)
		if (holds(segment, headers))
			file = segment->file;
	vec_for_each (segment, &core->segments)
		if (file >= 0 && segment->file == file)
			end = segment->end;
	return end;
}

/*
 * The brk area is not recorded. It is the first writable memory without a file behind the
 * executable and its .bss, which adjoins it.
 */
static uint64_t find_heap(struct target *target)
{
	const struct core *core = target->backend;
	uint64_t end = exe_end(target);

	vec_for_each (segment, &core->segments) {
		if (!end || segment->start < end)
			continue;
		if (segment->start - end > BRK_DISTANCE_MAX || segment->file >= 0)
			return 0;
		if (segment->start == end)
			end = segment->end;
		else if ((segment->perms & 7) == (PERM_READ | PERM_WRITE))
			return *special_name(target, segment) ? 0 : segment->start;
		else
			return 0;
	}
	return 0;
}

static struct error *add_mapping(struct target *target, const struct core_segment *segment,
				 uint64_t heap, struct mapping_vec *ret)
{
	const struct core *core = target->backend;
	struct mapping mapping = {
		.start = segment->start,
		.end = segment->end,
		.perms = segment->perms,
	};
	const char *name;
	struct error *error;

	if (segment->file >= 0) {
		name = core->files.data[segment->file].path;
		mapping.deleted = core->files.data[segment->file].deleted;
		mapping.offset = segment->file_offset;
		/* Not recorded: numbers that tell the files apart. */
		mapping.inode = (uint64_t)segment->file + 1;
	} else {
		name = segment->start == heap ? "[heap]" : special_name(target, segment);
	}
	mapping.path = strndup(name, strlen(name) - (mapping.deleted ? strlen(" (deleted)") : 0));
	if (!mapping.path)
		return &error_no_memory;
	error = mapping_vec_append(ret, &mapping);
	if (error)
		free(mapping.path);
	return error;
}

/* What memprobe wrote down; false: nothing, or it is damaged. */
static bool read_recorded(const struct core *core, struct mapping_vec *ret)
{
	const size_t first = ret->size;
	struct error *error;

	if (!core->maps_text)
		return false;
	error = maps_parse(core->maps_text, core->maps_size, ret);
	for (size_t i = first; !error && i < ret->size; i++)
		if ((ret->data[i].start | ret->data[i].end) % PAGE_SIZE ||
		    (i > first && ret->data[i].start < ret->data[i - 1].end))
			error = error_create(ERROR_FAILED, "not in order, or no pages");
	if (!error && ret->size > first)
		return true;
	log_debug("the list of mappings in the core: %s", error ? error->message : "empty");
	error_destroy(error);
	while (ret->size > first)
		free(ret->data[--ret->size].path);
	return false;
}

/* The core knows only what was dumped, which stands for what was resident. */
static struct error *add_usage(const struct core *core, struct mapping_vec *maps, size_t first)
{
	cleanup(free) bool *window = malloc(WINDOW_PAGES * sizeof(*window));

	if (!window)
		return &error_no_memory;
	for (size_t i = first; i < maps->size; i++)
		maps->data[i].usage_known = true;
	vec_for_each (segment, &core->segments) {
		struct mapping *mapping = mappings_find(maps, segment->start);
		uint64_t bytes = mapping ? count_dumped(core, segment, window) : 0;

		if (!bytes)
			continue;
		mapping->usage.rss += bytes;
		mapping->usage.pss += bytes;
		if (segment->perms & PERM_WRITE || segment->file < 0)
			mapping->usage.private_dirty += bytes;
		else
			mapping->usage.private_clean += bytes;
		if (segment->file < 0)
			mapping->usage.anonymous += bytes;
	}
	return NULL;
}

struct error *core_read_maps(struct target *target, enum maps_detail detail,
			     struct mapping_vec *ret)
{
	const struct core *core = target->backend;
	const size_t first = ret->size;
	struct error *error = NULL;

	if (!read_recorded(core, ret)) {
		uint64_t heap = find_heap(target);

		for (size_t i = 0; !error && i < core->segments.size; i++)
			error = add_mapping(target, &core->segments.data[i], heap, ret);
	}
	if (!error && detail == MAPS_USAGE)
		error = add_usage(core, ret, first);
	return error;
}
