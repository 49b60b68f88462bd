#include "memprobe/mmapped.h"

#include <string.h>

#include "memprobe/num.h"

#define CHUNK_FLAGS   7u
#define CHUNK_MMAPPED 2u
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

static struct error *read_words(struct target *target, uint64_t address, uint64_t *words,
				size_t count, bool *read_ret)
{
	size_t word_size = target->arch->word_size;
	unsigned char bytes[8 * HEADER_WORDS];
	struct error *error = read_present(target, address, bytes, count * word_size, read_ret);

	for (size_t i = 0; i < count; i++)
		words[i] = *read_ret ? load_word(bytes + i * word_size, word_size) : 0;
	return error;
}

/*
 * The bytes that the chunk mapped at @address takes in all, from its two header words; 0: this is
 * no header. @offset: i386 puts the header 8 bytes in, to align the block to 16.
 */
static uint64_t chunk_total(const struct target *target, const uint64_t *words, uint64_t offset)
{
	uint64_t size = words[1] & ~(uint64_t)CHUNK_FLAGS;
	uint64_t total = size + offset;

	/* From 2.43 on, bit 0 of prev_size tells huge pages. */
	if ((words[1] & CHUNK_FLAGS) != CHUNK_MMAPPED || (words[0] & ~(uint64_t)1) != offset)
		return 0;
	/* Until 2.42 the size reaches to the end of the mapping, from 2.43 on it spares a header.
	 */
	if (total % PAGE_SIZE)
		total += 2 * target->arch->word_size;
	return total % PAGE_SIZE == 0 && total >= size ? total : 0;
}

static struct error *read_chunk(struct target *target, uint64_t address, uint64_t *total_ret)
{
	uint64_t words[HEADER_WORDS];
	struct error *error;
	bool found;

	/* The page begins with the header, or on i386 with 8 bytes before it. */
	error = read_words(target, address, words, HEADER_WORDS, &found);
	*total_ret = 0;
	if (error || !found)
		return error;
	*total_ret = chunk_total(target, words, 0);
	if (!*total_ret && target->arch->bits == 32)
		*total_ret = chunk_total(target, words + 2, 8);
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
