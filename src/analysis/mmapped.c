#include "memprobe/mmapped.h"

#include <string.h>

#include "memprobe/ptmalloc.h"

/* Two words of a header, and on i386 two before it. */
#define HEADER_WORDS 4

bool mapping_is_anonymous(const struct mapping *mapping)
{
	return !(mapping->perms & PERM_SHARED) && mapping->inode == 0 &&
	       (mapping->path[0] == '\0' || !strncmp(mapping->path, "[anon:", 6));
}

bool mapping_may_hold_chunks(const struct mapping *mapping)
{
	/* PROT_EXEC: under READ_IMPLIES_EXEC every readable mapping has it. */
	unsigned wanted = PERM_READ | PERM_WRITE;

	return mapping_is_anonymous(mapping) && (mapping->perms & wanted) == wanted &&
	       !(mapping->usage_known && mapping->usage.rss == 0 && mapping->usage.swap == 0);
}

/*
 * @size bytes of the page that begins at @address. What holds nothing, or is not mapped, is no
 * error; it is just not read.
 */
static struct error *read_present(struct target *target, uint64_t address, void *buffer,
				  size_t size, bool *read_ret)
{
	bool present = true;
	struct error *error = target_page_present(target, address, 1, &present);

	*read_ret = false;
	if (error_is(error, ERROR_UNSUPPORTED)) {
		/* A core: reading it changes nothing. */
		error_destroy(error);
		error = NULL;
	}
	if (error || !present)
		return error;
	error = target_read(target, address, buffer, size);
	*read_ret = !error;
	if (error_is(error, ERROR_FAULT)) {
		error_destroy(error);
		error = NULL;
	}
	return error;
}

/* The bytes that the chunk mapped at @address takes in all; 0: there is none. */
static struct error *read_chunk(struct target *target, uint64_t address, uint64_t *total_ret)
{
	unsigned word_size = target->arch->word_size, last = target->arch->bits == 32 ? 8 : 0;
	unsigned char bytes[8 * HEADER_WORDS];
	struct error *error;
	bool found;

	error = read_present(target, address, bytes, HEADER_WORDS * word_size, &found);
	*total_ret = 0;
	if (error || !found)
		return error;
	/* The page begins with the header, or on i386 with 8 bytes before it. */
	for (unsigned at = 0; at <= last && !*total_ret; at += 8) {
		struct mmapped_header header;

		if (ptmalloc_mmapped_header(bytes + at, word_size, address + at, &header) &&
		    header.start == address)
			*total_ret = header.total;
	}
	return NULL;
}

struct error *mmapped_chunks(struct target *target, const struct mapping *mapping,
			     size_t *count_ret, uint64_t *bytes_ret)
{
	uint64_t address = mapping->start;

	*count_ret = 0;
	*bytes_ret = 0;
	while (address < mapping->end && *count_ret < MMAPPED_CHUNKS_MAX) {
		uint64_t total;
		struct error *error = read_chunk(target, address, &total);

		if (error)
			return error;
		if (!total || total > mapping->end - address)
			break;
		address += total;
		*bytes_ret += total;
		++*count_ret;
	}
	return NULL;
}
