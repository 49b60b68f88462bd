#include "memprobe/jemalloc_notes.h"

#include <stdlib.h>
#include <string.h>

#include "memprobe/arch.h"
#include "memprobe/map64.h"
#include "memprobe/num.h"
#include "memprobe/range.h"
#include "memprobe/sparse_read.h"

/* jemalloc's own record of a thread is thread-local: it lies this far below the TCB at most. */
#define LOCAL_MAX (32u << 10)

/* Of struct cache_bin_s. */
#define BIN_SIZE       24
#define BIN_HEAD       0
#define BIN_LOW_WATER  16 /* three half words: the low bits of places in its stack */
#define BIN_FULL       18
#define BIN_EMPTY      20
#define BINS_MIN       20 /* in a row */
#define STACK_SIZE_MAX (1u << 15)

/* Of struct extent_s, edata_s. */
#define EXTENT_ADDRESS 8
#define EXTENT_SIZE    16

/* Sizes from here on have an extent of their own. */
#define LARGE_MIN (14u << 10)

struct jemalloc_notes {
	struct range_vec caches; /* normalised */
	struct map64 extents;	 /* address of a large block: size of its extent */
	uint64_t lowest, highest;
};

static uint64_t word_at(const uint8_t *bytes)
{
	uint64_t word;

	memcpy(&word, bytes, sizeof(word));
	return word;
}

static uint16_t half_at(const uint8_t *bytes)
{
	uint16_t half;

	memcpy(&half, bytes, sizeof(half));
	return half;
}

/* ---- the stacks of thread caches ---- */

/* Whether a bin may be at @bytes; its stack then. */
static bool read_bin(const uint8_t *bytes, struct range *ret)
{
	uint64_t head = word_at(bytes + BIN_HEAD);
	uint16_t full = half_at(bytes + BIN_FULL), empty = half_at(bytes + BIN_EMPTY);
	uint16_t size = empty - full, used = empty - (uint16_t)head;
	uint16_t low = empty - half_at(bytes + BIN_LOW_WATER);

	if (!size || size > STACK_SIZE_MAX || used > size || low > size ||
	    (head | full | empty | low) % sizeof(uint64_t) || head < size)
		return false;
	ret->end = head + used;
	ret->start = ret->end - size;
	return true;
}

/* The row of bins that begins at @bytes, whose stacks follow each other: their number. */
static size_t read_row(const uint8_t *bytes, size_t size, struct range *ret)
{
	struct range stack;
	size_t count = 0;

	for (; size - count * BIN_SIZE >= BIN_SIZE; count++) {
		if (!read_bin(bytes + count * BIN_SIZE, &stack) ||
		    (count && stack.start != ret->end))
			break;
		if (!count)
			ret->start = stack.start;
		ret->end = stack.end;
	}
	return count;
}

static struct error *find_cache(struct jemalloc_notes *notes, const uint8_t *bytes, size_t size)
{
	struct error *error = NULL;

	for (size_t at = 0; !error && at + BIN_SIZE <= size; at += sizeof(uint64_t)) {
		struct range stacks;
		size_t count = read_row(bytes + at, size - at, &stacks);

		if (count < BINS_MIN)
			continue;
		error = range_vec_append(&notes->caches, &stacks);
		at += count * BIN_SIZE - sizeof(uint64_t);
	}
	return error;
}

/* @pointer: a thread's, 0: not known. */
static struct error *find_cache_of(struct jemalloc_notes *notes, struct target *target,
				   uint64_t pointer)
{
	cleanup(free) uint8_t *local = malloc(LOCAL_MAX);
	uint64_t end = round_down(pointer, sizeof(uint64_t)), missing = 0;
	struct error *error;

	if (!local)
		return &error_no_memory;
	if (end < LOCAL_MAX)
		return NULL;
	error = target_read_sparse(target, end - LOCAL_MAX, local, LOCAL_MAX, &missing);
	return error ? error : find_cache(notes, local, LOCAL_MAX);
}

static struct error *find_caches(struct jemalloc_notes *notes, struct target *target,
				 const struct thread_vec *threads,
				 const struct thread_state_vec *states)
{
	struct error *error = NULL;

	vec_for_each (thread, threads)
		if (!error)
			error = find_cache_of(notes, target, thread->thread_pointer);
	for (size_t i = 0; !error && states && i < states->size; i++)
		error = find_cache_of(notes, target,
				      target->arch->thread_pointer(&states->data[i].regs));
	ranges_normalise(&notes->caches);
	return error;
}

