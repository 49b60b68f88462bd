#include "functions.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "memprobe/elf_file.h"
#include "memprobe/log.h"
#include "memprobe/num.h"
#include "x86_decode.h"

#define INT3 0xcc

static const uint8_t endbr64[] = { 0xf3, 0x0f, 0x1e, 0xfa };

#define NONE AGENT_NO_ARG
#define ALLOC_FIRST(name, family, arguments)                                                  \
	{                                                                                     \
		name, AGENT_KIND_ALLOC, AGENT_ENTRY_SIZE_FIRST, NONE, 0, NONE, false, family, \
			arguments                                                             \
	}
/* It may end in a jump to another hooked function, which must find the frame of this one. */
#define ALLOC_SECOND(name, family, arguments)                                                    \
	{                                                                                        \
		name, AGENT_KIND_ALLOC, AGENT_ENTRY_ANY, NONE, 1, NONE, false, family, arguments \
	}
#define PRODUCT(name, family)                                                             \
	{                                                                                 \
		name, AGENT_KIND_ALLOC, AGENT_ENTRY_PRODUCT, NONE, 1, 0, false, family, 2 \
	}
#define REALLOC(name, family, arguments)                                                  \
	{                                                                                 \
		name, AGENT_KIND_REALLOC, AGENT_ENTRY_REALLOC, 0, 1, NONE, false, family, \
			arguments                                                         \
	}
#define FREE(name, family, arguments)                                                            \
	{                                                                                        \
		name, AGENT_KIND_FREE, AGENT_ENTRY_FREE, 0, NONE, NONE, false, family, arguments \
	}
#define NEW(name, swap, arguments)                                                             \
	{                                                                                      \
		name, AGENT_KIND_NEW, AGENT_ENTRY_SIZE_FIRST, NONE, 0, NONE, swap, FAMILY_CXX, \
			arguments                                                              \
	}

/* C's and C++'s; the allocators' own are in their ops. Of two names for one address the first
 * counts. */
static const struct function_spec specs[] = {
	ALLOC_FIRST("malloc", FAMILY_C, 1),
	PRODUCT("calloc", FAMILY_C),
	REALLOC("realloc", FAMILY_C, 2),
	{ "reallocarray", AGENT_KIND_REALLOC, AGENT_ENTRY_ANY, 0, 2, 1, false, FAMILY_C, 3 },
	FREE("free", FAMILY_C, 1),
	FREE("cfree", FAMILY_C, 1),
	FREE("free_sized", FAMILY_C, 2),
	FREE("free_aligned_sized", FAMILY_C, 3),
	ALLOC_SECOND("memalign", FAMILY_C, 2),
	ALLOC_SECOND("aligned_alloc", FAMILY_C, 2),
	{ "posix_memalign", AGENT_KIND_ALLOC_AT, AGENT_ENTRY_ANY, 0, 2, NONE, false, FAMILY_C, 3 },
	ALLOC_FIRST("valloc", FAMILY_C, 1),
	ALLOC_FIRST("pvalloc", FAMILY_C, 1),
	/* C++ (Itanium ABI): new, new[], with std::nothrow_t, with std::align_val_t */
	NEW("_Znwm", false, 1),
	NEW("_Znam", false, 1),
	NEW("_ZnwmSt11align_val_t", true, 2),
	NEW("_ZnamSt11align_val_t", true, 2),
	ALLOC_FIRST("_ZnwmRKSt9nothrow_t", FAMILY_CXX, 2),
	ALLOC_FIRST("_ZnamRKSt9nothrow_t", FAMILY_CXX, 2),
	ALLOC_FIRST("_ZnwmSt11align_val_tRKSt9nothrow_t", FAMILY_CXX, 3),
	ALLOC_FIRST("_ZnamSt11align_val_tRKSt9nothrow_t", FAMILY_CXX, 3),
	FREE("_ZdlPv", FAMILY_CXX, 1),
	FREE("_ZdaPv", FAMILY_CXX, 1),
	FREE("_ZdlPvm", FAMILY_CXX, 2),
	FREE("_ZdaPvm", FAMILY_CXX, 2),
	FREE("_ZdlPvRKSt9nothrow_t", FAMILY_CXX, 2),
	FREE("_ZdaPvRKSt9nothrow_t", FAMILY_CXX, 2),
	FREE("_ZdlPvSt11align_val_t", FAMILY_CXX, 2),
	FREE("_ZdaPvSt11align_val_t", FAMILY_CXX, 2),
	FREE("_ZdlPvSt11align_val_tRKSt9nothrow_t", FAMILY_CXX, 3),
	FREE("_ZdaPvSt11align_val_tRKSt9nothrow_t", FAMILY_CXX, 3),
	FREE("_ZdlPvmSt11align_val_t", FAMILY_CXX, 3),
	FREE("_ZdaPvmSt11align_val_t", FAMILY_CXX, 3),
};

