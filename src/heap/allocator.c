#include "memprobe/allocator.h"

#include <stdio.h>
#include <string.h>

#include "memprobe/elf_file.h"

/* Each has a file in allocators/. In the order in which they are looked for, and named. */
#define ALLOCATORS(row) row(ptmalloc) row(jemalloc) row(tcmalloc) row(mimalloc) row(musl)

#define DECLARE(name) extern const struct allocator_ops allocator_##name;
ALLOCATORS(DECLARE)

#define OPS(name) &allocator_##name,
const struct allocator_ops *const allocators[] = { ALLOCATORS(OPS) NULL };

#define CODE(name) &allocator_##name.code,
const struct malloc_code *const malloc_codes[] = { ALLOCATORS(CODE) NULL };

static void found(struct allocator *ret, const struct allocator_ops *ops, const char *prefix,
		  struct module *module)
{
	*ret = (struct allocator){
		.ops = ops,
		.name = ops ? ops->name : NULL,
		.prefix = prefix,
		.module = module,
	};
}

static bool by_marks(struct target *target, struct module *module, enum allocator_mark_place place,
		     struct allocator *ret)
{
	struct elf_symbol symbol;

	for (size_t i = 0; allocators[i]; i++) {
		const struct allocator_mark *mark = allocators[i]->marks;

		for (; mark && mark->symbol; mark++) {
			if (!(mark->places & place) ||
			    !module_symbol(target, module, mark->symbol, &symbol))
				continue;
			found(ret, allocators[i], mark->prefix, module);
			return true;
		}
	}
	return false;
}

static bool in_program(struct target *target, struct allocator *ret)
{
	const struct module_vec *modules;
	struct error *error = target_modules(target, &modules);

	if (error) {
		error_destroy(error);
		return false;
	}
	vec_for_each (module, modules)
		if (module->is_exe)
			return by_marks(target, module, MARK_IN_PROGRAM, ret);
	return false;
}

static bool by_module(struct module *module, struct allocator *ret)
{
	for (size_t i = 0; allocators[i]; i++) {
		if (!allocators[i]->is_module || !allocators[i]->is_module(module))
			continue;
		found(ret, allocators[i], "", module);
		return true;
	}
	return false;
}

static const struct allocator_ops *of_libc(enum libc_kind kind)
{
	for (size_t i = 0; kind != LIBC_NONE && allocators[i]; i++)
		if (allocators[i]->libc == kind)
			return allocators[i];
	return NULL;
}

struct error *allocator_detect(struct target *target, struct allocator *ret)
{
	const struct allocator_ops *ops;
	struct module *module = NULL;
	struct elf_symbol symbol;
	struct libc libc;
	struct error *error = target_libc(target, &libc);

	if (error)
		return error;
	if (target_symbol(target, "malloc", &symbol, &module)) {
		if (by_marks(target, module, MARK_BESIDE_MALLOC, ret) || by_module(module, ret))
			return NULL;
		if (module != libc.module) {
			found(ret, NULL, "", module);
			return NULL;
		}
	}
	if (in_program(target, ret))
		return NULL;
	ops = of_libc(libc.kind);
	found(ret, ops, "", ops ? libc.module : module);
	return NULL;
}

void allocator_titles(bool (*can)(const struct allocator_ops *ops), char text[ALLOCATOR_TITLES_MAX])
{
	const struct allocator_ops *last = NULL;
	size_t length = 0;

	text[0] = '\0';
	for (size_t i = 0; allocators[i]; i++)
		if (can(allocators[i]))
			last = allocators[i];
	for (size_t i = 0; last && length < ALLOCATOR_TITLES_MAX; i++) {
		const char *before = length == 0 ? "" : allocators[i] == last ? " and " : ", ";

		if (can(allocators[i]))
			length += snprintf(text + length, ALLOCATOR_TITLES_MAX - length, "%s%s",
					   before, allocators[i]->title);
		if (allocators[i] == last)
			break;
	}
}
