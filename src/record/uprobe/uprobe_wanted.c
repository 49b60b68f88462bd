#include <stdlib.h>
#include <string.h>

#include "memprobe/elf_file.h"
#include "uprobe.h"

/* A name of the allocator's, and the function that has it. */
struct wanted_name {
	char name[64];
	unsigned function;
};

VEC_DEFINE(wanted_name_vec, struct wanted_name)

struct wanted {
	struct function_vec *functions;
	struct wanted_name_vec names; /* several can be of one function */
	bool *called;		      /* by function */
	bool cxx;
	struct error *error;
};

/* Also called by libc itself, or found by dlsym(3). */
static bool is_core(const struct function *function)
{
	static const char *const core[] = { "malloc", "calloc",		"realloc",
					    "free",   "posix_memalign", "aligned_alloc" };

	for (size_t i = 0; i < sizeof(core) / sizeof(core[0]); i++)
		if (!strcmp(function->spec->name, core[i]))
			return true;
	return false;
}

static bool note_name(const char *name, const struct elf_symbol *symbol, void *data)
{
	struct wanted *wanted = data;

	for (unsigned i = 0; !wanted->error && i < wanted->functions->size; i++) {
		struct wanted_name entry = { .function = i };

		if (wanted->functions->data[i].address != symbol->address ||
		    strlen(name) >= sizeof(entry.name))
			continue;
		memcpy(entry.name, name, strlen(name) + 1);
		wanted->error = wanted_name_vec_append(&wanted->names, &entry);
	}
	return !wanted->error;
}

static bool note_import(const char *name, void *data)
{
	struct wanted *wanted = data;

	wanted->cxx |= name[0] == '_' && name[1] == 'Z';
	vec_for_each (entry, &wanted->names)
		if (entry->name[0] == name[0] && !strcmp(entry->name, name))
			wanted->called[entry->function] = true;
	return true;
}

/* What defines the operators itself calls them, too, but says nothing of the program. */
static bool is_cxx_library(struct target *target, struct module *module)
{
	struct elf_symbol symbol;

	return !module->is_exe && module_symbol(target, module, "_Znwm", &symbol);
}

static void note_imports(struct wanted *wanted, struct target *target, struct module *module)
{
	bool cxx = wanted->cxx;

	/* What cannot be read asks for nothing. */
	error_destroy(module_each_import(target, module, note_import, wanted));
	if (is_cxx_library(target, module))
		wanted->cxx = cxx;
}

static void refuse(struct wanted *wanted)
{
	for (unsigned i = 0; i < wanted->functions->size; i++) {
		struct function *function = &wanted->functions->data[i];
		bool is_operator = function->spec->family == FAMILY_CXX;

		if (is_core(function) || function->refused)
			continue;
		if (is_operator ? wanted->cxx : wanted->called[i])
			continue;
		function->refused = "nothing in the target calls it";
		function->is_optional = true;
	}
}

struct error *uprobe_refuse_unwanted(struct target *target, const struct module *allocator,
				     struct function_vec *functions)
{
	struct wanted wanted = { .functions = functions };
	const struct module_vec *modules;
	struct error *error = target_modules(target, &modules);

	/* What is linked statically is there because it is called. */
	if (error || allocator->is_exe)
		return error;
	wanted.called = calloc(functions->size + 1, sizeof(*wanted.called));
	if (!wanted.called)
		return &error_no_memory;
	for (size_t i = 0; i < target->modules.size && !error; i++)
		if (&target->modules.data[i] == allocator)
			error = module_each_symbol(target, &target->modules.data[i], note_name,
						   &wanted);
	if (!error)
		error = wanted.error;
	for (size_t i = 0; i < target->modules.size && !error; i++)
		if (&target->modules.data[i] != allocator && !target->modules.data[i].is_vdso)
			note_imports(&wanted, target, &target->modules.data[i]);
	if (!error)
		refuse(&wanted);
	wanted_name_vec_deinit(&wanted.names);
	free(wanted.called);
	return error;
}
