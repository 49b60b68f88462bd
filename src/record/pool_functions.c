/* The functions that a pool file names, as they are in a target. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "functions.h"
#include "memprobe/elf_file.h"
#include "memprobe/num.h"
#include "memprobe/parameters.h"
#include "memprobe/pool_file.h"

#define NONE AGENT_NO_ARG

/* ---- names that are close ---- */

#define CLOSE_MAX  3
#define LENGTH_MAX 63

struct close_names {
	const char *wanted;
	bool functions; /* else variables */
	char names[CLOSE_MAX][LENGTH_MAX + 1];
	unsigned distances[CLOSE_MAX];
	unsigned count, limit;
};

/* Insertions, deletions and changes from @a to @b (Levenshtein), by rows. */
static unsigned distance(const char *a, const char *b)
{
	unsigned row[LENGTH_MAX + 1];
	size_t length = strlen(b);

	for (unsigned i = 0; i <= length; i++)
		row[i] = i;
	for (unsigned i = 1; *a; a++, i++) {
		unsigned diagonal = row[0];

		row[0] = i;
		for (size_t j = 1; j <= length; j++) {
			unsigned change = diagonal + (b[j - 1] != *a);
			unsigned least = (row[j] < row[j - 1] ? row[j] : row[j - 1]) + 1;

			diagonal = row[j];
			row[j] = least < change ? least : change;
		}
	}
	return row[length];
}

static bool see_name(const char *name, const struct elf_symbol *symbol, void *data)
{
	struct close_names *close = data;
	size_t length = strlen(name), wanted = strlen(close->wanted);
	unsigned found, at;

	if ((symbol->type == STT_FUNC) != close->functions || length > LENGTH_MAX ||
	    (length > wanted ? length - wanted : wanted - length) > close->limit)
		return true;
	found = distance(close->wanted, name);
	if (found > close->limit)
		return true;
	for (at = 0; at < close->count && close->distances[at] <= found; at++)
		if (!strcmp(close->names[at], name))
			return true;
	if (at == CLOSE_MAX)
		return true;
	for (unsigned i = CLOSE_MAX - 1; i > at; i--) {
		close->distances[i] = close->distances[i - 1];
		memcpy(close->names[i], close->names[i - 1], sizeof(close->names[i]));
	}
	close->distances[at] = found;
	snprintf(close->names[at], sizeof(close->names[at]), "%s", name);
	if (close->count < CLOSE_MAX)
		close->count++;
	return true;
}

static struct error *not_found(struct target *target, const char *name, bool function)
{
	struct error *error = error_create(ERROR_USAGE, "%s has no %s '%s'", target->name,
					   function ? "function" : "variable", name);
	struct close_names close = { .wanted = name, .functions = function };
	const struct module_vec *modules = NULL;
	char text[CLOSE_MAX * (LENGTH_MAX + 3)] = "";

	close.limit = (unsigned)min_u64(strlen(name) / 3 + 1, 8);
	if (strlen(name) > LENGTH_MAX || target_modules(target, &modules))
		return error;
	vec_for_each (module, modules)
		error_destroy(module_each_symbol(target, module, see_name, &close));
	for (unsigned i = 0; i < close.count; i++) {
		size_t length = strlen(text);

		snprintf(text + length, sizeof(text) - length, "%s%s", i ? ", " : "",
			 close.names[i]);
	}
	return close.count ? error_hint(error, "there is %s", text) : error;
}

/* ---- symbols ---- */

struct finding {
	struct target *target;
	const struct pool_file *file;
	struct symbolizer *symbolizer; /* made when it is needed */
	struct function_vec *functions;
	struct agent_pools *pools;
};

/* As the dynamic linker would; else in any module's .symtab. */
static bool find_symbol(struct target *target, const char *name, bool function,
			struct elf_symbol *ret, struct module **module_ret)
{
	const struct module_vec *modules;

	if (target_symbol(target, name, ret, module_ret) && (ret->type == STT_FUNC) == function)
		return true;
	error_destroy(target_modules(target, &modules));
	for (size_t i = 0; i < target->modules.size; i++) {
		*module_ret = &target->modules.data[i];
		if (module_symbol(target, *module_ret, name, ret) &&
		    (ret->type == STT_FUNC) == function)
			return true;
	}
	return false;
}

static bool has_symbol(struct target *target, const char *name)
{
	struct elf_symbol symbol;
	struct module *module;

	return find_symbol(target, name, true, &symbol, &module) ||
	       find_symbol(target, name, false, &symbol, &module);
}

static bool applies(struct target *target, const struct pool_condition *condition)
{
	return (!condition->present || has_symbol(target, condition->present)) &&
	       (!condition->absent || !has_symbol(target, condition->absent));
}

/* ---- arguments ---- */