void functions_deinit(struct function_vec *functions)
{
	vec_for_each (function, functions) {
		free(function->code);
		free(function->owned_spec);
	}
	function_vec_deinit(functions);
}

/*
 * The allocators of sanitizers, in their runtime library or linked into the program. Their
 * operators do not reach their malloc, and may not be replaced by it: a block is to be freed by the
 * operator that belongs to what gave it out. They never throw: without memory they end the program.
 */
static bool is_sanitizers(struct target *target, struct module *module)
{
	static const char *const marks[] = {
		"__asan_init",	 "__tsan_init", "__msan_init",
		"__hwasan_init", "__lsan_init", "__sanitizer_get_allocated_size",
	};
	struct elf_symbol symbol;

	for (size_t i = 0; i < sizeof(marks) / sizeof(marks[0]); i++)
		if (module_symbol(target, module, marks[i], &symbol))
			return true;
	return false;
}

/* Else operator new is libstdc++'s, which calls malloc. */
static bool has_operators(const struct allocator *allocator)
{
	return allocator->ops && allocator->ops->has_operators && !*allocator->prefix;
}

/* What stands in the file there, if that can be told. */
static bool read_original(struct target *target, struct module *module, uint64_t address,
			  uint8_t *bytes, size_t size)
{
	vec_for_each (segment, &module->segments) {
		struct error *error;

		if (address < segment->start || address + size > segment->end)
			continue;
		error = module_read(target, module, segment->offset + (address - segment->start),
				    bytes, size);
		if (!error)
			return true;
		error_destroy(error);
	}
	return false;
}

/* Somebody else's hook: what stands there is not ours to move. Of a breakpoint what counts is the
 * instruction that it stands on: a uprobe executes that as it is in the file. */
static const char *check_untouched(struct target *target, struct function *function)
{
	uint8_t original[16];
	size_t size = min_u64(sizeof(original), function->code_size);
	bool known = read_original(target, function->module, function->address, original, size);

	if (size && function->code[0] == INT3) {
		if (!known || original[0] == INT3)
			return "a breakpoint stands at its beginning";
		function->code[0] = original[0];
		function->has_breakpoint = true;
	}
	if (known && memcmp(original, function->code, size))
		return "another tool has changed its first bytes";
	return NULL;
}

struct error *function_read(struct target *target, struct function *function)
{
	/* Functions in assembly may not tell their size: then some of what follows is looked at. */
	size_t size = min_u64(function->size ? function->size : 64, FUNCTION_BYTES_MAX);
	struct error *error;

	function->code = malloc(size);
	if (!function->code)
		return &error_no_memory;
	error = target_read(target, function->address, function->code, size);
	if (error_is(error, ERROR_FAULT)) {
		error_destroy(error);
		function->refused = "its code cannot be read";
		return NULL;
	}
	function->code_size = size;
	if (!error)
		function->refused = check_untouched(target, function);
	return error;
}

static bool is_known(const struct function_vec *functions, uint64_t address)
{
	vec_for_each (function, functions)
		if (function->address == address)
			return true;
	return false;
}

/* That new is called, not replaced. */
static struct error *call_it(struct function *function)
{
	struct function_spec *spec = malloc(sizeof(*spec));

