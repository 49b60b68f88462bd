#include "memprobe/sparse_read.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "memprobe/num.h"

#define WINDOW_PAGES 1024u

struct error *target_read_all(struct target *target, uint64_t address, void *buffer, size_t size,
			      uint64_t *missing_ret)
{
	uint64_t end = address + size;
	uint8_t *bytes = buffer;

	while (address < end) {
		struct error *error = target_read(target, address, bytes, end - address);
		uint64_t bad, next;

		if (!error)
			return NULL;
		if (!error_is(error, ERROR_FAULT))
			return error;
		bad = min_u64(max_u64(error->address, address), end - 1);
		error_destroy(error);
		next = min_u64(end, round_down(bad, PAGE_SIZE) + PAGE_SIZE);
		/* What lies before the fault has been read. */
		memset(bytes + (bad - address), 0, next - bad);
		if (missing_ret)
			*missing_ret += next - bad;
		bytes += next - address;
		address = next;
	}
	return NULL;
}

/* At most WINDOW_PAGES pages. */
static struct error *read_window(struct target *target, uint64_t address, uint8_t *bytes,
				 size_t size, uint64_t *missing_ret)
{
	uint64_t first = round_down(address, PAGE_SIZE), end = address + size;
	size_t pages = (round_up(end, PAGE_SIZE) - first) / PAGE_SIZE;
	bool present[WINDOW_PAGES + 1];
	struct error *error = target_page_present(target, first, pages, present);

	if (error_is(error, ERROR_UNSUPPORTED) || error_is(error, ERROR_PERMISSION)) {
		error_destroy(error);
		return target_read_all(target, address, bytes, size, missing_ret);
	}
	for (size_t i = 0; !error && i < pages;) {
		bool is_present = present[i];
		uint64_t from = max_u64(address, first + i * PAGE_SIZE), to;

		while (i < pages && present[i] == is_present)
			i++;
		to = min_u64(end, first + i * PAGE_SIZE);
		if (is_present)
			error = target_read_all(target, from, bytes + (from - address), to - from,
						missing_ret);
		else
			memset(bytes + (from - address), 0, to - from);
	}
	return error;
}

struct error *target_read_sparse(struct target *target, uint64_t address, void *buffer, size_t size,
				 uint64_t *missing_ret)
{
	uint64_t end = address + size;
	uint8_t *bytes = buffer;
	struct error *error = NULL;

	if (end < address)
		return error_fault(address);
	while (!error && address < end) {
		uint64_t to = min_u64(end, round_down(address, PAGE_SIZE) +
						   (uint64_t)WINDOW_PAGES * PAGE_SIZE);

		error = read_window(target, address, bytes, to - address, missing_ret);
		bytes += to - address;
		address = to;
	}
	return error;
}

struct error *target_read_shared(struct target *target, const struct mapping *mapping,
				 uint64_t address, void *buffer, size_t size)
{
	cleanup(close) int fd = -1;
	enum page_backing backing;
	uint8_t *bytes = buffer;
	uint64_t offset;

	if (!mapping)
		return target_read_sparse(target, address, buffer, size, NULL);
	backing = target_backing(target, mapping, &fd);
	offset = mapping->offset + (address - mapping->start);
	if (backing == BACKING_ANY)
		return target_read_all(target, address, buffer, size, NULL);
	if (backing != BACKING_FILE)
		return target_read_sparse(target, address, buffer, size, NULL);
	memset(bytes, 0, size);
	for (size_t done = 0; done < size;) {
		off_t data = lseek(fd, (off_t)(offset + done), SEEK_DATA);
		ssize_t got;

		/* Reading a hole would fill the page cache with zeros. */
		if (data < 0 && errno == ENXIO)
			break;
		if (data > (off_t)(offset + done)) {
			done = min_u64(size, (uint64_t)data - offset);
			continue;
		}
		got = pread(fd, bytes + done, size - done, (off_t)(offset + done));
		if (got < 0 && errno == EINTR)
			continue;
		/* Behind its end there is nothing. */
		if (got <= 0)
			break;
		done += got;
	}
	return NULL;
}
