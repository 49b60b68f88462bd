#include "session.h"

#include <stdlib.h>
#include <string.h>

#include "memprobe/elf_file.h"
#include "memprobe/malloc_code.h"
#include "memprobe/num.h"

/*
 * Where a thread must not be when it is made to call. A mutex word proves nothing, since glibc
 * takes no lock while a process has one thread: the program counter and the return addresses on
 * the stack decide.
 */

/* What an allocator exports; with its static functions it is one stretch of text. */
static const char *const malloc_family[] = {
	"malloc",   "free",	     "calloc",	    "realloc",
	"memalign", "aligned_alloc", "valloc",	    "posix_memalign",
	"pvalloc",  "malloc_trim",   "malloc_info", "malloc_stats",
	"mallinfo", "mallinfo2",     "mallopt",	    "malloc_usable_size",
};

/* They hold the allocator's locks without being part of it, or leave a state only they repair. */
static const char *const lock_holders[] = {
	"fork",	   "__libc_fork", "_Fork",     "vfork", "posix_spawn", "pthread_create", "dlopen",
	"dlclose", "_dl_open",	  "_dl_close", "exit",	"quick_exit",  "abort",
};

#define ARRAY_SIZE(array) (sizeof(array) / sizeof((array)[0]))

/* Larger than any allocator's text: what lies further from its malloc() is not part of it. */
#define ALLOCATOR_TEXT_MAX (512 << 10)

/* With fewer functions than this to be seen, most of an allocator is hidden. */
#define ALLOCATOR_FUNCTIONS_MIN 12

static struct error *add_range(struct code_range_vec *ranges, uint64_t start, uint64_t end)
{
	struct code_range range = { start, end };

	return start < end ? code_range_vec_append(ranges, &range) : NULL;
}

/* The end of the last function that ends at or before @start. */
struct preceding {
	uint64_t start;
	uint64_t end;
};

static bool visit_preceding(const char *name, const struct elf_symbol *symbol, void *data)
{
	struct preceding *preceding = data;

	if (symbol->type == STT_FUNC && symbol->address < preceding->start &&
	    symbol->address + symbol->size <= preceding->start)
		preceding->end = max_u64(preceding->end, symbol->address + symbol->size);
	return true;
}

/* The stretch from the first to the last of the family in @module, with the statics before it. */
static struct error *add_family(struct target *target, struct module *module,
				struct code_range_vec *ranges)
{
	uint64_t start = UINT64_MAX, end = 0;
	struct preceding preceding;
	struct elf_symbol symbol;
	struct error *error;

	for (size_t i = 0; i < ARRAY_SIZE(malloc_family); i++) {
		if (!module_symbol(target, module, malloc_family[i], &symbol) ||
		    symbol.type != STT_FUNC)
			continue;
		start = min_u64(start, symbol.address);
		end = max_u64(end, symbol.address + max_u64(symbol.size, 1));
	}
	if (start >= end)
		return NULL;
	preceding = (struct preceding){ .start = start, .end = 0 };
	error = module_each_symbol(target, module, visit_preceding, &preceding);
	if (error)
		return error;
	if (preceding.end && start - preceding.end < ALLOCATOR_TEXT_MAX)
		start = preceding.end;
	return add_range(ranges, start, end);
}

/* The functions of an allocator around its mark. */
struct cluster {
	const struct malloc_code *code;
	uint64_t anchor, start, end;
	unsigned count;
};

static bool visit_cluster(const char *name, const struct elf_symbol *symbol, void *data)
{
	struct cluster *cluster = data;
	uint64_t distance = symbol->address > cluster->anchor ? symbol->address - cluster->anchor
							      : cluster->anchor - symbol->address;

	if (symbol->type != STT_FUNC || distance > cluster->code->reach)
		return true;
	for (const char *const *prefix = cluster->code->prefixes; *prefix; prefix++) {
		if (strncmp(name, *prefix, strlen(*prefix)))
			continue;
		cluster->start = min_u64(cluster->start, symbol->address);
		cluster->end = max_u64(cluster->end, symbol->address + max_u64(symbol->size, 1));
		cluster->count++;
		break;
	}
	return true;
}

