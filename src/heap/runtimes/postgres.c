/*
 * The memory contexts of a PostgreSQL process.
 *
 * A backend takes memory from malloc in large blocks and hands it out by contexts, which form a
 * tree from TopMemoryContext on: what pg_backend_memory_contexts shows of the own session. Figures
 * are the same here (src/backend/utils/mmgr, PostgreSQL 9.6 to 17, 64-bit release builds): which
 * version it is is told by which layout is consistent.
 */
#include "memprobe/runtime.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "memprobe/elf_file.h"
#include "memprobe/hash_index.h"
#include "memprobe/map64.h"
#include "memprobe/num.h"
#include "heap/page_cache.h"

/* Budgets of one reading: garbage can pretend to be any number of them. */
#define CONTEXTS_MAX (1u << 20)
#define BLOCKS_MAX   (1u << 24)
#define CHUNKS_MAX   (1u << 26)

#define NAME_MAX_SIZE  128
#define IDENT_MAX_SIZE 1024 /* as the view cuts them */
#define FREE_LISTS     11   /* ALLOCSET_NUM_FREELISTS */
#define KEEPER_WITHIN  512  /* the first block lies behind the context's header */
#define WORD	       8

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* struct MemoryContextData (src/include/nodes/memnodes.h), all words but `type`. */
struct layout {
	unsigned mem_allocated; /* 0: not there */
	unsigned methods, parent, child, prev, next, name;
	unsigned ident; /* 0: not there */
	unsigned size;
};

static const struct layout layouts[] = {
	{ 8, 16, 24, 32, 40, 48, 56, 64, 80 }, /* 13 and later */
	{ 0, 8, 16, 24, 32, 40, 48, 56, 72 },  /* 11, 12 */
	{ 0, 8, 16, 24, 32, 40, 48, 0, 64 },   /* 9.6, 10 */
};

/* `freeptr` in the blocks of generation and bump contexts; `endptr` is behind it. */
static const unsigned block_layouts[] = { 40, 32, 24, 16 };

/* One reading. */
struct contexts {
	struct runtime_object_vec objects; /* texts are owned; label: the ident */
	uint64_t total;
	struct runtime_state state;
};

struct walk {
	struct page_cache *cache;
	const struct layout *layout;
	uint64_t methods;   /* of AllocSets, as the top one is */
	struct map64 known; /* address of a context: index */
	struct contexts *ret;
	uint64_t blocks, chunks; /* seen so far */
	uint64_t digest;
};

struct header {
	uint64_t words[WORD + 2]; /* as many bytes as the largest layout */
};

static __attribute__((format(printf, 2, 3))) void add_issue(struct walk *walk, const char *format,
							    ...)
{
	va_list arguments;

	if (walk->ret->state.is_inconsistent)
		return;
	walk->ret->state.is_inconsistent = true;
	va_start(arguments, format);
	vsnprintf(walk->ret->state.issue, sizeof(walk->ret->state.issue), format, arguments);
	va_end(arguments);
}

static bool read_words(struct walk *walk, uint64_t address, uint64_t *words, size_t count)
{
	return !(address % WORD) && page_cache_read(walk->cache, address, words, count * WORD);
}

/* ---- one context's blocks ---- */

struct figures {
	uint64_t bytes, blocks, free, free_chunks;
};

/*
 * A free chunk begins with its size and the link to the next in 10 to 15, the other way round in
 * 9.6. Later its header is one word of bits, of which the lowest are never all 0, and the link
 * stands behind it.
 */
static bool sum_free_list(struct walk *walk, uint64_t chunk, uint64_t size, struct figures *ret)
{
	for (; chunk; walk->chunks++) {
		uint64_t words[2];

		if (walk->chunks >= CHUNKS_MAX || ret->free > ret->bytes ||
		    !read_words(walk, chunk, words, 2))
			return false;
		ret->free += size + (words[0] == size || words[1] == size ? 2 * WORD : WORD);
		ret->free_chunks++;
		chunk = words[1] == size ? words[0] : words[1];
	}
	return true;
}