	if (!spec)
		return &error_no_memory;
	*spec = *function->spec;
	spec->kind = AGENT_KIND_ALLOC;
	spec->swap = false;
	function->spec = function->owned_spec = spec;
	return NULL;
}

static struct error *add(struct target *target, struct call_session *session,
			 const struct allocator *allocator, const struct function_spec *spec,
			 bool sanitizers, struct function_vec *ret)
{
	struct function function = { .spec = spec, .module = allocator->module };
	struct elf_symbol symbol;
	struct error *error = NULL;

	snprintf(function.name, sizeof(function.name), "%s%s",
		 spec->family == FAMILY_C ? allocator->prefix : "", spec->name);
	if (!module_symbol(target, allocator->module, function.name, &symbol))
		return NULL;
	function.address = symbol.address;
	function.size = symbol.size;
	if (symbol.type == STT_GNU_IFUNC) {
		if (!session)
			return NULL;
		function.size = 0;
		error = call_find_function(session, function.name, &function.address);
	} else if (symbol.type != STT_FUNC) {
		return NULL;
	}
	if (error || is_known(ret, function.address))
		return error;
	error = function_read(target, &function);
	if (!error && sanitizers && spec->kind == AGENT_KIND_NEW)
		error = call_it(&function);
	if (!error)
		error = function_vec_append(ret, &function);
	if (error) {
		free(function.code);
		free(function.owned_spec);
	}
	return error;
}

static struct error *add_family(struct target *target, struct call_session *session,
				const struct allocator *allocator, enum function_family family,
				bool sanitizers, struct function_vec *ret)
{
	struct error *error = NULL;

	for (size_t i = 0; !error && i < sizeof(specs) / sizeof(specs[0]); i++)
		if (specs[i].family == family)
			error = add(target, session, allocator, &specs[i], sanitizers, ret);
	return error;
}

static struct function_spec spec_of(const struct allocator_function *own)
{
	bool is_first = own->size == 0 && own->count == NONE;
	bool is_product = own->size == 1 && own->count == 0;
	struct function_spec spec = {
		.name = own->name,
		.pointer = own->pointer,
		.size = own->size,
		.count = own->count,
		.family = own->is_prefixed ? FAMILY_C : FAMILY_OWN,
		.arguments = own->arguments,
	};

	switch (own->kind) {
	case FUNCTION_ALLOC:
		spec.kind = AGENT_KIND_ALLOC;
		spec.entry = is_first	  ? AGENT_ENTRY_SIZE_FIRST
			     : is_product ? AGENT_ENTRY_PRODUCT
					  : AGENT_ENTRY_ANY;
		break;
	case FUNCTION_REALLOC:
		spec.kind = AGENT_KIND_REALLOC;
		spec.entry = own->pointer == 0 && own->size == 1 && own->count == NONE
				     ? AGENT_ENTRY_REALLOC
				     : AGENT_ENTRY_ANY;
		break;
	case FUNCTION_RESIZE:
		spec.kind = AGENT_KIND_RESIZE;
		spec.entry = AGENT_ENTRY_ANY;
		break;
	case FUNCTION_FREE:
		spec.kind = AGENT_KIND_FREE;
		spec.entry = own->pointer == 0 ? AGENT_ENTRY_FREE : AGENT_ENTRY_ANY;
		break;
	}
	return spec;
}

/* Functions that this allocator alone has. */
static struct error *add_own(struct target *target, struct call_session *session,
			     const struct allocator *allocator, struct function_vec *ret)
{
	const struct allocator_function *own = allocator->ops ? allocator->ops->functions : NULL;

	for (; own && own->name; own++) {
		struct function_spec *spec = malloc(sizeof(*spec));
		size_t before = ret->size;
		struct error *error;

		if (!spec)
			return &error_no_memory;
		*spec = spec_of(own);
		error = add(target, session, allocator, spec, false, ret);
		if (ret->size > before)
			ret->data[before].owned_spec = spec;
		else
			free(spec);
		if (error)
			return error;
	}
	return NULL;
}

/* The text of a library that is nothing but an allocator; else from the first to the last of its
 * functions. */