/* The functions of one allocator that are linked into an executable, by each of its marks. */
static struct error *add_clusters(struct target *target, struct module *module,
				  const struct malloc_code *code, struct unsafe_code *unsafe,
				  bool *found_ret)
{
	struct elf_symbol symbol;

	for (const char *const *mark = code->marks; mark && *mark; mark++) {
		struct cluster cluster = { code, 0, UINT64_MAX, 0, 0 };
		struct error *error;

		if (!module_symbol(target, module, *mark, &symbol) || symbol.type != STT_FUNC)
			continue;
		cluster.anchor = symbol.address;
		error = module_each_symbol(target, module, visit_cluster, &cluster);
		if (!error)
			error = add_range(&unsafe->malloc, cluster.start, cluster.end);
		if (error)
			return error;
		*found_ret = true;
		unsafe->hidden |= cluster.count < ALLOCATOR_FUNCTIONS_MIN;
	}
	return NULL;
}

/*
 * The allocators that are linked into an executable, by their symbols. In a stripped one their
 * static functions cannot be told from the program: unsafe->hidden.
 */
static struct error *add_embedded(struct target *target, struct module *module,
				  struct unsafe_code *unsafe)
{
	struct elf_symbol symbol;
	bool found = false;

	for (size_t i = 0; malloc_codes[i]; i++) {
		struct error *error = add_clusters(target, module, malloc_codes[i], unsafe, &found);

		if (error)
			return error;
	}
	if (!found && module_symbol(target, module, "malloc", &symbol) && symbol.type == STT_FUNC)
		unsafe->hidden = found = true;
	unsafe->foreign_allocator |= found;
	return NULL;
}

/* All text of a library that is nothing but an allocator. */
static struct error *add_text(const struct module *module, const struct mapping_vec *maps,
			      struct code_range_vec *ranges)
{
	struct error *error = NULL;

	vec_for_each (mapping, maps) {
		if (mapping->start < module->start || mapping->end > module->end ||
		    !(mapping->perms & PERM_EXEC))
			continue;
		error = add_range(ranges, mapping->start, mapping->end);
		if (error)
			return error;
	}
	return NULL;
}

static const char *file_name(const struct module *module)
{
	const char *name = strrchr(module->path, '/');

	return name ? name + 1 : module->path;
}

static bool is_dynamic_linker(const struct module *module)
{
	return !strncmp(file_name(module), "ld-", 3) || !strncmp(file_name(module), "ld.", 3);
}

/* A library that serves malloc(), or wraps it, whatever its name. */
static bool defines_malloc(struct target *target, struct module *module)
{
	struct elf_symbol symbol;

	if (module_symbol(target, module, "malloc", &symbol))
		return true;
	for (size_t i = 0; malloc_codes[i]; i++) {
		const char *const *mark = malloc_codes[i]->marks;

		for (; mark && *mark; mark++)
			if (module_symbol(target, module, *mark, &symbol))
				return true;
	}
	return false;
}

/* Return addresses of signal handlers: `mov $15, %rax; syscall`, and i386's two. */
static struct error *add_restorers(struct target *target, const struct mapping *mapping,
				   struct address_vec *ret)
{
	static const struct {
		uint8_t bytes[9];
		size_t size;
	} patterns[] = {
		{ { 0x48, 0xc7, 0xc0, 0x0f, 0, 0, 0, 0x0f, 0x05 }, 9 },
		{ { 0x58, 0xb8, 0x77, 0, 0, 0, 0xcd, 0x80 }, 8 },
		{ { 0xb8, 0xad, 0, 0, 0, 0xcd, 0x80 }, 7 },
	};
	size_t size = mapping->end - mapping->start;
	cleanup(free) uint8_t *text = malloc(size);
	struct error *error;