static struct error *find_argument(struct finding *finding, uint64_t function,
				   const struct pool_value *value, uint8_t *ret)
{
	struct error *error = NULL;
	unsigned index = value->arg;

	*ret = NONE;
	if (value->form != POOL_VALUE_ARG && value->form != POOL_VALUE_THROUGH)
		return NULL;
	if (value->name && !finding->symbolizer)
		error = symbolizer_create(finding->target, &finding->symbolizer);
	if (value->name && !error)
		error = symbolizer_parameter(finding->symbolizer, function, value->name, &index);
	*ret = (uint8_t)index;
	return error;
}

static struct error *find_context(struct finding *finding, const struct pool_value *value,
				  struct function *function)
{
	struct elf_symbol symbol;
	struct module *module;

	switch (value->form) {
	case POOL_VALUE_ARG:
		function->context_form =
			value->has_offset ? AGENT_CONTEXT_AT_ARG : AGENT_CONTEXT_ARG;
		function->context_word = (uint64_t)(int64_t)value->offset;
		return NULL;
	case POOL_VALUE_ASK:
		if (!find_symbol(finding->target, value->name, true, &symbol, &module))
			return not_found(finding->target, value->name, true);
		function->context_form = AGENT_CONTEXT_ASK;
		function->context_word = symbol.address;
		return NULL;
	case POOL_VALUE_GLOBAL:
		if (!find_symbol(finding->target, value->name, false, &symbol, &module) ||
		    symbol.type != STT_OBJECT || symbol.address % 8)
			return not_found(finding->target, value->name, false);
		function->context_form = AGENT_CONTEXT_GLOBAL;
		function->context_word = symbol.address;
		return NULL;
	default:
		function->context_form = AGENT_CONTEXT_NONE;
		return NULL;
	}
}

static void find_size(const struct pool_value *value, struct function *function)
{
	function->size_form = AGENT_SIZE_ARGS;
	if (value->form == POOL_VALUE_ASK)
		function->size_form = AGENT_SIZE_STRING;
	if (value->form == POOL_VALUE_RETURN)
		function->size_form = AGENT_SIZE_WORD;
	function->size_word = value->offset;
}

/* ---- functions ---- */

/* Whether a context without a mark tells that there is nothing below it. */
static bool marks_are_kept(const struct agent_pools *pools)
{
	return !(pools->flags & AGENT_POOLS_TREE) || pools->flags & AGENT_POOLS_PARENT;
}

static enum agent_entry entry_of(const struct finding *finding, const struct function *function)
{
	const struct function_spec *spec = function->spec;

	if (function->size_form != AGENT_SIZE_ARGS)
		return AGENT_ENTRY_ANY;
	if (spec->kind == AGENT_KIND_RESET || spec->kind == AGENT_KIND_MOVE)
		return function->context_form == AGENT_CONTEXT_ARG && function->context == 0 &&
				       marks_are_kept(finding->pools)
			       ? AGENT_ENTRY_CONTEXT
			       : AGENT_ENTRY_ANY;
	if (spec->kind == AGENT_KIND_FREE && spec->pointer < 2)
		return spec->pointer ? AGENT_ENTRY_FREE_SECOND : AGENT_ENTRY_FREE;
	if (spec->kind == AGENT_KIND_REALLOC && spec->pointer == 0 && spec->size == 1 &&
	    spec->count == NONE)
		return AGENT_ENTRY_REALLOC;
	if (spec->kind != AGENT_KIND_ALLOC)
		return AGENT_ENTRY_ANY;
	if (spec->size + spec->count == 1)
		return AGENT_ENTRY_PRODUCT;
	if (spec->size == 0 && spec->count == NONE)
		return AGENT_ENTRY_SIZE_FIRST;
	if (spec->size == 1 && spec->count == NONE)
		return AGENT_ENTRY_SIZE_SECOND;
	return AGENT_ENTRY_ANY;
}

static const struct {
	enum agent_kind kind;
	uint8_t flags;
} kinds[] = {
	[POOL_ALLOC] = { AGENT_KIND_ALLOC, 0 },
	[POOL_REALLOC] = { AGENT_KIND_REALLOC, 0 },
	[POOL_FREE] = { AGENT_KIND_FREE, 0 },
	[POOL_FREE_CHAIN] = { AGENT_KIND_FREE_CHAIN, 0 },
	[POOL_RESET] = { AGENT_KIND_RESET, AGENT_SLOT_SELF | AGENT_SLOT_CHILDREN },
	[POOL_RESET_ONLY] = { AGENT_KIND_RESET, AGENT_SLOT_SELF },
	[POOL_RESET_CHILDREN] = { AGENT_KIND_RESET, AGENT_SLOT_CHILDREN },
	[POOL_DELETE] = { AGENT_KIND_RESET,
			  AGENT_SLOT_SELF | AGENT_SLOT_CHILDREN | AGENT_SLOT_DELETE },
	[POOL_MOVE] = { AGENT_KIND_MOVE, 0 },
};

