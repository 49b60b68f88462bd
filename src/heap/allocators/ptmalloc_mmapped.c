/*
 * Blocks that malloc mapped by themselves. There is no list of them: they are known by the header
 * with IS_MMAPPED at the start of their pages, and how many there are by struct malloc_par.
 * Source: glibc malloc/malloc.c (sysmalloc_mmap, _int_memalign, struct malloc_par), 2.12 to 2.43.
 */
#include <inttypes.h>
#include <string.h>

#include "memprobe/num.h"
#include "memprobe/sparse_read.h"
#include "ptmalloc_walk.h"

/* DEFAULT_MMAP_MAX, the initial value of mp_.n_mmaps_max, which tells struct malloc_par. */
#define N_MMAPS_MAX 65536u
/* How far from main_arena its data segment is searched. */
#define PAR_SCAN_MAX (4u << 20)
#define CHUNKS_MAX   (1u << 16) /* as many as malloc maps by default */
#define CHOICES_MAX  (4u << 20)
/* memalign() takes powers of two: up to so many bits of an address. */
#define ALIGNMENT_BITS 40u

/* What looks like one. */
struct found {
	uint64_t start, header, total;
	unsigned unused; /* bytes at its end that no block has */
	bool is_chosen;
};

VEC_DEFINE(found_vec, struct found)

struct mmapped {
	struct ptmalloc_walk *walk;
	uint64_t expected, expected_bytes; /* STAT_UNKNOWN: by what is found */
	struct found_vec found;
	uint64_t bytes; /* of all that were found */
	unsigned budget;
	size_t sorted;	   /* so many of them were found first, by address */
	bool is_shared;	   /* the mapping at hand holds regions of arenas, too */
	uint64_t low, end; /* of the memory around the mapping at hand, see extent() */
	uint64_t covered;  /* the end of what this pass found last */
};

/* ---- struct malloc_par ---- */

/*
 * n_mmaps, n_mmaps_max, max_n_mmaps, no_dyn_threshold (int), mmapped_mem, max_mmapped_mem,
 * [max_total_mem to 2.25,] sbrk_base: @words points at sbrk_base, @size bytes may be looked at
 * before it.
 */
static bool is_par(const uint8_t *words, size_t size, unsigned word, uint64_t *count_ret,
		   uint64_t *bytes_ret)
{
	for (unsigned extra = 0; extra <= 1; extra++) {
		const uint8_t *mem = words - (2 + extra) * word;
		uint64_t bytes, most;

		if (size < (2 + extra) * word + 24)
			return false;
		bytes = load_word(mem, word);
		most = load_word(mem + word, word);
		if (bytes % PAGE_SIZE || bytes > most)
			continue;
		/* From 2.35 on five ints precede: padding on 64 bits. */
		for (unsigned pad = 0; pad <= (word == 8 ? 4u : 0u); pad += 4) {
			const uint8_t *ints = mem - pad - 16;
			uint32_t count = load_word(ints, 4), max = load_word(ints + 4, 4);
			uint32_t peak = load_word(ints + 8, 4), fixed = load_word(ints + 12, 4);

			if (count > peak || fixed > 1 || bytes / PAGE_SIZE < count ||
			    (count == 0) != (bytes == 0) ||
			    (max != N_MMAPS_MAX && (!fixed || max > INT32_MAX || max < count)) ||
			    (peak == 0) != (most == 0))
				continue;
			*count_ret = count;
			*bytes_ret = bytes;
			return true;
		}
	}
	return false;
}

/* Where @arena's first piece from the break begins; 0 as long as it has none. */
static bool is_sbrk_base(const struct ptmalloc_walk *walk, const struct arena *arena,
			 uint64_t value)
{
	if (!arena->top)
		return value == 0;
	vec_for_each (region, &walk->heap->regions)
		if (value == region->start && region->arena == arena->index)
			return value != 0;
	return false;
}

/* What the copy of malloc with @arena counts itself, if it is found in the data around that. */
static struct error *read_par(struct ptmalloc_walk *walk, const struct arena *arena,
			      uint64_t *count_ret, uint64_t *bytes_ret)
{
	const struct mapping *mapping = mappings_find(walk->heap->maps, arena->address);
	uint64_t start, end, count, total;
	cleanup(free) uint8_t *bytes = NULL;
	unsigned word = walk->word;
	struct error *error;

	*count_ret = *bytes_ret = STAT_UNKNOWN;
	if (!mapping)
		return NULL;
	start = max_u64(mapping->start, arena->address - min_u64(arena->address, PAR_SCAN_MAX));
	start = round_down(start, PAGE_SIZE);
	end = min_u64(mapping->end, arena->address + PAR_SCAN_MAX);
	bytes = malloc(end - start);
	if (!bytes)
		return &error_no_memory;
	error = target_read_all(walk->heap->target, start, bytes, end - start, NULL);
	/* Without an arena in use there are few blocks, but zeros are many. */
	if (!arena->top)
		*count_ret = *bytes_ret = 0;
	for (size_t i = 0; !error && i + word <= end - start; i += word) {
		if (!is_sbrk_base(walk, arena, load_word(bytes + i, word)) ||
		    !is_par(bytes + i, i, word, &count, &total) || (!arena->top && !count))
			continue;
		*count_ret = count;
		*bytes_ret = total;
		break;
	}
	return error;
}

