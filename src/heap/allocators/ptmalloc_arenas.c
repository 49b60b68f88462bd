#include "memprobe/ptmalloc.h"

#include <string.h>

#include "memprobe/elf_file.h"
#include "memprobe/log.h"
#include "memprobe/num.h"
#include "memprobe/sparse_read.h"
#include "ptmalloc_layout.h"

/* What hostile or changing memory may cost us. */
#define SEARCHES	 5
#define SCAN_MAX	 (16u << 20) /* bytes of one mapping */
#define SCAN_TOTAL_MAX	 (64u << 20)
#define CANDIDATES_MAX	 64
#define HEAPS_TRIED_MAX	 4096
#define ARENAS_MAX	 65536
#define HEAPS_MAX	 65536 /* of one arena */
#define SETTLED_BINS_MIN 64    /* of 127: the rest may be in motion */

/* One copy of malloc. */
struct libc_arena {
	uint64_t main_arena;
	const struct ptmalloc_layout *layout;
	const char *module;
};

VEC_DEFINE(libc_arena_vec, struct libc_arena)

struct search {
	struct target *target;
	const struct mapping_vec *maps;
	unsigned word;
	const char *module; /* that is being scanned */
	struct libc_arena_vec found;
	unsigned candidates;
};

void arenas_deinit(struct arena_vec *arenas)
{
	vec_for_each (arena, arenas)
		arena_heap_vec_deinit(&arena->heaps);
	arena_vec_deinit(arenas);
}

/* A word of the target, or false where it cannot be read. */
static bool read_word(const struct search *search, uint64_t address, uint64_t *ret)
{
	struct error *error;
	uint8_t bytes[8];

	if (address >= search->target->arch->address_max)
		return false;
	error = target_read(search->target, address, bytes, search->word);
	if (error) {
		error_destroy(error);
		return false;
	}
	*ret = load_word(bytes, search->word);
	return true;
}

static bool read_bytes(const struct search *search, uint64_t address, void *buffer, size_t size)
{
	struct error *error;

	if (address >= search->target->arch->address_max)
		return false;
	error = target_read(search->target, address, buffer, size);
	error_destroy(error);
	return !error;
}

/* ---- one arena ---- */

/* Whether the struct at @arena has a top, and sizes that agree, by @layout. */
static bool read_arena(const struct search *search, const struct ptmalloc_layout *layout,
		       uint64_t arena, struct arena *ret)
{
	uint8_t state[PTMALLOC_STATE_MAX];
	unsigned word = search->word;

	if (!read_bytes(search, arena, state, layout->size))
		return false;
	*ret = (struct arena){
		.address = arena,
		.layout = layout,
		.top = load_word(state + layout->top, word),
		.system_mem = load_word(state + layout->system_mem, word),
		.max_system_mem = load_word(state + layout->system_mem + word, word),
	};
	/* An arena that never got memory has its own unsorted bin for a top. */
	if (ret->top == arena + layout->top)
		ret->top = 0;
	/* Of the main arena's it counts, too, by how much somebody else moved the break: anything.
	 */
	return ret->top % (2 * word) == 0 && ret->top < search->target->arch->address_max &&
	       ret->system_mem <= ret->max_system_mem &&
	       (ret->system_mem == 0 || ret->system_mem >= PAGE_SIZE);
}

/* Whether @arena lies behind the heap_info of its own first heap. */
static bool is_in_own_heap(const struct search *search, uint64_t arena)
{
	uint64_t offset = arena & ((1u << 20) - 1), pointer, previous;

	return ptmalloc_is_heap_info_size(search->word, offset) &&
	       read_word(search, arena - offset, &pointer) && pointer == arena &&
	       read_word(search, arena - offset + search->word, &previous) && previous == 0;
}

/*
 * Follows `next` from @start until it is there again; *main_ret is the one member that is in no
 * heap of its own. False: it does not close, or has no or many such members.
 */
static bool ring_closes(const struct search *search, const struct ptmalloc_layout *layout,
			uint64_t start, uint64_t *main_ret)
{
	uint64_t arena = start, main_arena = 0;

	for (unsigned i = 0; i < ARENAS_MAX; i++) {
		if (arena % search->word)
			return false;
		if (!is_in_own_heap(search, arena)) {
			if (main_arena)
				return false;
			main_arena = arena;
		}
		if (!read_word(search, arena + layout->next, &arena))
			return false;
		if (arena == start) {
			*main_ret = main_arena;
			return main_arena != 0;
		}
	}
	return false;
}