static struct error *describe(struct finding *finding, const struct pool_function *wanted,
			      struct function *function)
{
	const struct pool_value *at = &wanted->pointer;
	struct function_spec *spec = function->owned_spec;
	uint64_t address = function->address;
	struct error *error;

	*spec = (struct function_spec){
		.name = wanted->name,
		.kind = kinds[wanted->kind].kind,
	};
	function->flags = kinds[wanted->kind].flags | (wanted->may_refuse ? AGENT_SLOT_TRY : 0);
	if (wanted->kind == POOL_ALLOC && wanted->pointer.form == POOL_VALUE_THROUGH)
		spec->kind = AGENT_KIND_ALLOC_AT;
	error = find_argument(finding, address, at, &spec->pointer);
	if (!error)
		error = find_argument(finding, address, at = &wanted->size, &spec->size);
	if (!error)
		error = find_argument(finding, address, at = &wanted->count, &spec->count);
	if (!error)
		error = find_argument(finding, address, at = &wanted->context, &function->context);
	if (!error)
		error = find_context(finding, at, function);
	/* The agent has them where others have a pointer and a size. */
	if (!error && wanted->kind == POOL_MOVE)
		error = find_argument(finding, address, at = &wanted->parent, &spec->pointer);
	if (!error && wanted->kind == POOL_FREE_CHAIN)
		error = find_argument(finding, address, at = &wanted->next, &spec->size);
	find_size(&wanted->size, function);
	spec->entry = entry_of(finding, function);
	return error ? pool_file_error(finding->file, wanted->line, at->column, error) : NULL;
}

/* Two names of one function: the first counts. */
static bool is_known(const struct function_vec *functions, uint64_t address)
{
	vec_for_each (function, functions)
		if (function->address == address)
			return true;
	return false;
}

static struct error *add(struct finding *finding, const struct pool_function *wanted)
{
	struct function function = { 0 };
	struct elf_symbol symbol;
	struct error *error;

	if (!applies(finding->target, &wanted->condition))
		return NULL;
	if (!find_symbol(finding->target, wanted->name, true, &symbol, &function.module)) {
		if (wanted->is_optional)
			return NULL;
		return pool_file_error(finding->file, wanted->line, wanted->column,
				       not_found(finding->target, wanted->name, true));
	}
	if (is_known(finding->functions, symbol.address))
		return NULL;
	function.is_optional = wanted->is_optional;
	snprintf(function.name, sizeof(function.name), "%s", wanted->name);
	function.address = symbol.address;
	function.size = symbol.size;
	function.spec = function.owned_spec = calloc(1, sizeof(*function.owned_spec));
	if (!function.spec)
		return &error_no_memory;
	error = describe(finding, wanted, &function);
	if (!error)
		error = function_read(finding->target, &function);
	if (!error)
		error = function_vec_append(finding->functions, &function);
	if (error) {
		free(function.code);
		free(function.owned_spec);
		return error;
	}
	if (function.spec->kind == AGENT_KIND_RESET)
		finding->pools->flags |= AGENT_POOLS_RESETS;
	return NULL;
}

static void find_tree(struct finding *finding)
{
	vec_for_each (tree, &finding->file->trees) {
		if (!applies(finding->target, &tree->condition))
			continue;
		finding->pools->flags |=
			AGENT_POOLS_TREE | (tree->is_blocks ? AGENT_POOLS_BLOCKS : 0);
		finding->pools->tree_child = tree->child;
		finding->pools->tree_next = tree->next;
		finding->pools->tree_node = tree->node;
		finding->pools->tree_parent = tree->parent;
		if (tree->has_parent)
			finding->pools->flags |= AGENT_POOLS_PARENT;
		return;
	}
}

struct error *functions_find_pool(struct target *target, const struct pool_file *file,
				  struct function_vec *ret, struct agent_pools *pools_ret,
				  uint64_t *text_start_ret, uint64_t *text_end_ret)
{
	struct finding finding = {
		.target = target,
		.file = file,
		.functions = ret,
		.pools = pools_ret,
	};
	struct error *error = NULL;
	bool allocates = false;

	*text_start_ret = UINT64_MAX;
	*text_end_ret = 0;
	find_tree(&finding);
	vec_for_each (wanted, &file->functions)
		if (!error)
			error = add(&finding, wanted);
	symbolizer_destroy(finding.symbolizer);
	if (error)
		return error;
	vec_for_each (function, ret) {
		*text_start_ret = min_u64(*text_start_ret, function->address);
		*text_end_ret =
			max_u64(*text_end_ret, function->address + max_u64(function->size, 1));
		allocates |= function->spec->kind == AGENT_KIND_ALLOC ||
			     function->spec->kind == AGENT_KIND_ALLOC_AT ||
			     function->spec->kind == AGENT_KIND_REALLOC;
	}
	if (!allocates)
		return error_create(ERROR_USAGE, "of the functions in %s that allocate %s has none",
				    file->name, target->name);
	return NULL;
}
