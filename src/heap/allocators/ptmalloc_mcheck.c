/*
 * Blocks of mcheck(), which begin with a header; the program gets what follows it. All headers are
 * linked to each other: { size, magic, prev, next, block, magic2 }, words. Source: glibc
 * malloc/mcheck.c (2.33 and earlier: by hooks of libc's) and malloc/mcheck-impl.c (from 2.34 on: in
 * libc_malloc_debug.so). The header of a block that was asked for by alignment is not where the
 * block begins: such ones are not found. Nor are those that malloc mapped by themselves, for all
 * pointers into one look the same to a leak search.
 */
#include <string.h>

#include "memprobe/elf_file.h"
#include "memprobe/num.h"
#include "ptmalloc_walk.h"

#define MAGIC	     0xfedabeebu /* MAGICWORD */
#define HEADER_WORDS 6

enum header_word { SIZE, MAGIC_1, PREVIOUS, NEXT, BLOCK, MAGIC_2 };

static bool is_header(unsigned word, const uint8_t *bytes, const struct heap_chunk *chunk)
{
	uint64_t words[HEADER_WORDS], mask = word == 8 ? UINT64_MAX : UINT32_MAX;

	for (unsigned i = 0; i < HEADER_WORDS; i++)
		words[i] = load_word(bytes + i * word, word);
	return words[BLOCK] == chunk->address && words[MAGIC_2] == (words[BLOCK] ^ MAGIC) &&
	       words[MAGIC_1] == (MAGIC ^ ((words[PREVIOUS] + words[NEXT]) & mask)) &&
	       words[SIZE] < chunk->size;
}

static struct error *look(void *data, const struct heap_chunk *chunk, const void *bytes,
			  size_t size)
{
	struct heap *heap = data;
	unsigned word = heap->target->arch->word_size;

	if (!chunk->mmapped && size >= HEADER_WORDS * word && is_header(word, bytes, chunk))
		heap_set_bit(heap->headed, chunk->index);
	return NULL;
}

/* Whether something was hooked, or can have been: else no block is looked at. */
static bool is_hooked(struct target *target)
{
	const struct module_vec *modules;
	struct elf_symbol symbol;
	struct error *error;
	uint64_t hook = 0;

	if (target_symbol(target, "__malloc_hook", &symbol, NULL)) {
		error = target_read_word(target, symbol.address, &hook);
		error_destroy(error);
		if (!error && hook)
			return true;
	}
	error = target_modules(target, &modules);
	if (error) {
		error_destroy(error);
		return false;
	}
	vec_for_each (module, modules) {
		const char *name = strrchr(module->path, '/');

		if (!strncmp(name ? name + 1 : module->path, "libc_malloc_debug.", 18))
			return true;
	}
	return false;
}

struct error *ptmalloc_find_headers(struct ptmalloc_walk *walk)
{
	struct heap *heap = walk->heap;

	if (!is_hooked(heap->target))
		return NULL;
	heap->headed = calloc(heap->bits / 64 + 1, sizeof(uint64_t));
	if (!heap->headed)
		return &error_no_memory;
	return heap_read_blocks(heap, HEADER_WORDS * walk->word, look, heap);
}