/* AllocSetContext and AllocBlockData of aset.c. */
static bool sum_alloc_set(struct walk *walk, uint64_t context, struct figures *ret)
{
	uint64_t set[1 + FREE_LISTS], previous = 0, header = 0;

	*ret = (struct figures){ 0 };
	if (!read_words(walk, context + walk->layout->size, set, COUNT(set)))
		return false;
	for (uint64_t block = set[0]; block; walk->blocks++) {
		uint64_t words[5]; /* aset, prev, next, freeptr, endptr */

		if (walk->blocks >= BLOCKS_MAX || !read_words(walk, block, words, COUNT(words)) ||
		    words[0] != context || words[1] != previous || words[3] < block ||
		    words[4] < words[3])
			return false;
		if (block > context && block - context <= KEEPER_WITHIN)
			header = block - context;
		ret->bytes += words[4] - block;
		ret->free += words[4] - words[3];
		ret->blocks++;
		previous = block;
		block = words[2];
	}
	ret->bytes += header;
	for (unsigned i = 0; i < FREE_LISTS; i++)
		if (!sum_free_list(walk, set[1 + i], (uint64_t)WORD << i, ret))
			return false;
	return ret->free <= ret->bytes;
}

static bool sum_block_list(struct walk *walk, uint64_t head, unsigned layout, struct figures *ret)
{
	uint64_t node[2], previous = head;

	*ret = (struct figures){ 0 };
	if (!read_words(walk, head, node, 2))
		return false;
	for (uint64_t block = node[1]; block != head; walk->blocks++) {
		uint64_t words[7];
		unsigned at = layout / WORD;

		if (walk->blocks >= BLOCKS_MAX || !read_words(walk, block, words, at + 2) ||
		    words[0] != previous || words[at] < block || words[at + 1] < words[at])
			return false;
		ret->bytes += words[at + 1] - block;
		ret->free += words[at + 1] - words[at];
		ret->blocks++;
		previous = block;
		block = words[1];
	}
	return node[0] == previous;
}

/*
 * GenerationContext and BumpContext end with a list of blocks. What stands before it, and the
 * block's form, differ by version: what adds up to mem_allocated is right. Up to 14 that leaves out
 * the header.
 */
static bool sum_generation(struct walk *walk, uint64_t context, uint64_t allocated,
			   struct figures *ret)
{
	for (uint64_t offset = walk->layout->size + WORD; offset <= walk->layout->size + 8 * WORD;
	     offset += WORD) {
		for (unsigned i = 0; i < COUNT(block_layouts); i++) {
			uint64_t header = offset + 2 * WORD;

			if (!sum_block_list(walk, context + offset, block_layouts[i], ret))
				continue;
			ret->bytes += header;
			if (ret->blocks &&
			    (ret->bytes == allocated || ret->bytes == allocated + header))
				return true;
		}
	}
	return false;
}

/* ---- one context ---- */

/* What the server itself would show: names are ASCII, SQL may be anything but control. */
static bool is_text(const char *text, bool is_name)
{
	if (!*text)
		return false;
	for (; *text; text++) {
		unsigned char c = (unsigned char)*text;

		if (is_name ? !isprint(c) : (c < ' ' && !isspace(c)) || c == 0x7f)
			return false;
	}
	return true;
}

/* *ret stays NULL where there is none. */
static struct error *read_text(struct walk *walk, uint64_t address, bool is_name, char **ret)
{
	char text[IDENT_MAX_SIZE];

	if (!address ||
	    !page_cache_read_string(walk->cache, address, text,
				    is_name ? NAME_MAX_SIZE : sizeof(text)) ||
	    !is_text(text, is_name))
		return NULL;
	*ret = strdup(text);
	return *ret ? NULL : &error_no_memory;
}

static uint64_t field(const struct header *header, unsigned offset)
{
	return header->words[offset / WORD];
}

static bool read_header(struct walk *walk, uint64_t address, struct header *ret)
{
	return read_words(walk, address, ret->words, walk->layout->size / WORD);
}

static void take_figures(struct walk *walk, const struct header *header, struct runtime_object *ret)
{
	bool is_counted = walk->layout->mem_allocated != 0;
	uint64_t allocated = is_counted ? field(header, walk->layout->mem_allocated) : 0;
	struct figures figures;

	ret->size = allocated;
	ret->blocks = ret->free = ret->free_chunks = RUNTIME_UNKNOWN;
	if (field(header, walk->layout->methods) == walk->methods) {
		ret->kind = "AllocSet";
		if (!sum_alloc_set(walk, ret->address, &figures) ||
		    (is_counted && figures.bytes != allocated)) {
			add_issue(walk, "the blocks of context 0x%" PRIx64 " make no sense",
				  ret->address);
			return;
		}
		ret->free_chunks = figures.free_chunks;
	} else if (is_counted && sum_generation(walk, ret->address, allocated, &figures)) {
		ret->kind = "Generation";
	} else {
		/* Slab: its total alone is known. */
		return;
	}
	ret->size = figures.bytes;
	ret->blocks = figures.blocks;
	ret->free = figures.free;
}

