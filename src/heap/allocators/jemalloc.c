/* jemalloc: malloc_stats_print and mallctl, version 5 and later. */
#include "heap/calls.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "memprobe/jemalloc_notes.h"

#define STATS_BUFFER (4u << 20)
#define STACK_NEEDED 65536u
#define ARENAS_MAX   65536

static const struct call_options options = {
	.uses_malloc = true,
	.first_thread_only = true,
	.stack_needed = STACK_NEEDED,
};

/* JSON; without bins, large classes, extents, huge page allocator, mutexes, which nobody reads here
 * and which would take long: the text is appended by strcat(). */
#define JSON_OPTIONS "Jmdblxeh"

/*
 * malloc_stats_print(void (*write_cb)(void *, const char *), void *opaque, const char *options):
 * strcat() has the callback's shape; the fresh mapping is its empty string.
 */
static struct error *add_stats_print(struct allocator_caller *caller, struct call_script *script,
				     struct call_buffer *buffer, void *data)
{
	const char *options = data;
	uint64_t print, append;
	size_t text;
	struct error *error = find_own_function(caller, "malloc_stats_print", &print);

	if (!error)
		error = call_find_function(caller->session, "strcat", &append);
	if (error)
		return error;
	text = call_add_data(script, options, strlen(options) + 1);
	call_add_function(script, print, 3,
			  (struct call_arg[]){ CALL_ARG(append), CALL_ARG(buffer->address),
					       CALL_ADDR(text) });
	return NULL;
}

static struct error *stats_print(struct allocator_caller *caller, char *print_options,
				 struct call_text *ret)
{

	return call_for_text(caller, STATS_BUFFER, options, add_stats_print, print_options, ret,
			     NULL);
}

static struct error *jemalloc_text(struct allocator_caller *caller, struct call_text *ret)
{
	return stats_print(caller, "", ret);
}

/* An unsigned figure, or STAT_UNKNOWN. */
static uint64_t figure(const json_t *object, const char *key)
{
	const json_t *value = json_object_get(object, key);

	return json_is_integer(value) && json_integer_value(value) >= 0
		       ? (uint64_t)json_integer_value(value)
		       : STAT_UNKNOWN;
}

/* @a - @b where both are known and it makes sense. */
static uint64_t difference(uint64_t a, uint64_t b)
{
	return a != STAT_UNKNOWN && b != STAT_UNKNOWN && a >= b ? a - b : STAT_UNKNOWN;
}

static uint64_t sum(uint64_t a, uint64_t b)
{
	uint64_t total;

	return a == STAT_UNKNOWN || b == STAT_UNKNOWN || __builtin_add_overflow(a, b, &total)
		       ? STAT_UNKNOWN
		       : total;
}

static uint64_t product(uint64_t a, uint64_t b)
{
	uint64_t total;

	return a == STAT_UNKNOWN || b == STAT_UNKNOWN || __builtin_mul_overflow(a, b, &total)
		       ? STAT_UNKNOWN
		       : total;
}

static struct error *add_arena(struct heap_stats *stats, const char *name, const json_t *json)
{
	struct arena_stats *arena;
	unsigned long index;
	struct error *error;
	char *end;

	index = strtoul(name, &end, 10);
	if (*end || end == name || index >= ARENAS_MAX || stats->arenas.size >= ARENAS_MAX)
		return NULL;
	error = heap_stats_add_arena(stats, index, &arena);
	if (error)
		return error;
	arena->figures.system = figure(json, "resident");
	arena->figures.in_use = sum(figure(json_object_get(json, "small"), "allocated"),
				    figure(json_object_get(json, "large"), "allocated"));
	arena->figures.free = difference(arena->figures.system, arena->figures.in_use);
	arena->figures.tcache = figure(json, "tcache_bytes");
	return NULL;
}

static struct error *add_extra(struct heap_stats *stats, const char *name, uint64_t value)
{
	struct heap_extra extra = { name, value };

	return value == STAT_UNKNOWN ? NULL : heap_extra_vec_append(&stats->extras, &extra);
}

/*
 * system is what is physically resident (jemalloc keeps address space for itself: `mapped` and
 * `retained`), in_use what the program has, free the rest: fragments, dirty pages, metadata.
 */
static struct error *read_figures(const json_t *json, struct heap_stats *ret)
{
	static const char *const extras[] = { "active", "metadata", "mapped", "retained" };
	const json_t *stats = json_object_get(json, "stats");
	json_t *arenas = json_object_get(json, "stats.arenas"), *arena;
	uint64_t page = figure(json_object_get(json, "arenas"), "page"), dirty = 0, muzzy = 0;
	struct error *error = NULL;
	const char *name;