/* Of all copies of malloc. */
static struct error *read_pars(struct mmapped *mmapped)
{
	struct ptmalloc_walk *walk = mmapped->walk;

	mmapped->expected = mmapped->expected_bytes = 0;
	vec_for_each (arena, &walk->arenas) {
		uint64_t count, bytes;
		struct error *error;

		if (!arena->is_main)
			continue;
		error = read_par(walk, arena, &count, &bytes);
		if (error)
			return error;
		if (count == STAT_UNKNOWN) {
			mmapped->expected = mmapped->expected_bytes = STAT_UNKNOWN;
			break;
		}
		mmapped->expected += count;
		mmapped->expected_bytes += bytes;
	}
	return NULL;
}

/* ---- the chunks ---- */

bool ptmalloc_mmapped_header(const uint8_t *bytes, unsigned word_size, uint64_t address,
			     struct mmapped_header *ret)
{
	/* From 2.43 on, bit 0 of prev_size tells huge pages. */
	uint64_t offset = load_word(bytes, word_size) & ~(uint64_t)1;
	uint64_t field = load_word(bytes + word_size, word_size);
	uint64_t size = field & ~(uint64_t)CHUNK_FLAGS, total = size + offset;
	unsigned unused = 0;

	if ((field & CHUNK_FLAGS) != CHUNK_MMAPPED || offset > address || total < size ||
	    (address - offset) % PAGE_SIZE)
		return false;
	/* Until 2.42 the size reaches to the end of the mapping. From 2.43 on it spares a header,
	 * of which the block has, as elsewhere, the first word. */
	if (total % PAGE_SIZE) {
		total += 2 * word_size;
		unused = word_size;
	}
	if (!total || total % PAGE_SIZE)
		return false;
	*ret = (struct mmapped_header){ address - offset, total, unused };
	return true;
}

static bool overlaps_region(const struct mmapped *mmapped, uint64_t start, uint64_t end)
{
	vec_for_each (region, &mmapped->walk->heap->regions)
		if (region->start < end && start < region->end)
			return true;
	return false;
}

/* Whether the header at @bytes, which lies at @address, is of a chunk in the memory at hand. */
static bool is_chunk(const struct mmapped *mmapped, const uint8_t *bytes, uint64_t address,
		     struct found *ret)
{
	struct mmapped_header header;

	if (!ptmalloc_mmapped_header(bytes, mmapped->walk->word, address, &header) ||
	    header.start < mmapped->low || header.total > mmapped->end - header.start ||
	    header.start + header.total <= address ||
	    overlaps_region(mmapped, header.start, header.start + header.total))
		return false;
	*ret = (struct found){
		.start = header.start,
		.header = address,
		.total = header.total,
		.unused = header.unused,
		.is_chosen = true,
	};
	return true;
}

/* Bytes in front of the first header: blocks of i386 are aligned to 16 from 2.26 on. */
static unsigned padding(const struct ptmalloc_walk *walk)
{
	return 2 * walk->word == walk->heap->alignment ? 0 : 8;
}

/*
 * A chunk that begins with the pages at @start. memalign() moves the header to where the alignment
 * asked for has the block, tells by prev_size how far, and leaves the first header as it was. @page
 * holds the first page. *found_ret: there is one.
 */
static struct error *find_at(struct mmapped *mmapped, uint64_t start, const uint8_t *page,
			     struct found *ret, bool *found_ret)
{
	struct ptmalloc_walk *walk = mmapped->walk;
	uint64_t first = start + padding(walk), tried = first;

	*found_ret = is_chunk(mmapped, page + (first - start), first, ret) && ret->start == start;
	for (unsigned bit = 4; bit <= ALIGNMENT_BITS; bit++) {
		uint64_t alignment = 1ull << bit, header;
		uint8_t copy[16];
		const uint8_t *bytes = copy;
		struct found found;

		header = round_up(first + 2 * walk->word, alignment) - 2 * walk->word;
		if (header - first < walk->chunk_min)
			header += alignment;
		if (header >= mmapped->end)
			break;
		if (header == tried)
			continue;
		tried = header;
		if (header - start < PAGE_SIZE) {
			bytes = page + (header - start);
		} else {
			struct error *error = target_read_sparse(walk->heap->target, header, copy,
								 2 * walk->word, NULL);

			if (error)
				return error;
		}
		if (is_chunk(mmapped, bytes, header, &found) && found.start == start) {
			*ret = found;
			*found_ret = true;
			break;
		}
	}
	return NULL;
}