static void put_together(struct walk *walk, const struct runtime_object *context)
{
	walk->digest = hash_word(walk->digest, context->address);
	walk->digest = hash_word(walk->digest, context->level);
	walk->digest = hash_word(walk->digest, context->size);
	walk->digest = hash_word(walk->digest, context->free);
	walk->digest = hash_bytes(walk->digest, context->type, strlen(context->type));
}

static struct error *add_context(struct walk *walk, uint64_t address, uint32_t parent,
				 const struct header *header, bool *is_valid_ret)
{
	struct contexts *contexts = walk->ret;
	struct runtime_object context = {
		.address = address,
		.owner = parent,
		.level = parent == RUNTIME_NO_OWNER ? 0 : contexts->objects.data[parent].level + 1,
	};
	struct error *error =
		read_text(walk, field(header, walk->layout->name), true, &context.type);

	*is_valid_ret = context.type != NULL;
	if (error || !context.type)
		return error;
	if (walk->layout->ident)
		error = read_text(walk, field(header, walk->layout->ident), false, &context.label);
	/* As pg_backend_memory_contexts does. */
	if (!error && context.label && !strcmp(context.type, "dynahash")) {
		free(context.type);
		context.type = take_pointer(context.label);
	}
	take_figures(walk, header, &context);
	put_together(walk, &context);
	if (!error)
		error = map64_put(&walk->known, address, contexts->objects.size);
	if (!error)
		error = runtime_object_vec_append(&contexts->objects, &context);
	if (error) {
		free(context.type);
		free(context.label);
		return error;
	}
	if (__builtin_add_overflow(contexts->total, context.size, &contexts->total))
		add_issue(walk, "the sizes of contexts make no sense");
	return NULL;
}

/* ---- the tree ---- */

/*
 * The context at @address, the next child of @parent behind @previous. False in *is_valid_ret: it
 * is none, and what hangs on it cannot be known.
 */
static struct error *visit(struct walk *walk, uint64_t address, uint32_t parent, uint64_t previous,
			   struct header *ret, bool *is_valid_ret)
{
	const struct runtime_object_vec *contexts = &walk->ret->objects;
	uint64_t parent_address = parent == RUNTIME_NO_OWNER ? 0 : contexts->data[parent].address;
	struct error *error = NULL;

	*is_valid_ret = false;
	if (contexts->size >= CONTEXTS_MAX) {
		add_issue(walk, "there are more contexts than can be");
		return NULL;
	}
	if (map64_get(&walk->known, address) == MAP64_NONE && read_header(walk, address, ret) &&
	    field(ret, walk->layout->parent) == parent_address &&
	    field(ret, walk->layout->prev) == previous)
		error = add_context(walk, address, parent, ret, is_valid_ret);
	if (!error && !*is_valid_ret)
		add_issue(walk, "what is linked as a context at 0x%" PRIx64 " is none", address);
	return error;
}

static struct error *walk_tree(struct walk *walk, uint64_t top)
{
	uint32_t parent = RUNTIME_NO_OWNER;
	uint64_t address = top, previous = 0;

	for (;;) {
		const struct runtime_object *context;
		struct header header;
		bool is_valid;
		struct error *error = visit(walk, address, parent, previous, &header, &is_valid);
		uint64_t child = is_valid ? field(&header, walk->layout->child) : 0;
		uint64_t next = is_valid ? field(&header, walk->layout->next) : 0;

		if (error)
			return error;
		if (child) {
			parent = (uint32_t)walk->ret->objects.size - 1;
			address = child;
			previous = 0;
			continue;
		}
		/* Up, until there is a brother; the top has none. */
		while (!next && parent != RUNTIME_NO_OWNER) {
			context = &walk->ret->objects.data[parent];
			address = context->address;
			parent = context->owner;
			if (parent != RUNTIME_NO_OWNER && read_header(walk, address, &header))
				next = field(&header, walk->layout->next);
		}
		if (!next || parent == RUNTIME_NO_OWNER)
			return NULL;
		previous = address;
		address = next;
	}
}

