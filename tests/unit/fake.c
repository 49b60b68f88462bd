#include "fake.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "memprobe/io.h"
#include "memprobe/num.h"

struct segment {
	struct fake_segment fake; /* its pointers are not ours but for path */
	char *path;
	unsigned char *bytes; /* fake.size of them */
	bool *present;	      /* for each page */
};

VEC_DEFINE(segment_vec, struct segment)

struct file {
	char *path;
	int fd;
};

VEC_DEFINE(file_vec, struct file)

struct fake {
	struct segment_vec segments; /* by address */
	struct thread_vec threads;
	struct file_vec files;
	char *auxv;
	size_t auxv_size;
};

static struct segment *segment_at(struct target *target, uint64_t address)
{
	struct fake *fake = target->backend;

	vec_for_each (segment, &fake->segments)
		if (address >= segment->fake.start &&
		    address - segment->fake.start < segment->fake.size)
			return segment;
	return NULL;
}

static struct error *fake_read(struct target *target, uint64_t address, void *buffer, size_t size)
{
	while (size) {
		struct segment *segment = segment_at(target, address);
		uint64_t offset, part;

		if (!segment || !(segment->fake.perms & PERM_READ))
			return error_fault(address);
		offset = address - segment->fake.start;
		part = min_u64(size, segment->fake.size - offset);
		memcpy(buffer, segment->bytes + offset, part);
		buffer = (char *)buffer + part;
		address += part;
		size -= part;
	}
	return NULL;
}

struct error *fake_target_write(struct target *target, uint64_t address, const void *bytes,
				size_t size)
{
	while (size) {
		struct segment *segment = segment_at(target, address);
		uint64_t offset, part;

		if (!segment)
			return error_fault(address);
		offset = address - segment->fake.start;
		part = min_u64(size, PAGE_SIZE - offset % PAGE_SIZE);
		memcpy(segment->bytes + offset, bytes, part);
		segment->present[offset / PAGE_SIZE] = true;
		bytes = (const char *)bytes + part;
		address += part;
		size -= part;
	}
	return NULL;
}

static void take_usage(const struct segment *segment, struct mapping *mapping)
{
	mapping->usage_known = true;
	for (uint64_t i = 0; i < segment->fake.size / PAGE_SIZE; i++)
		mapping->usage.rss += segment->present[i] ? PAGE_SIZE : 0;
	mapping->usage.pss = mapping->usage.private_dirty = mapping->usage.rss;
	mapping->usage.anonymous = segment->fake.inode ? 0 : mapping->usage.rss;
}

static struct error *fake_read_maps(struct target *target, enum maps_detail detail,
				    struct mapping_vec *ret)
{
	struct fake *fake = target->backend;

	vec_for_each (segment, &fake->segments) {
		struct mapping mapping = {
			.start = segment->fake.start,
			.end = segment->fake.start + segment->fake.size,
			.offset = segment->fake.offset,
			.inode = segment->fake.inode,
			.perms = segment->fake.perms,
			.deleted = segment->fake.deleted,
			.path = strdup(segment->path),
		};
		struct error *error = mapping.path ? NULL : &error_no_memory;

		if (detail == MAPS_USAGE)
			take_usage(segment, &mapping);
		if (!error)
			error = mapping_vec_append(ret, &mapping);
		if (error) {
			free(mapping.path);
			return error;
		}
	}
	return NULL;
}

static struct error *fake_read_threads(struct target *target, struct thread_vec *ret)
{
	struct fake *fake = target->backend;
	struct error *error = NULL;

	vec_for_each (thread, &fake->threads)
		if (!error)
			error = thread_vec_append(ret, thread);
	return error;
}

static struct error *fake_open_module(struct target *target, const struct module *module,
				      int *fd_ret)
{
	struct fake *fake = target->backend;

	vec_for_each (file, &fake->files) {
		if (strcmp(file->path, module->path))
			continue;
		*fd_ret = dup(file->fd);
		return *fd_ret < 0
			       ? error_errno(ERROR_FAILED, errno, "cannot open %s", module->path)
			       : NULL;
	}
	return error_create(ERROR_FAILED, "cannot open %s", module->path);
}

static struct error *fake_read_auxv(struct target *target, char **bytes_ret, size_t *size_ret)
{
	struct fake *fake = target->backend;

	*bytes_ret = malloc(fake->auxv_size + 1);
	if (!*bytes_ret)
		return &error_no_memory;
	if (fake->auxv_size)
		memcpy(*bytes_ret, fake->auxv, fake->auxv_size);
	*size_ret = fake->auxv_size;
	return NULL;
}

static struct error *fake_page_present(struct target *target, uint64_t address, size_t pages,
				       bool *present)
{
	for (size_t i = 0; i < pages; i++, address += PAGE_SIZE) {
		struct segment *segment = segment_at(target, address);

		present[i] =
			segment && segment->present[(address - segment->fake.start) / PAGE_SIZE];
	}
	return NULL;
}