/* The chunk that begins with the page at @address, or whose header is at that page's end. */
static struct error *try_page(struct mmapped *mmapped, const uint8_t *page, uint64_t address,
			      uint64_t *end_ret)
{
	const struct ptmalloc_walk *walk = mmapped->walk;
	unsigned last = PAGE_SIZE - 2 * walk->word;
	struct found found;
	bool is_found;
	struct error *error = find_at(mmapped, address, page, &found, &is_found);

	if (!error && !is_found)
		is_found = is_chunk(mmapped, page + last, address + last, &found);
	if (error || !is_found)
		return error;
	*end_ret = found.start + found.total;
	mmapped->bytes += found.total;
	return found_vec_append(&mmapped->found, &found);
}

/* By an arena, or by what the first pass found. */
static bool is_taken(const struct mmapped *mmapped, uint64_t address, uint64_t *end_ret)
{
	const struct heap_region_vec *regions = &mmapped->walk->heap->regions;
	size_t low = 0, high = mmapped->sorted;

	for (size_t i = 0; mmapped->is_shared && i < regions->size; i++)
		if (address >= regions->data[i].start && address < regions->data[i].end) {
			*end_ret = regions->data[i].end;
			return true;
		}
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		const struct found *found = &mmapped->found.data[middle];

		if (found->start + found->total <= address)
			low = middle + 1;
		else
			high = middle;
	}
	if (low == mmapped->sorted || mmapped->found.data[low].start > address)
		return false;
	*end_ret = mmapped->found.data[low].start + mmapped->found.data[low].total;
	return true;
}

static bool has_region(const struct mmapped *mmapped, const struct mapping *mapping)
{
	vec_for_each (region, &mmapped->walk->heap->regions)
		if (region->start < mapping->end && mapping->start < region->end)
			return true;
	return false;
}

static bool is_complete(const struct mmapped *mmapped)
{
	return mmapped->found.size == mmapped->expected &&
	       mmapped->bytes == mmapped->expected_bytes;
}

/* Chunk after chunk from the mapping's start; with @thorough every page of it. */
static struct error *try_mapping(struct mmapped *mmapped, const struct mapping *mapping,
				 bool thorough)
{
	struct ptmalloc_walk *walk = mmapped->walk;
	uint64_t address = max_u64(mapping->start, mmapped->covered);

	mmapped->is_shared = has_region(mmapped, mapping);
	while (address < mapping->end && mmapped->found.size < CHUNKS_MAX) {
		uint8_t first[PAGE_SIZE];
		const uint8_t *page = first;
		struct error *error;
		uint64_t end = 0;

		if (is_taken(mmapped, address, &end)) {
			address = end;
			continue;
		}
		if (thorough)
			error = ptmalloc_window(walk, address, PAGE_SIZE, mapping->end, &page);
		else
			error = target_read_sparse(walk->heap->target, address, first, PAGE_SIZE,
						   NULL);
		if (!error && page)
			error = try_page(mmapped, page, address, &end);
		if (error)
			return error;
		mmapped->covered = max_u64(mmapped->covered, end);
		if (!end && !thorough)
			break;
		address = max_u64(end, address + PAGE_SIZE);
	}
	return NULL;
}

/*
 * The kernel splits a block's mapping where the program treats parts of it differently (madvise(),
 * mprotect(), mlock(), names ...), and merges neighbours: a chunk may lie anywhere in what is
 * contiguous.
 */
static struct error *try_mappings(struct mmapped *mmapped, bool thorough)
{
	const struct mapping_vec *maps = mmapped->walk->heap->maps;
	struct error *error = NULL;

	mmapped->low = mmapped->end = mmapped->covered = 0;
	vec_for_each (mapping, maps) {
		if (error || !ptmalloc_is_memory(mapping))
			continue;
		if (mapping->start >= mmapped->end)
			ptmalloc_extent(maps, mapping->start, &mmapped->low, &mmapped->end);
		if (mapping->perms & PERM_READ && strcmp(mapping->path, "[heap]"))
			error = try_mapping(mmapped, mapping, thorough);
	}
	return error;
}

/*
 * Marks those from @at on that have just @count with @bytes; rather the first ones, which were
 * found where chunks mostly are. False: no selection has, or it would take too long.
 */
