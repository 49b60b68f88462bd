#include "memprobe/allocator.h"

#include <string.h>

#include "memprobe/elf_file.h"

static const char *const names[] = {
	[ALLOCATOR_UNKNOWN] = NULL,	   [ALLOCATOR_PTMALLOC] = "ptmalloc",
	[ALLOCATOR_JEMALLOC] = "jemalloc", [ALLOCATOR_TCMALLOC] = "tcmalloc",
	[ALLOCATOR_MIMALLOC] = "mimalloc", [ALLOCATOR_MUSL] = "musl",
};

/* A function that no other allocator has. */
struct mark {
	const char *symbol;
	enum allocator_kind kind;
	const char *prefix;
};

/* Beside a `malloc` of the same module. */
static const struct mark marks[] = {
	{ "mallctl", ALLOCATOR_JEMALLOC, "" },
	{ "malloc_stats_print", ALLOCATOR_JEMALLOC, "" },
	{ "je_mallctl", ALLOCATOR_JEMALLOC, "je_" },
	{ "MallocExtension_GetStats", ALLOCATOR_TCMALLOC, "" },
	{ "tc_malloc", ALLOCATOR_TCMALLOC, "" },
	{ "TCMallocInternalMalloc", ALLOCATOR_TCMALLOC, "" },
	{ "mi_malloc", ALLOCATOR_MIMALLOC, "" },
};

/* Linked into the program under names of their own, beside libc's malloc: Redis, Rust, Ruby. */
static const struct mark prefixed_marks[] = {
	{ "je_mallctl", ALLOCATOR_JEMALLOC, "je_" },
	{ "_rjem_mallctl", ALLOCATOR_JEMALLOC, "_rjem_" },
	{ "mi_malloc", ALLOCATOR_MIMALLOC, "" },
};

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static void found(struct allocator *ret, enum allocator_kind kind, const char *prefix,
		  struct module *module)
{
	*ret = (struct allocator){
		.kind = kind,
		.name = names[kind],
		.prefix = prefix,
		.module = module,
	};
}

static bool by_marks(struct target *target, struct module *module, const struct mark *table,
		     size_t count, struct allocator *ret)
{
	struct elf_symbol symbol;

	for (size_t i = 0; i < count; i++) {
		if (module_symbol(target, module, table[i].symbol, &symbol)) {
			found(ret, table[i].kind, table[i].prefix, module);
			return true;
		}
	}
	return false;
}

static bool by_prefixed_marks(struct target *target, struct allocator *ret)
{
	const struct module_vec *modules;
	struct error *error = target_modules(target, &modules);

	if (error) {
		error_destroy(error);
		return false;
	}
	vec_for_each (module, modules)
		if (module->is_exe)
			return by_marks(target, module, prefixed_marks, COUNT(prefixed_marks), ret);
	return false;
}

/* What MALLOC_CHECK_, mcheck() and mtrace() need is preloaded from 2.34 on; it exports what libc
 * does. */
static bool is_glibc_debug(const struct module *module)
{
	const char *name = strrchr(module->path, '/');

	return !strncmp(name ? name + 1 : module->path, "libc_malloc_debug.", 18);
}

struct error *allocator_detect(struct target *target, struct allocator *ret)
{
	struct module *module = NULL;
	struct elf_symbol symbol;
	struct libc libc;
	struct error *error = target_libc(target, &libc);

	if (error)
		return error;
	if (target_symbol(target, "malloc", &symbol, &module)) {
		if (by_marks(target, module, marks, COUNT(marks), ret))
			return NULL;
		if (is_glibc_debug(module)) {
			found(ret, ALLOCATOR_PTMALLOC, "", module);
			return NULL;
		}
		if (module != libc.module) {
			found(ret, ALLOCATOR_UNKNOWN, "", module);
			return NULL;
		}
	}
	if (by_prefixed_marks(target, ret))
		return NULL;
	if (libc.kind == LIBC_GLIBC)
		found(ret, ALLOCATOR_PTMALLOC, "", libc.module);
	else if (libc.kind == LIBC_MUSL)
		found(ret, ALLOCATOR_MUSL, "", libc.module);
	else
		found(ret, ALLOCATOR_UNKNOWN, "", module);
	return NULL;
}