/* The top context tells which layout it is: by its name, and its first child. */
static bool is_layout(struct walk *walk, uint64_t top, const struct layout *layout)
{
	char name[NAME_MAX_SIZE];
	struct header header, child;
	struct figures figures;

	walk->layout = layout;
	if (!read_header(walk, top, &header) || field(&header, layout->parent) ||
	    field(&header, layout->prev) || field(&header, layout->next) ||
	    !page_cache_read_string(walk->cache, field(&header, layout->name), name,
				    sizeof(name)) ||
	    strcmp(name, "TopMemoryContext"))
		return false;
	if (field(&header, layout->child) &&
	    (!read_header(walk, field(&header, layout->child), &child) ||
	     field(&child, layout->parent) != top))
		return false;
	walk->methods = field(&header, layout->methods);
	/* 9.6 to 12 differ in what comes behind the name only. */
	return sum_alloc_set(walk, top, &figures) && figures.blocks;
}

static struct error *find_layout(struct walk *walk, uint64_t top)
{
	for (unsigned i = 0; i < COUNT(layouts); i++)
		if (is_layout(walk, top, &layouts[i]))
			return NULL;
	return error_create(ERROR_UNSUPPORTED,
			    "TopMemoryContext at 0x%" PRIx64
			    " is not laid out as in PostgreSQL 9.6 to 17",
			    top);
}

static void forget(struct contexts *contexts)
{
	vec_for_each (context, &contexts->objects) {
		free(context->type);
		free(context->label);
	}
	contexts->objects.size = 0;
	contexts->total = 0;
	contexts->state.is_inconsistent = false;
}

static struct error *read_once(struct target *target, struct page_cache *cache, uint64_t variable,
			       struct contexts *ret, uint64_t *digest_ret)
{
	struct walk walk = { .cache = cache, .ret = ret, .digest = HASH_SEED };
	struct error *error;
	uint64_t top;

	forget(ret);
	page_cache_forget(cache);
	error = target_read_word(target, variable, &top);
	if (!error && !top)
		error = error_create(ERROR_UNSUPPORTED,
				     "there are no memory contexts yet: TopMemoryContext is NULL");
	if (!error)
		error = find_layout(&walk, top);
	if (!error)
		error = walk_tree(&walk, top);
	map64_deinit(&walk.known);
	*digest_ret = walk.digest;
	return error;
}

static struct error *read_until_alike(struct target *target, uint64_t variable, unsigned tries,
				      struct contexts *ret)
{
	cleanup(page_cache) struct page_cache *cache = page_cache_create(target);
	uint64_t digest = 0, before = 0;

	if (!cache)
		return &error_no_memory;
	for (unsigned i = 0; i < tries; i++) {
		struct error *error = read_once(target, cache, variable, ret, &digest);

		/* Torn links look like another layout, too. */
		if (error_is(error, ERROR_UNSUPPORTED) && i + 1 < tries) {
			error_destroy(error);
			continue;
		}
		if (error)
			return error;
		if (!ret->state.is_inconsistent && (tries == 1 || (i && digest == before)))
			return NULL;
		before = ret->state.is_inconsistent ? 0 : digest;
	}
	if (!ret->state.is_inconsistent) {
		ret->state.is_inconsistent = true;
		snprintf(ret->state.issue, sizeof(ret->state.issue), "the contexts were changing");
	}
	return NULL;
}

/* ---- the interface ---- */

static struct error *find_top(struct target *target, uint64_t *root_ret)
{
	struct elf_symbol symbol;

	if (!target_symbol(target, "TopMemoryContext", &symbol, NULL) || symbol.type != STT_OBJECT)
		return error_create(ERROR_UNSUPPORTED,
				    "no PostgreSQL: it has no variable TopMemoryContext");
	if (target->arch->word_size != WORD)
		return error_create(ERROR_UNSUPPORTED,
				    "memory contexts are read of 64-bit processes only");
	*root_ret = symbol.address;
	return NULL;
}

static struct error *read_contexts(struct target *target, uint64_t root, unsigned tries,
				   const struct runtime_sink *sink, struct runtime_state *ret)
{
	struct contexts contexts = { 0 };
	struct error *error = read_until_alike(target, root, tries, &contexts);

	vec_for_each (context, &contexts.objects)
		if (!error)
			error = sink->object(sink->data, context);
	*ret = contexts.state;
	forget(&contexts);
	runtime_object_vec_deinit(&contexts.objects);
	return error;
}

const struct runtime_ops runtime_postgres = {
	.name = "postgres",
	.title = "PostgreSQL",
	.has_owners = true,
	.find = find_top,
	.read = read_contexts,
};