/* *found_ret: it is one, and was added. */
static struct error *accept(struct search *search, const struct ptmalloc_layout *layout,
			    uint64_t start, bool *found_ret)
{
	struct libc_arena found = { .layout = layout, .module = search->module };
	struct arena arena;

	*found_ret = ring_closes(search, layout, start, &found.main_arena) &&
		     read_arena(search, layout, found.main_arena, &arena);
	if (!*found_ret)
		return NULL;
	vec_for_each (known, &search->found)
		if (known->main_arena == found.main_arena)
			return NULL;
	return libc_arena_vec_append(&search->found, &found);
}

/* ---- main_arena by its bins ---- */

static bool is_chunk_pointer(const struct search *search, uint64_t pointer)
{
	return pointer >= PAGE_SIZE && pointer < search->target->arch->address_max &&
	       pointer % (2 * search->word) == 0;
}

/* Whether each of the 127 pairs at @pairs could be a bin that lies at @address: empty (it then
 * points to itself), as some always are, or with two chunk pointers. */
static bool could_be_bins(const struct search *search, const uint8_t *pairs, uint64_t address)
{
	unsigned word = search->word, empty = 0;

	for (unsigned i = 0; i < PTMALLOC_BINS; i++, pairs += 2 * word) {
		uint64_t self = address + 2ull * i * word - 2 * word;
		uint64_t fd = load_word(pairs, word), bk = load_word(pairs + word, word);

		if (fd == self && bk == self) {
			empty++;
			continue;
		}
		if ((fd != self && !is_chunk_pointer(search, fd)) ||
		    (bk != self && !is_chunk_pointer(search, bk)))
			return false;
	}
	/* Else it is any array of pointers. */
	return empty != 0;
}

/* Counts the bins whose first and last chunks point back. */
static unsigned count_settled_bins(const struct search *search, const uint8_t *pairs,
				   uint64_t address)
{
	unsigned word = search->word, settled = 0;

	for (unsigned i = 0; i < PTMALLOC_BINS; i++, pairs += 2 * word) {
		uint64_t self = address + 2ull * i * word - 2 * word;
		uint64_t fd = load_word(pairs, word), bk = load_word(pairs + word, word);
		uint64_t back, forward;

		if (settled + (PTMALLOC_BINS - i) < SETTLED_BINS_MIN)
			break;
		if (fd == self && bk == self)
			settled++;
		else if (read_word(search, fd + 3 * word, &back) && back == self &&
			 read_word(search, bk + 2 * word, &forward) && forward == self)
			settled++;
	}
	return settled;
}

static struct error *try_bins(struct search *search, const uint8_t *pairs, uint64_t address,
			      bool *found_ret)
{
	struct error *error = NULL;

	*found_ret = false;
	if (search->candidates++ >= CANDIDATES_MAX ||
	    count_settled_bins(search, pairs, address) < SETTLED_BINS_MIN)
		return NULL;
	for (const struct ptmalloc_layout *layout = ptmalloc_layouts;
	     !error && !*found_ret && layout->versions; layout++)
		if (layout->word_size == search->word)
			error = accept(search, layout, address - layout->bins, found_ret);
	return error;
}

static struct error *scan_bytes(struct search *search, const uint8_t *bytes, size_t size,
				uint64_t start)
{
	size_t length = PTMALLOC_BINS * 2 * search->word;
	struct error *error = NULL;
	bool found = false;

	for (size_t i = 0; !error && !found && i + length <= size; i += search->word)
		if (could_be_bins(search, bytes + i, start + i))
			error = try_bins(search, bytes + i, start + i, &found);
	return error;
}

/* ---- main_arena before the first malloc() ---- */

static bool is_zero(const uint8_t *bytes, size_t size)
{
	for (size_t i = 0; i < size; i++)
		if (bytes[i])
			return false;
	return true;
}

/* All zeros but for `next`, which names the struct itself, and attached_threads, which is 1. */
static struct error *scan_unused(struct search *search, const uint8_t *bytes, size_t size,
				 uint64_t start)
{
	unsigned word = search->word;
	struct error *error = NULL;
	bool found = false;

	for (size_t i = 0; !error && !found && i + word <= size; i += word) {
		uint64_t offset = start + i - load_word(bytes + i, word);

		for (const struct ptmalloc_layout *layout = ptmalloc_layouts;
		     !error && !found && layout->versions; layout++)
			if (layout->word_size == word && layout->next == offset && offset <= i &&
			    i - offset + layout->size <= size &&
			    is_zero(bytes + i - offset, offset) &&
			    is_zero(bytes + i - offset + layout->system_mem, 2 * word))
				error = accept(search, layout, start + i - offset, &found);
	}
	return error;
}