	ret->totals.in_use = figure(stats, "allocated");
	ret->totals.system = figure(stats, "resident");
	ret->totals.free = difference(ret->totals.system, ret->totals.in_use);
	for (size_t i = 0; i < sizeof(extras) / sizeof(extras[0]) && !error; i++)
		error = add_extra(ret, extras[i], figure(stats, extras[i]));
	json_object_foreach(arenas, name, arena)
	{
		if (error)
			break;
		error = add_arena(ret, name, arena);
		dirty = sum(dirty, figure(arena, "pdirty"));
		muzzy = sum(muzzy, figure(arena, "pmuzzy"));
	}
	if (!error)
		error = add_extra(ret, "dirty", product(dirty, page));
	if (!error)
		error = add_extra(ret, "muzzy", product(muzzy, page));
	if (!error && ret->totals.in_use == STAT_UNKNOWN)
		error = error_hint(
			error_create(ERROR_UNSUPPORTED, "this jemalloc keeps no statistics"),
			"it was built with --disable-stats; `memprobe maps --by-type` "
			"shows what it mapped");
	return error;
}

static struct error *jemalloc_stats(struct allocator_caller *caller, struct heap_stats *ret)
{
	struct call_text text = { 0 };
	struct error *error = stats_print(caller, JSON_OPTIONS, &text);
	json_t *json;

	if (error)
		return error;
	json = json_loadb(text.bytes ? text.bytes : "", text.size, 0, NULL);
	if (json)
		error = read_figures(json_object_get(json, "jemalloc"), ret);
	else
		error = error_hint(error_create(ERROR_UNSUPPORTED,
						"the statistics of this jemalloc are no JSON"),
				   "--stats shows them as they are");
	json_decref(json);
	call_text_deinit(&text);
	return error;
}

/*
 * mallctl("arena.4096.purge"): MALLCTL_ARENAS_ALL, jemalloc 5. The calling thread's cache is
 * flushed before; the others' caches stay, there is no call for them.
 */
static struct error *jemalloc_trim(struct allocator_caller *caller, uint64_t pad,
				   int64_t *returned_ret)
{
	static const char flush[] = "thread.tcache.flush", purge[] = "arena.4096.purge";
	struct call_result result = { 0 };
	struct call_script script;
	uint64_t mallctl;
	size_t returned;
	struct error *error = find_own_function(caller, "mallctl", &mallctl);

	if (error)
		return error;
	call_begin(&script, caller->target->arch);
	call_add_function(
		&script, mallctl, 5,
		(struct call_arg[5]){ CALL_ADDR(call_add_data(&script, flush, sizeof(flush))) });
	returned = call_add_function(
		&script, mallctl, 5,
		(struct call_arg[5]){ CALL_ADDR(call_add_data(&script, purge, sizeof(purge))) });
	call_add_marker(&script);
	error = call_run(caller->session, &script, &options, &result);
	if (!error)
		error = check_completed(&result, "purge");
	if (!error)
		*returned_ret = (int32_t)call_result_word(&result, &script, returned);
	return error;
}

static void destroy_notes(void *data)
{
	jemalloc_notes_destroy(data);
}

static struct error *find_notes(struct target *target, const struct thread_vec *threads,
				const struct thread_state_vec *states,
				const struct heap_block_vec *blocks, struct allocator_notes *ret)
{
	struct jemalloc_notes *notes;
	struct error *error = jemalloc_notes_find(target, threads, states, blocks, &notes);

	if (!error)
		*ret = (struct allocator_notes){
			.erase = jemalloc_notes_erase,
			.destroy = destroy_notes,
			.data = notes,
		};
	return error;
}

static const struct allocator_mark marks[] = {
	{ "mallctl", "", MARK_BESIDE_MALLOC },
	{ "malloc_stats_print", "", MARK_BESIDE_MALLOC },
	{ "je_mallctl", "je_", MARK_BESIDE_MALLOC | MARK_IN_PROGRAM },
	{ "_rjem_mallctl", "_rjem_", MARK_IN_PROGRAM },
	{ NULL, NULL, 0 },
};

static const char *const code_marks[] = { "je_malloc", "_rjem_malloc", "je_mallctl",
					  "_rjem_mallctl", NULL };
static const char *const code_prefixes[] = { "je_", "_rjem_", NULL };

#define NONE FUNCTION_NO_ARGUMENT
static const struct allocator_function functions[] = {
	{ "mallocx", true, FUNCTION_ALLOC, NONE, 0, NONE, 2 },
	{ "rallocx", true, FUNCTION_REALLOC, 0, 1, NONE, 3 },
	{ "xallocx", true, FUNCTION_RESIZE, 0, 1, NONE, 4 },
	{ "dallocx", true, FUNCTION_FREE, 0, NONE, NONE, 2 },
	{ "sdallocx", true, FUNCTION_FREE, 0, NONE, NONE, 3 },
	{ NULL, false, 0, 0, 0, 0, 0 },
};

const struct allocator_ops allocator_jemalloc = {
	.name = "jemalloc",
	.title = "jemalloc",
	.marks = marks,
	.code = { code_marks, code_prefixes, 1 << 20 },
	.functions = functions,
	.has_operators = true,
	.find_notes = find_notes,
	.stats = jemalloc_stats,
	.text = jemalloc_text,
	.trim = jemalloc_trim,
};