	if (!text)
		return &error_no_memory;
	error = target_read(target, mapping->start, text, size);
	if (error) {
		error_destroy(error);
		return NULL;
	}
	for (size_t i = 0; i < ARRAY_SIZE(patterns); i++) {
		const uint8_t *at = text;

		while ((at = memmem(at, size - (at - text), patterns[i].bytes, patterns[i].size))) {
			uint64_t address = mapping->start + (at++ - text);

			error = address_vec_append(ret, &address);
			if (error)
				return error;
		}
	}
	return NULL;
}

/* libc's and the vdso's text, or the executable's where it has no libc of its own. */
static struct error *find_restorers(struct target *target, const struct mapping_vec *maps,
				    const struct libc *libc, struct address_vec *ret)
{
	const struct module_vec *modules;
	struct error *error = target_modules(target, &modules);

	for (size_t i = 0; !error && i < modules->size; i++) {
		const struct module *module = &modules->data[i];
		const char *name = strrchr(module->path, '/');

		if (module != libc->module && !module->is_vdso &&
		    !(name && !strncmp(name, "/libpthread", 11)))
			continue;
		vec_for_each (mapping, maps)
			if (!error && mapping->start >= module->start &&
			    mapping->end <= module->end && (mapping->perms & PERM_EXEC) &&
			    mapping->end - mapping->start < (64 << 20))
				error = add_restorers(target, mapping, ret);
	}
	return error;
}

static struct error *add_lock_holders(struct target *target, struct module *module,
				      struct code_range_vec *ranges)
{
	struct error *error = NULL;

	for (size_t i = 0; !error && i < ARRAY_SIZE(lock_holders); i++) {
		struct elf_symbol symbol;

		if (module_symbol(target, module, lock_holders[i], &symbol) &&
		    symbol.type == STT_FUNC)
			error = add_range(ranges, symbol.address, symbol.address + symbol.size);
	}
	return error;
}

static struct error *add_module(struct target *target, struct module *module,
				const struct mapping_vec *maps, const struct libc *libc,
				struct unsafe_code *unsafe)
{
	struct error *error = NULL;

	if (module == libc->module && !module->is_exe) {
		error = add_family(target, module, &unsafe->malloc);
		if (!error)
			error = add_text(module, maps, &unsafe->system);
	} else if (module->is_exe) {
		error = add_embedded(target, module, unsafe);
	} else if (is_dynamic_linker(module)) {
		error = add_text(module, maps, &unsafe->system);
	} else if (defines_malloc(target, module)) {
		unsafe->foreign_allocator = true;
		error = add_text(module, maps, &unsafe->malloc);
		if (!error)
			error = add_text(module, maps, &unsafe->system);
	}
	if (!error && (module == libc->module || module->is_exe || is_dynamic_linker(module)))
		error = add_lock_holders(target, module, &unsafe->other);
	return error;
}

struct error *unsafe_code_find(struct target *target, const struct mapping_vec *maps,
			       struct unsafe_code *ret)
{
	struct module_vec *modules;
	struct error *error = target_modules(target, (const struct module_vec **)&modules);
	struct libc libc = { 0 };

	if (!error)
		error = target_libc(target, &libc);
	for (size_t i = 0; !error && i < modules->size; i++)
		if (!modules->data[i].is_vdso)
			error = add_module(target, &modules->data[i], maps, &libc, ret);
	/* A static program's own code and libc's are one: none of it is surely harmless. */
	if (!error && libc.module && libc.module->is_exe)
		error = add_text(libc.module, maps, &ret->system);
	if (!error)
		error = find_restorers(target, maps, &libc, &ret->restorers);
	return error;
}

void unsafe_code_deinit(struct unsafe_code *unsafe)
{
	code_range_vec_deinit(&unsafe->malloc);
	code_range_vec_deinit(&unsafe->other);
	code_range_vec_deinit(&unsafe->system);
	address_vec_deinit(&unsafe->restorers);
}

bool code_ranges_hold(const struct code_range_vec *ranges, uint64_t pc)
{
	vec_for_each (range, ranges)
		if (pc >= range->start && pc < range->end)
			return true;
	return false;
}