static void find_text(struct target *target, const struct allocator *allocator,
		      const struct function_vec *functions, uint64_t *start_ret, uint64_t *end_ret)
{
	const struct module *module = allocator->module;
	uint64_t start = UINT64_MAX, end = 0;
	struct libc libc = { 0 };

	error_destroy(target_libc(target, &libc));
	if (module != libc.module && !module->is_exe) {
		vec_for_each (segment, &module->segments) {
			if (!(segment->perms & PERM_EXEC))
				continue;
			start = min_u64(start, segment->start);
			end = max_u64(end, segment->end);
		}
	}
	vec_for_each (function, functions) {
		start = min_u64(start, function->address);
		end = max_u64(end, function->address + max_u64(function->size, 1));
	}
	*start_ret = start;
	*end_ret = end;
}

static struct error *refuse(struct target *target, const struct allocator *allocator)
{
	const struct module_vec *modules;
	struct elf_symbol symbol;
	struct error *error = target_modules(target, &modules);

	if (error)
		return error;
	vec_for_each (module, modules)
		if (module->is_exe && module_symbol(target, module, "runtime.mallocgc", &symbol))
			return error_hint(
				error_create(ERROR_UNSUPPORTED,
					     "%d is a Go program: its allocations do not go "
					     "through functions that can be hooked",
					     (int)target->pid),
				"`memprobe faults %d` records who brings its memory, `memprobe "
				"syscalls %d` who maps it",
				(int)target->pid, (int)target->pid);
	return error_hint(error_create(ERROR_UNSUPPORTED,
				       "the functions that allocate cannot be found in %d",
				       (int)target->pid),
			  "a program that was linked statically needs its symbols (.symtab)");
}

/* Whether @function is nothing but a jump to another of them. */
static bool is_jump_to_another(const struct function_vec *functions,
			       const struct function *function)
{
	struct x86_instruction insn;
	size_t at = 0;

	if (function->refused)
		return false;
	if (function->code_size >= sizeof(endbr64) &&
	    !memcmp(function->code, endbr64, sizeof(endbr64)))
		at = sizeof(endbr64);
	if (!x86_decode(function->code + at, function->code_size - at, &insn) ||
	    insn.branch != X86_JUMP)
		return false;
	vec_for_each (other, functions)
		if (other != function && !other->refused &&
		    other->address == function->address + at + (uint64_t)(int64_t)insn.target)
			return true;
	return false;
}

/* Their calls are seen where they lead to; seen twice, they would be sampled twice as often. */
static void leave_out_jumps(struct function_vec *functions)
{
	size_t kept = 0;

	for (size_t i = 0; i < functions->size; i++) {
		functions->data[i].is_jump = is_jump_to_another(functions, &functions->data[i]);
		if (functions->data[i].is_jump)
			log_debug("%s is a jump to another function", functions->data[i].name);
	}
	for (size_t i = 0; i < functions->size; i++) {
		if (functions->data[i].is_jump) {
			free(functions->data[i].code);
			free(functions->data[i].owned_spec);
		} else {
			functions->data[kept++] = functions->data[i];
		}
	}
	functions->size = kept;
}

/* Whether it calls malloc cannot be told; to run in its place or to stand between it and who
 * catches what it throws would be dangerous. */
static void tell_of_own_new(struct target *target, const struct allocator *allocator)
{
	struct elf_symbol symbol;

	if (!allocator->ops && module_symbol(target, allocator->module, "_Znwm", &symbol))
		log_warn("operator new of %s is not hooked: what comes from it is recorded only "
			 "if it calls malloc",
			 allocator->module->path);
}

/*
 * Further copies of glibc, in link namespaces of their own (dlmopen): each has a heap of its own.
 * Their mallocs do not call each other's.
 */