typedef struct error *scan_function(struct search *search, const uint8_t *bytes, size_t size,
				    uint64_t start);

/*
 * @untouched: also pages that the program has not touched, which is for files where main_arena is
 * expected only: they are read into its memory.
 */
static struct error *scan_range(struct search *search, uint64_t start, uint64_t end, bool untouched,
				scan_function *scan)
{
	uint64_t size = min_u64(end - start, SCAN_MAX);
	cleanup(free) uint8_t *bytes = malloc(size);
	struct error *error;

	if (!bytes)
		return &error_no_memory;
	search->candidates = 0;
	if (untouched)
		return read_bytes(search, start, bytes, size) ? scan(search, bytes, size, start)
							      : NULL;
	error = target_read_sparse(search->target, start, bytes, size, NULL);
	/* What cannot be read has no arena that could be. */
	if (error) {
		error_destroy(error);
		return NULL;
	}
	return scan(search, bytes, size, start);
}

static bool is_libc_path(const char *path)
{
	const char *name = strrchr(path, '/');

	name = name ? name + 1 : path;
	return !strncmp(name, "libc.so.", 8) || !strncmp(name, "libc-2.", 7);
}

/* Whether main_arena may be in @mapping: first in a libc, then in the (static) program. */
static bool is_data_of(const struct search *search, const struct mapping *mapping, bool libc)
{
	unsigned perms = PERM_READ | PERM_WRITE;

	if ((mapping->perms & (perms | PERM_SHARED)) != perms || mapping->path[0] != '/')
		return false;
	return libc ? is_libc_path(mapping->path)
		    : search->target->exe && !strcmp(mapping->path, search->target->exe);
}

static struct error *scan_files(struct search *search, scan_function *scan)
{
	uint64_t scanned = 0;
	struct error *error = NULL;

	for (int libc = 1; libc >= 0; libc--) {
		vec_for_each (mapping, search->maps) {
			if (error || search->found.size || !is_data_of(search, mapping, libc) ||
			    scanned >= SCAN_TOTAL_MAX)
				continue;
			scanned += min_u64(mapping->end - mapping->start, SCAN_MAX);
			search->module = mapping->path;
			error = scan_range(search, mapping->start, mapping->end, libc, scan);
		}
	}
	return error;
}

/* Every copy of malloc, in the order in which the loader searches symbols. */
static struct error *scan_modules(struct search *search)
{
	const struct module_vec *modules;
	struct error *error = target_modules(search->target, &modules);
	uint64_t others = 0;

	if (error) {
		bool fatal = error_is(error, ERROR_NO_MEMORY);

		/* Without a list of them: by the paths of mappings. */
		if (!fatal)
			error_destroy(error);
		return fatal ? error : NULL;
	}
	vec_for_each (module, modules) {
		bool expected = module->is_exe || is_libc_path(module->path);

		search->module = module->path;
		vec_for_each (segment, &module->segments) {
			unsigned perms = PERM_READ | PERM_WRITE;

			if (error || (segment->perms & (perms | PERM_SHARED)) != perms ||
			    (!expected && others >= SCAN_TOTAL_MAX))
				continue;
			others += expected ? 0 : min_u64(segment->end - segment->start, SCAN_MAX);
			error = scan_range(search, segment->start, segment->end,
					   is_libc_path(module->path), scan_bytes);
		}
	}
	return error;
}

/* Reading a page that was never touched would map the zero page into the target. */
static bool is_touched(const struct search *search, uint64_t address)
{
	bool present = true;
	struct error *error =
		target_page_present(search->target, round_down(address, PAGE_SIZE), 1, &present);

	error_destroy(error);
	return error || present;
}

/* ---- by the heaps of the other arenas, should main_arena's bins not hold still ---- */

static struct error *find_by_heaps(struct search *search)
{
	uint64_t alignment = ptmalloc_heap_sizes(search->word)[0];
	unsigned tried = 0;
	bool found = false;

	search->module = "";
	vec_for_each (mapping, search->maps) {
		struct error *error = NULL;
		uint64_t start = round_up(mapping->start, alignment), arena;

		if (mapping->path[0] || !(mapping->perms & PERM_WRITE) || start >= mapping->end)
			continue;
		if (tried++ >= HEAPS_TRIED_MAX)
			break;
		if (!is_touched(search, start) || !read_word(search, start, &arena) ||
		    !is_in_own_heap(search, arena))
			continue;
		for (const struct ptmalloc_layout *layout = ptmalloc_layouts;
		     !error && !found && layout->versions; layout++)
			if (layout->word_size == search->word)
				error = accept(search, layout, arena, &found);
		if (error || found)
			return error;
	}
	return NULL;
}

