/* gperftools' tcmalloc: the C interface of MallocExtension. */
#include "heap/calls.h"

#include <string.h>

#define STATS_BUFFER (1u << 20)
#define STACK_NEEDED 65536u

static const struct call_options options = {
	.uses_malloc = true,
	.first_thread_only = true,
	.stack_needed = STACK_NEEDED,
};

enum property { IN_USE, HEAP, UNMAPPED, PAGEHEAP_FREE, THREAD_CACHES, PROPERTIES };

static const char *const properties[PROPERTIES] = {
	[IN_USE] = "generic.current_allocated_bytes",
	[HEAP] = "generic.heap_size",
	[UNMAPPED] = "tcmalloc.pageheap_unmapped_bytes",
	[PAGEHEAP_FREE] = "tcmalloc.pageheap_free_bytes",
	[THREAD_CACHES] = "tcmalloc.current_total_thread_cache_bytes",
};

/* MallocExtension_GetStats(char *buffer, int size) */
static struct error *add_get_stats(struct allocator_caller *caller, struct call_script *script,
				   struct call_buffer *buffer, void *data)
{
	uint64_t function;
	struct error *error =
		call_find_function(caller->session, "MallocExtension_GetStats", &function);

	if (error)
		return error;
	call_add_function(script, function, 2,
			  (struct call_arg[]){ CALL_ARG(buffer->address), CALL_ARG(buffer->size) });
	return NULL;
}

static struct error *tcmalloc_text(struct allocator_caller *caller, struct call_text *ret)
{
	return call_for_text(caller, STATS_BUFFER, options, add_get_stats, NULL, ret, NULL);
}

static struct error *fill(struct heap_stats *stats, const uint64_t values[PROPERTIES])
{
	static const struct {
		const char *name;
		enum property property;
	} extras[] = {
		{ "unmapped", UNMAPPED },
		{ "page_heap_free", PAGEHEAP_FREE },
		{ "thread_caches", THREAD_CACHES },
	};
	struct heap_figures *totals = &stats->totals;

	totals->in_use = values[IN_USE];
	if (values[HEAP] != STAT_UNKNOWN && values[UNMAPPED] <= values[HEAP])
		totals->system = values[HEAP] - values[UNMAPPED];
	if (totals->system != STAT_UNKNOWN && totals->in_use <= totals->system)
		totals->free = totals->system - totals->in_use;
	for (size_t i = 0; i < sizeof(extras) / sizeof(extras[0]); i++) {
		struct heap_extra extra = { extras[i].name, values[extras[i].property] };
		struct error *error;

		if (extra.value == STAT_UNKNOWN)
			continue;
		error = heap_extra_vec_append(&stats->extras, &extra);
		if (error)
			return error;
	}
	return NULL;
}

/*
 * int MallocExtension_GetNumericProperty(const char *property, size_t *value). system is the heap
 * without what was given back to the kernel; free counts the thread caches, which tcmalloc does
 * not count as in use.
 */
static struct error *tcmalloc_stats(struct allocator_caller *caller, struct heap_stats *ret)
{
	size_t known[PROPERTIES], value[PROPERTIES];
	uint64_t function, values[PROPERTIES];
	struct call_result result = { 0 };
	struct call_script script;
	struct error *error = call_find_function(caller->session,
						 "MallocExtension_GetNumericProperty", &function);

	if (error)
		return error;
	call_begin(&script, caller->target->arch);
	for (int i = 0; i < PROPERTIES; i++) {
		size_t name = call_add_data(&script, properties[i], strlen(properties[i]) + 1);

		value[i] = call_add_data(&script, NULL, caller->target->arch->word_size);
		known[i] = call_add_function(
			&script, function, 2,
			(struct call_arg[]){ CALL_ADDR(name), CALL_ADDR(value[i]) });
	}
	call_add_marker(&script);
	error = call_run(caller->session, &script, &options, &result);
	if (!error)
		error = check_completed(&result, "ask tcmalloc");
	if (error)
		return error;
	for (int i = 0; i < PROPERTIES; i++)
		values[i] = call_result_word(&result, &script, known[i]) & 0xff
				    ? call_result_word(&result, &script, value[i])
				    : STAT_UNKNOWN;
	return fill(ret, values);
}

static struct error *tcmalloc_trim(struct allocator_caller *caller, uint64_t pad,
				   int64_t *returned_ret)
{
	struct call_result result = { 0 };
	struct call_script script;
	uint64_t function;
	struct error *error =
		call_find_function(caller->session, "MallocExtension_ReleaseFreeMemory", &function);

	if (error)
		return error;
	call_begin(&script, caller->target->arch);
	call_add_function(&script, function, 0, NULL);
	call_add_marker(&script);
	error = call_run(caller->session, &script, &options, &result);
	return error ? error : check_completed(&result, "release free memory");
}

static const struct allocator_mark marks[] = {
	{ "MallocExtension_GetStats", "", MARK_BESIDE_MALLOC },
	{ "tc_malloc", "", MARK_BESIDE_MALLOC },
	{ "TCMallocInternalMalloc", "", MARK_BESIDE_MALLOC },
	{ NULL, NULL, 0 },
};

static const char *const code_marks[] = { "tc_malloc", NULL };
static const char *const code_prefixes[] = { "tc_", "_ZN8tcmalloc", NULL };

/* It marks each block with who allocated it, by which of the functions. */
static const char *refuse_hooks(const struct module *module)
{
	const char *name = strrchr(module->path, '/');

	name = name ? name + 1 : module->path;
	return strstr(name, "tcmalloc") && strstr(name, "_debug") ? "tells new from malloc" : NULL;
}

const struct allocator_ops allocator_tcmalloc = {
	.name = "tcmalloc",
	.title = "tcmalloc",
	.marks = marks,
	.code = { code_marks, code_prefixes, 1 << 20 },
	.has_operators = true,
	.refuse_hooks = refuse_hooks,
	.stats = tcmalloc_stats,
	.text = tcmalloc_text,
	.trim = tcmalloc_trim,
};