static struct error *add_copies(struct target *target, struct call_session *session,
				const struct allocator *allocator, struct function_vec *ret)
{
	struct module_vec *modules;
	struct libc libc = { 0 };
	struct error *error = target_modules(target, (const struct module_vec **)&modules);

	if (!error)
		error = target_libc(target, &libc);
	for (size_t i = 0; !error && i < modules->size; i++) {
		struct allocator copy = { .prefix = "", .module = &modules->data[i] };
		struct elf_symbol symbol;

		if (copy.module == allocator->module || copy.module == libc.module ||
		    copy.module->is_vdso ||
		    !module_symbol(target, copy.module, "__libc_malloc", &symbol) ||
		    symbol.type != STT_FUNC)
			continue;
		error = add_family(target, session, &copy, FAMILY_C, false, ret);
	}
	return error;
}

struct error *functions_find(struct target *target, struct call_session *session,
			     const struct allocator *allocator, struct function_vec *ret,
			     uint64_t *text_start_ret, uint64_t *text_end_ret)
{
	bool sanitizers = allocator->module && is_sanitizers(target, allocator->module);
	bool operators = sanitizers || has_operators(allocator);
	const char *refused;
	struct error *error;

	/* A jump that is all of a function looks the same in both. */
	if (target->arch != &arch_x86_64 && target->arch != &arch_i386)
		return error_create(ERROR_UNSUPPORTED, "%s processes cannot be hooked",
				    target->arch->name);
	if (!allocator->module)
		return refuse(target, allocator);
	refused = allocator->ops && allocator->ops->refuse_hooks
			  ? allocator->ops->refuse_hooks(allocator->module)
			  : NULL;
	if (refused)
		return error_create(ERROR_UNSUPPORTED, "%s %s: it cannot be hooked",
				    allocator->module->path, refused);
	error = add_family(target, session, allocator, FAMILY_C, sanitizers, ret);
	if (!error)
		error = add_own(target, session, allocator, ret);
	if (!error && operators)
		error = add_family(target, session, allocator, FAMILY_CXX, sanitizers, ret);
	if (error)
		return error;
	if (!ret->size)
		return refuse(target, allocator);
	if (!operators)
		tell_of_own_new(target, allocator);
	leave_out_jumps(ret);
	find_text(target, allocator, ret, text_start_ret, text_end_ret);
	/* A uprobe is of a file: it sees all that is mapped of it. */
	if (session)
		error = add_copies(target, session, allocator, ret);
	if (!error)
		leave_out_jumps(ret);
	return error;
}

static struct error *tell(const struct function *function, struct trace_hook_vec *hooks)
{
	const char *refused = function->refused;
	struct trace_hook hook = {
		.name = strdup(function->name),
		.module = strdup(function->module->path),
		.address = function->address,
		.hooked = !refused,
		.reason = refused ? strdup(refused) : NULL,
	};
	struct error *error = NULL;

	if (!hook.name || !hook.module || (refused && !hook.reason))
		error = &error_no_memory;
	if (!error)
		error = trace_hook_vec_append(hooks, &hook);
	if (error) {
		free(hook.name);
		free(hook.module);
		free(hook.reason);
	}
	return error;
}

/* What it lacks would be taken for something else: blocks for leaks, others' for its own. */
static bool is_needed(const struct function *function)
{
	switch (function->spec->kind) {
	case AGENT_KIND_FREE:
	case AGENT_KIND_REALLOC:
	case AGENT_KIND_RESET:
	case AGENT_KIND_MOVE:
	case AGENT_KIND_FREE_CHAIN:
		return true;
	default:
		return !strcmp(function->spec->name, "malloc");
	}
}

struct error *functions_tell(const struct function_vec *functions, const struct target *target,
			     const char *recorded, struct trace_hook_vec *hooks)
{
	vec_for_each (function, functions) {
		struct error *error = tell(function, hooks);

		if (error)
			return error;
	}
	vec_for_each (function, functions) {
		if (!function->refused || function->is_optional)
			continue;
		log_warn("%s cannot be %s: %s", function->name, recorded, function->refused);
		if (is_needed(function))
			return error_create(ERROR_UNSUPPORTED,
					    "cannot record the allocations of %d: %s at 0x%llx "
					    "cannot be %s: %s",
					    (int)target->pid, function->name,
					    (unsigned long long)function->address, recorded,
					    function->refused);
	}
	return NULL;
}