/* ---- all arenas and their heaps ---- */

static struct error *add_main_heap(const struct search *search, struct arena *arena)
{
	const struct mapping *mapping = arena->top ? mappings_find(search->maps, arena->top) : NULL;
	struct arena_heap heap;

	if (!mapping)
		return NULL;
	heap = (struct arena_heap){ mapping->start, mapping->end, mapping->end };
	return arena_heap_vec_append(&arena->heaps, &heap);
}

/* HEAP_MAX_SIZE, as the heap_info below the top chunk proves it; 0: none does. */
static uint64_t heap_size_of(const struct search *search, const struct arena *arena)
{
	for (const uint64_t *size = ptmalloc_heap_sizes(search->word); *size; size++) {
		uint64_t owner;

		if (read_word(search, round_down(arena->top, *size), &owner) &&
		    owner == arena->address)
			return *size;
	}
	return 0;
}

static struct error *add_heaps(const struct search *search, struct arena *arena)
{
	uint64_t size = heap_size_of(search, arena);
	uint64_t start = size ? round_down(arena->top, size) : 0;
	unsigned word = search->word;

	for (unsigned i = 0; start && i < HEAPS_MAX; i++) {
		uint8_t info[HEAP_INFO_WORDS * 8];
		struct arena_heap heap;
		struct error *error;
		uint64_t used;

		if (start % size || !read_bytes(search, start, info, HEAP_INFO_WORDS * word) ||
		    load_word(info, word) != arena->address)
			break;
		used = load_word(info + 2 * word, word);
		if (used == 0 || used > size)
			break;
		heap = (struct arena_heap){ start, start + used, start + size };
		error = arena_heap_vec_append(&arena->heaps, &heap);
		if (error)
			return error;
		start = load_word(info + word, word);
	}
	return NULL;
}

/* Appends to @ret along the ring. An arena that cannot be read just now ends it early. */
static struct error *collect(const struct search *search, unsigned libc, struct arena_vec *ret)
{
	const struct libc_arena *found = &search->found.data[libc];
	uint64_t address = found->main_arena;
	size_t first = ret->size;

	do {
		struct error *error;
		struct arena arena;

		if (!read_arena(search, found->layout, address, &arena))
			break;
		arena.index = ret->size;
		arena.is_main = address == found->main_arena;
		arena.libc = libc;
		arena.module = found->module;
		error = arena_vec_append(ret, &arena);
		if (error)
			return error;
		error = arena.is_main ? add_main_heap(search, &ret->data[ret->size - 1])
				      : add_heaps(search, &ret->data[ret->size - 1]);
		if (error)
			return error;
		if (!read_word(search, address + found->layout->next, &address))
			break;
	} while (address != found->main_arena && ret->size < ARENAS_MAX);
	if (address != found->main_arena)
		log_debug("the ring of malloc's arenas broke off after %zu", ret->size);
	if (ret->size > first)
		ret->data[first].libc_size = ret->size - first;
	return NULL;
}

static struct error *find_libcs(struct search *search)
{
	struct error *error = NULL;

	for (int i = 0; i < SEARCHES && !error && !search->found.size; i++) {
		error = scan_modules(search);
		if (!error && !search->found.size)
			error = scan_files(search, scan_bytes);
		if (!error && !search->found.size)
			error = find_by_heaps(search);
	}
	return error || search->found.size ? error : scan_files(search, scan_unused);
}

struct error *ptmalloc_find_arenas_in(struct target *target, const struct mapping_vec *maps,
				      struct arena_vec *ret)
{
	struct search search = { .target = target, .maps = maps, .word = target->arch->word_size };
	const struct mapping_vec *lent = target->lent_maps;
	struct error *error;

	target->lent_maps = maps;
	error = find_libcs(&search);
	target->lent_maps = lent;
	for (unsigned i = 0; !error && i < search.found.size; i++)
		error = collect(&search, i, ret);
	libc_arena_vec_deinit(&search.found);
	if (error)
		arenas_deinit(ret);
	return error;
}

struct error *ptmalloc_find_arenas(struct target *target, struct arena_vec *ret)
{
	struct mapping_vec maps = { 0 };
	struct error *error = target_read_maps(target, MAPS_PLAIN, &maps);

	if (!error)
		error = ptmalloc_find_arenas_in(target, &maps, ret);
	mappings_deinit(&maps);
	return error;
}