static bool choose(struct mmapped *mmapped, uint64_t count, uint64_t bytes)
{
	struct found_vec *found = &mmapped->found;
	size_t at = 0;

	vec_for_each (one, found)
		one->is_chosen = false;
	while (mmapped->budget--) {
		if (count == 0 && bytes == 0)
			return true;
		if (at < found->size && count && found->data[at].total <= bytes &&
		    found->size - at >= count) {
			found->data[at].is_chosen = true;
			count--;
			bytes -= found->data[at++].total;
			continue;
		}
		if (at < found->size && found->size - at > count && count) {
			at++;
			continue;
		}
		/* Back to the last that was chosen: without it. */
		do {
			if (at-- == 0)
				return false;
		} while (!found->data[at].is_chosen);
		found->data[at].is_chosen = false;
		count++;
		bytes += found->data[at++].total;
	}
	return false;
}

static struct error *add_regions(struct mmapped *mmapped)
{
	struct heap *heap = mmapped->walk->heap;
	struct error *error = NULL;

	vec_for_each (found, &mmapped->found) {
		struct heap_region region = {
			.start = found->start,
			.end = found->start + found->total,
			.base = found->header + 2 * mmapped->walk->word,
			.limit = found->start + found->total - found->unused,
			.mmapped = true,
		};

		if (!error && found->is_chosen)
			error = heap_region_vec_append(&heap->regions, &region);
	}
	return error;
}

/*
 * A block that is aligned beyond a page and that realloc() had the kernel move is aligned no more:
 * its header is at the end of some page, and the old one at the start of its mapping says how large
 * it was at first. @next: where the next chunk begins.
 */
static struct error *find_moved(struct mmapped *mmapped, struct found *found, uint64_t next)
{
	struct ptmalloc_walk *walk = mmapped->walk;
	unsigned last = PAGE_SIZE - 2 * walk->word;

	if (found->header != found->start + padding(walk) ||
	    !ptmalloc_extent(walk->heap->maps, found->start, &mmapped->low, &mmapped->end))
		return NULL;
	next = min_u64(next, mmapped->end);
	for (uint64_t at = found->start; at < next; at += PAGE_SIZE) {
		const uint8_t *page;
		struct found moved;
		struct error *error = ptmalloc_window(walk, at, PAGE_SIZE, next, &page);

		if (error || !page)
			return error;
		if (is_chunk(mmapped, page + last, at + last, &moved) &&
		    moved.start == found->start) {
			mmapped->bytes += moved.total - found->total;
			*found = moved;
			return NULL;
		}
	}
	return NULL;
}

static struct error *find_all_moved(struct mmapped *mmapped)
{
	struct found_vec *found = &mmapped->found;
	struct error *error = NULL;

	for (size_t i = 0; !error && i < found->size && !is_complete(mmapped); i++)
		error = find_moved(mmapped, &found->data[i],
				   i + 1 < found->size ? found->data[i + 1].start : UINT64_MAX);
	return error;
}

static struct error *find_chunks(struct mmapped *mmapped)
{
	struct heap *heap = mmapped->walk->heap;
	struct error *error;

	if (mmapped->expected == 0)
		return NULL;
	error = try_mappings(mmapped, false);
	if (error || mmapped->expected == STAT_UNKNOWN || is_complete(mmapped))
		return error;
	error = find_all_moved(mmapped);
	if (error || is_complete(mmapped))
		return error;
	mmapped->sorted = mmapped->found.size;
	/* In the midst of mappings, for the kernel merges them. */
	error = try_mappings(mmapped, true);
	if (error || choose(mmapped, mmapped->expected, mmapped->expected_bytes))
		return error;
	vec_for_each (found, &mmapped->found)
		found->is_chosen = true;
	return heap_add_missing(
		heap, mmapped->walk->arenas.data[0].address,
		mmapped->expected_bytes - min_u64(mmapped->bytes, mmapped->expected_bytes),
		"malloc has %" PRIu64 " mmapped blocks of %" PRIu64 " bytes; %zu of %" PRIu64
		" bytes were found",
		mmapped->expected, mmapped->expected_bytes, mmapped->found.size, mmapped->bytes);
}

struct error *ptmalloc_add_mmapped(struct ptmalloc_walk *walk)
{
	struct mmapped mmapped = {
		.walk = walk,
		.expected = STAT_UNKNOWN,
		.expected_bytes = STAT_UNKNOWN,
		.budget = CHOICES_MAX,
	};
	bool known;
	struct error *error = read_pars(&mmapped);

	if (!error)
		error = find_chunks(&mmapped);
	if (!error)
		error = add_regions(&mmapped);
	known = mmapped.expected != STAT_UNKNOWN;
	walk->heap->mmapped_count = known ? mmapped.expected : mmapped.found.size;
	walk->heap->mmapped_bytes = known ? mmapped.expected_bytes : mmapped.bytes;
	found_vec_deinit(&mmapped.found);
	return error;
}
