#include "memprobe/pthread_lists.h"

#include <stdlib.h>

#include "memprobe/num.h"
#include "memprobe/sparse_read.h"

/* Links of all lists that are read, at most. */
#define LINKS_MAX (512u << 10)
/* How far from the head of one list those of the others are looked for. */
#define NEAR (512u << 10)
/* Words there that look like a list. */
#define HEADS_MAX 4096u

/* TERMINATED_BIT of cancelhandling. */
#define TERMINATED 0x20u

struct lists {
	struct target *target;
	const struct mapping_vec *maps;
	struct pthread_block_vec *blocks;
	size_t budget; /* links that may still be read */
	uint8_t bytes[PTHREAD_BLOCK_SIZE];
};

/* A link of a list: in a control block, or a list's head. */
struct link {
	uint64_t next, previous;
	bool is_block;
	struct pthread_block block;
};

/* ---- one control block ---- */

static bool is_stack_memory(const struct mapping *mapping)
{
	return (mapping->perms & PERM_WRITE) && !(mapping->perms & PERM_SHARED);
}

/* Where the memory around @mapping begins and ends that may be one stack, though a part of it was
 * advised or protected differently. */
static void find_run(const struct mapping_vec *maps, const struct mapping *mapping,
		     const struct mapping **first_ret, const struct mapping **last_ret)
{
	const struct mapping *first = mapping, *last = mapping;
	const struct mapping *end = maps->data + maps->size;

	while (first > maps->data && first[-1].end == first->start && is_stack_memory(&first[-1]))
		first--;
	while (last + 1 < end && last[1].start == last->end && is_stack_memory(&last[1]))
		last++;
	*first_ret = first;
	*last_ret = last;
}

/*
 * stackblock, stackblock_size and guardsize: the words that make a range with the control block at
 * its end. (A small tid before a list pointer looks like a range, too, but reaches over
 * everything.)
 */
static bool take_bounds(const struct mapping_vec *maps, const struct mapping *first,
			const struct mapping *last, uint64_t words[3], struct pthread_block *block)
{
	uint64_t start = words[0], length = words[1], guard = words[2], end;
	const struct mapping *lowest;

	if (!start || start >= block->address || length < 2 * PAGE_SIZE ||
	    __builtin_add_overflow(start, length, &end) || end <= block->address ||
	    end - block->address > 2 * PAGE_SIZE || end > last->end)
		return false;
	if (guard >= length || guard % PAGE_SIZE)
		guard = 0;
	start += guard;
	lowest = mappings_find(maps, start);
	/* A guard that the program has made in its own stack. */
	if (start < first->start && (!lowest || lowest->end != first->start))
		return false;
	block->start = max_u64(start, first->start);
	block->end = end;
	return true;
}

/* Whether __nptl_free_tcb() (__free_tcb() to 2.33) has seen it. */
static bool is_terminated(const struct arch *arch, uint64_t address, const uint8_t *bytes,
			  size_t size)
{
	const unsigned word = arch->word_size;
	unsigned at = arch->pthread.list + 2 * word, end = at + 6 * word;

	for (; at < end && at + arch->pthread.cancelhandling + 4 <= size; at += word)
		if (load_word(bytes + at, word) == address + at)
			return load_word(bytes + at + arch->pthread.cancelhandling, 4) & TERMINATED;
	return false;
}

bool pthread_block_parse(const struct arch *arch, const struct mapping_vec *maps, uint64_t address,
			 const uint8_t *bytes, size_t size, struct pthread_block *ret)
{
	const struct mapping *own = mappings_find(maps, address), *first, *last;
	const unsigned word = arch->word_size, self = arch->pthread.self;

	if (!self || !own || size < arch->pthread.list + 2 * word + 4 ||
	    load_word(bytes, word) != address || load_word(bytes + self, word) != address)
		return false;
	*ret = (struct pthread_block){
		.address = address,
		.tid = (int32_t)load_word(bytes + arch->pthread.list + 2 * word, 4),
	};
	ret->is_freed = ret->tid < 0 || (!ret->tid && is_terminated(arch, address, bytes, size));
	find_run(maps, own, &first, &last);
	for (unsigned at = 0; at + 3 * word <= size; at += word) {
		uint64_t words[3];

		for (unsigned i = 0; i < 3; i++)
			words[i] = load_word(bytes + at + i * word, word);
		if (take_bounds(maps, first, last, words, ret)) {
			ret->bounds = address + at;
			break;
		}
	}
	return true;
}

/* ---- lists ---- */

size_t pthread_block_read(struct target *target, const struct mapping_vec *maps, uint64_t address,
			  uint8_t *bytes)
{
	const struct mapping *mapping = mappings_find(maps, address);
	size_t size = mapping ? min_u64(PTHREAD_BLOCK_SIZE, mapping->end - address) : 0;
	struct error *error = size ? target_read(target, address, bytes, size) : NULL;

	/* The guard of the next stack, which is no mapping of its own (MADV_GUARD_INSTALL). */
	if (error)
		size = error_is(error, ERROR_FAULT) ? error->address - address : 0;
	error_destroy(error);
	return size;
}