/* ---- extents ---- */

/* What jemalloc reserves for a large block of so many bytes: four sizes to a doubling, and a page,
 * so that the block may begin at any of its cache lines. */
static uint64_t extent_size(uint64_t size)
{
	uint64_t delta = UINT64_C(1) << (60 - __builtin_clzll(2 * size - 1));

	return round_up(size, delta) + PAGE_SIZE;
}

static struct error *note_extents(struct jemalloc_notes *notes, const struct heap_block_vec *blocks)
{
	struct error *error = NULL;

	notes->lowest = UINT64_MAX;
	vec_for_each (block, blocks) {
		if (error || block->size <= LARGE_MIN || block->size > UINT64_MAX >> 2)
			continue;
		error = map64_put(&notes->extents, block->address, extent_size(block->size));
		notes->lowest = min_u64(notes->lowest, block->address);
		notes->highest = max_u64(notes->highest, block->address);
	}
	return error;
}

struct error *jemalloc_notes_find(struct target *target, const struct thread_vec *threads,
				  const struct thread_state_vec *states,
				  const struct heap_block_vec *blocks, struct jemalloc_notes **ret)
{
	cleanup(jemalloc_notes) struct jemalloc_notes *notes = calloc(1, sizeof(*notes));
	struct error *error = NULL;

	if (!notes)
		return &error_no_memory;
	if (target->arch->bits == 64)
		error = find_caches(notes, target, threads, states);
	if (!error && target->arch->bits == 64)
		error = note_extents(notes, blocks);
	if (!error)
		*ret = take_pointer(notes);
	return error;
}

/* ---- taking them out ---- */

static void erase_caches(const struct jemalloc_notes *notes, uint64_t address, uint8_t *bytes,
			 size_t size)
{
	vec_for_each (cache, &notes->caches) {
		uint64_t start = max_u64(cache->start, address);
		uint64_t end = min_u64(cache->end, address + size);

		if (start < end)
			memset(bytes + (start - address), 0, end - start);
	}
}

/* The number of the size that jemalloc gives to a large block: four to a doubling, after 36 small
 * ones. */
static unsigned size_number(uint64_t size)
{
	unsigned power = 63 - (unsigned)__builtin_clzll(size - 1);

	return 36 + 4 * (power - 14) + (unsigned)(size >> (power - 2)) - 4;
}

/* Whether the bits say: of a large block of that size, and backed by memory. Where the number is
 * depends on the version. */
static bool are_bits_of(uint64_t bits, uint64_t size)
{
	unsigned number = size_number(size);

	if ((bits >> 12 & 3) != 2)
		return false;
	for (unsigned shift = 17; shift <= 20; shift++)
		if ((bits >> shift & 0xff) == number)
			return true;
	return false;
}

/* Bits, the block's address, the extent's size with a serial number in its low bits. */
static bool is_extent(const struct jemalloc_notes *notes, const uint8_t *bytes)
{
	uint64_t address = word_at(bytes + EXTENT_ADDRESS), size;

	if (address < notes->lowest || address > notes->highest)
		return false;
	size = map64_get(&notes->extents, address);
	return size != MAP64_NONE && round_down(word_at(bytes + EXTENT_SIZE), PAGE_SIZE) == size &&
	       are_bits_of(word_at(bytes), size - PAGE_SIZE);
}

void jemalloc_notes_erase(void *data, uint64_t address, uint8_t *bytes, size_t size)
{
	const struct jemalloc_notes *notes = data;

	erase_caches(notes, address, bytes, size);
	if (!notes->extents.size)
		return;
	for (size_t at = 0; at + EXTENT_SIZE + sizeof(uint64_t) <= size; at += sizeof(uint64_t))
		if (is_extent(notes, bytes + at))
			memset(bytes + at + EXTENT_ADDRESS, 0, sizeof(uint64_t));
}

void jemalloc_notes_destroy(struct jemalloc_notes *notes)
{
	if (!notes)
		return;
	range_vec_deinit(&notes->caches);
	map64_deinit(&notes->extents);
	free(notes);
}