static uint64_t fake_next_present(struct target *target, uint64_t address, uint64_t end)
{
	bool present = false;

	while (address < end) {
		fake_page_present(target, round_down(address, PAGE_SIZE), 1, &present);
		if (present)
			return address;
		address = round_down(address, PAGE_SIZE) + PAGE_SIZE;
	}
	return end;
}

static void segment_free(struct segment *segment)
{
	free(segment->path);
	free(segment->bytes);
	free(segment->present);
}

static void fake_destroy(struct target *target)
{
	struct fake *fake = target->backend;

	if (!fake)
		return;
	vec_for_each (segment, &fake->segments)
		segment_free(segment);
	vec_for_each (file, &fake->files) {
		free(file->path);
		close(file->fd);
	}
	segment_vec_deinit(&fake->segments);
	thread_vec_deinit(&fake->threads);
	file_vec_deinit(&fake->files);
	free(fake->auxv);
	free(fake);
}

static const struct target_ops fake_ops = {
	.read = fake_read,
	.read_maps = fake_read_maps,
	.read_threads = fake_read_threads,
	.open_module = fake_open_module,
	.read_auxv = fake_read_auxv,
	.page_present = fake_page_present,
	.next_present = fake_next_present,
	.destroy = fake_destroy,
};

struct error *fake_target_create(const struct arch *arch, struct target **ret)
{
	cleanup(target) struct target *target = calloc(1, sizeof(*target));

	if (!target)
		return &error_no_memory;
	target->ops = &fake_ops;
	target->arch = arch;
	target->backend = calloc(1, sizeof(struct fake));
	target->name = strdup("fake");
	target->exe = strdup("");
	if (!target->backend || !target->name || !target->exe)
		return &error_no_memory;
	*ret = take_pointer(target);
	return NULL;
}

static struct error *check_segment(struct target *target, const struct fake_segment *new)
{
	struct fake *fake = target->backend;

	if (!new->size || new->start % PAGE_SIZE || new->size % PAGE_SIZE ||
	    new->bytes_size > new->size)
		return error_create(ERROR_USAGE, "a segment is made of whole pages");
	vec_for_each (segment, &fake->segments)
		if (new->start < segment->fake.start + segment->fake.size &&
		    segment->fake.start < new->start + new->size)
			return error_create(ERROR_USAGE, "segments overlap");
	return NULL;
}

static struct error *insert_segment(struct fake *fake, const struct segment *segment)
{
	struct error *error = segment_vec_append(&fake->segments, segment);

	for (size_t i = fake->segments.size; !error && i-- > 1;) {
		struct segment *data = fake->segments.data, other = data[i];

		if (data[i - 1].fake.start < data[i].fake.start)
			break;
		data[i] = data[i - 1];
		data[i - 1] = other;
	}
	return error;
}

struct error *fake_target_add_segment(struct target *target, const struct fake_segment *new)
{
	struct error *error = check_segment(target, new);
	struct segment segment = { .fake = *new };

	if (error)
		return error;
	segment.fake.bytes = NULL;
	segment.fake.path = NULL;
	segment.path = strdup(new->path ? new->path : "");
	segment.bytes = calloc(1, new->size);
	segment.present = calloc(new->size / PAGE_SIZE, sizeof(*segment.present));
	if (!segment.path || !segment.bytes || !segment.present)
		error = &error_no_memory;
	if (!error)
		error = insert_segment(target->backend, &segment);
	if (error) {
		segment_free(&segment);
		return error;
	}
	target_forget_modules(target);
	return fake_target_write(target, new->start, new->bytes, new->bytes_size);
}

struct error *fake_target_add_thread(struct target *target, const struct thread *thread)
{
	struct fake *fake = target->backend;

	return thread_vec_append(&fake->threads, thread);
}

struct error *fake_target_add_file(struct target *target, const char *path, const void *bytes,
				   size_t size)
{
	struct fake *fake = target->backend;
	cleanup(close) int fd = memfd_create("fake", MFD_CLOEXEC);
	struct file file = { .path = strdup(path), .fd = fd };
	struct error *error;

	if (fd < 0)
		error = error_errno(ERROR_FAILED, errno, "cannot create a memory file");
	else
		error = file.path ? write_all(fd, bytes, size, path) : &error_no_memory;
	if (!error)
		error = file_vec_append(&fake->files, &file);
	if (error)
		free(file.path);
	else
		take_fd(&fd);
	return error;
}

struct error *fake_target_set_auxv(struct target *target, const void *bytes, size_t size)
{
	struct fake *fake = target->backend;
	char *copy = malloc(size + 1);

	if (!copy)
		return &error_no_memory;
	memcpy(copy, bytes, size);
	free(fake->auxv);
	fake->auxv = copy;
	fake->auxv_size = size;
	return NULL;
}