static bool read_link_words(struct target *target, uint64_t at, struct link *ret)
{
	struct error *error = target_read_word(target, at, &ret->next);

	if (!error)
		error = target_read_word(target, at + target->arch->word_size, &ret->previous);
	if (!error)
		return true;
	error_destroy(error);
	return false;
}

/* The link at @at; false: it cannot be read. */
static bool read_link(struct lists *lists, uint64_t at, struct link *ret)
{
	const struct arch *arch = lists->target->arch;
	const unsigned word = arch->word_size, offset = arch->pthread.list;
	const struct mapping *mapping = mappings_find(lists->maps, at);
	uint64_t address = at - offset;
	size_t size;

	if (!mapping || !is_stack_memory(mapping) || at % word || !lists->budget)
		return false;
	lists->budget--;
	*ret = (struct link){ 0 };
	size = pthread_block_read(lists->target, lists->maps, address, lists->bytes);
	if (address >= mapping->start && size >= offset + 2 * word) {
		ret->is_block = pthread_block_parse(arch, lists->maps, address, lists->bytes, size,
						    &ret->block);
		ret->next = load_word(lists->bytes + offset, word);
		ret->previous = load_word(lists->bytes + offset + word, word);
		return true;
	}
	return read_link_words(lists->target, at, ret);
}

/*
 * Takes the ring that has a link at @start, if all its links agree and one is no control block:
 * that is *head_ret. Else nothing of it, and 0.
 */
static struct error *take_ring(struct lists *lists, uint64_t start, uint64_t *head_ret)
{
	struct pthread_block_vec *blocks = lists->blocks;
	const size_t first = blocks->size;
	uint64_t at = start, head = 0, previous = 0;
	struct error *error = NULL;
	struct link link;

	*head_ret = 0;
	while (read_link(lists, at, &link) && (at == start || link.previous == previous) &&
	       (link.is_block || !head)) {
		if (link.is_block)
			error = pthread_block_vec_append(blocks, &link.block);
		else
			head = at;
		if (error)
			return error;
		previous = at;
		at = link.next;
		if (at != start)
			continue;
		if (!head || !read_link(lists, start, &link) || link.previous != previous)
			break;
		*head_ret = head;
		return NULL;
	}
	blocks->size = first;
	return NULL;
}

/* Whether the words at @at look like the head of a list that is not empty. */
static bool may_be_head(struct lists *lists, uint64_t at, const uint8_t *bytes)
{
	const unsigned word = lists->target->arch->word_size;
	uint64_t next = load_word(bytes, word), previous = load_word(bytes + word, word), back;
	const struct mapping *mapping;
	struct error *error;

	if (!next || !previous || next == at || next % word || previous % word)
		return false;
	mapping = mappings_find(lists->maps, next);
	if (!mapping || !is_stack_memory(mapping) || !mappings_find(lists->maps, previous))
		return false;
	error = target_read_word(lists->target, next + word, &back);
	if (error) {
		error_destroy(error);
		return false;
	}
	return back == at;
}

/* The other lists: their heads are variables of the same library. */
static struct error *take_others(struct lists *lists, uint64_t head)
{
	const unsigned word = lists->target->arch->word_size;
	const struct mapping *first, *last;
	uint64_t start, end, found;
	cleanup(free) uint8_t *bytes = NULL;
	struct error *error;
	unsigned count = 0;

	find_run(lists->maps, mappings_find(lists->maps, head), &first, &last);
	start = max_u64(first->start, head - min_u64(head, NEAR));
	end = min_u64(last->end, head + NEAR);
	bytes = malloc(end - start);
	if (!bytes)
		return &error_no_memory;
	error = target_read_sparse(lists->target, start, bytes, end - start, NULL);
	if (error) {
		error_destroy(error);
		return NULL;
	}
	for (uint64_t at = start; !error && at + 2 * word <= end && count < HEADS_MAX; at += word) {
		if (at == head || !may_be_head(lists, at, bytes + (at - start)))
			continue;
		count++;
		error = take_ring(lists, at, &found);
	}
	return error;
}

struct error *pthread_lists_read(struct target *target, const struct mapping_vec *maps,
				 uint64_t address, struct pthread_block_vec *ret)
{
	const struct arch *arch = target->arch;
	struct lists *lists;
	uint64_t head = 0;
	struct link link;
	struct error *error = NULL;

	if (!arch->pthread.self || !mappings_find(maps, address))
		return NULL;
	lists = malloc(sizeof(*lists));
	if (!lists)
		return &error_no_memory;
	lists->target = target;
	lists->maps = maps;
	lists->blocks = ret;
	lists->budget = LINKS_MAX;
	if (read_link(lists, address + arch->pthread.list, &link) && link.is_block)
		error = take_ring(lists, address + arch->pthread.list, &head);
	if (!error && head)
		error = take_others(lists, head);
	free(lists);
	return error;
}
