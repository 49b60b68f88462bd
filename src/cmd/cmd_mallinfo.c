#include "memprobe/cmd.h"

#include <inttypes.h>
#include <string.h>

#include "memprobe/allocator_calls.h"
#include "memprobe/heap.h"
#include "memprobe/log.h"
#include "memprobe/num.h"
#include "memprobe/trim_forecast.h"
#include "frozen_heap.h"
#include "mallinfo_output.h"

/* Below this, no word about it. */
#define FREE_MUCH (16u << 20)

enum what { SHOW_TABLE, SHOW_XML, SHOW_STATS };
enum method { METHOD_AUTO, METHOD_CALL, METHOD_WALK };

static const struct command_option options[] = {
	{ "method", 0, "HOW", "auto, call (the allocator's own functions) or walk (reads only)" },
	{ "xml", 0, NULL, "the raw XML of malloc_info (glibc)" },
	{ "stats", 0, NULL, "the allocator's own report, as text (glibc: malloc_stats)" },
	{ NULL, 0, NULL, NULL },
};

/* ---- what may be done ---- */

static bool is_much_free(const struct heap_figures *totals)
{
	return totals->free != STAT_UNKNOWN && totals->free > totals->system / 4 &&
	       totals->free > FREE_MUCH;
}

static uint64_t extra_bytes(const struct heap_stats *stats, const char *name)
{
	vec_for_each (extra, &stats->extras)
		if (!strcmp(extra->name, name))
			return extra->value;
	return STAT_UNKNOWN;
}

/*
 * By the allocator's own figures: what it would give back is pages without blocks. What lies free
 * between blocks, in caches, or has left memory already (retained, unmapped) counts as free, too.
 */
static void hint_by_figures(const struct command_context *context, const struct heap_stats *stats)
{
	uint64_t dirty = extra_bytes(stats, "dirty"), muzzy = extra_bytes(stats, "muzzy");
	uint64_t pages = extra_bytes(stats, "page_heap_free");
	const char *target = context->target_text;
	char text[2][SIZE_TEXT_MAX];

	if (dirty != STAT_UNKNOWN && muzzy != STAT_UNKNOWN) {
		if (dirty + muzzy > FREE_MUCH)
			command_hint(context,
				     "`memprobe trim %s` can give back pages without blocks: dirty "
				     "%s, muzzy %s",
				     target, format_size(dirty, text[0]),
				     format_size(muzzy, text[1]));
	} else if (pages != STAT_UNKNOWN) {
		if (pages > FREE_MUCH)
			command_hint(context,
				     "`memprobe trim %s` can give back pages without blocks: %s",
				     target, format_size(pages, text[0]));
	} else if (context->target->process) {
		command_hint(
			context,
			"much of it is free: `memprobe trim %s --dry-run` shows how much would "
			"come back",
			target);
	}
}

/*
 * What was given back before is still the heap's, and free: say what is left to gain. NULL @heap:
 * that is not known.
 */
static void hint_at_trim(const struct command_context *context, const struct heap_stats *stats,
			 const struct heap *heap)
{
	const char *target = context->target_text;
	struct trim_forecast forecast = { 0 };
	char text[SIZE_TEXT_MAX];
	struct error *error = NULL;

	if (context->quiet || context->json || !is_much_free(&stats->totals))
		return;
	if (!heap || !heap->ops->trim_is_foretold) {
		hint_by_figures(context, stats);
		return;
	}
	error = trim_forecast(heap, 0, &forecast);
	format_size(forecast.released, text);
	if (error)
		log_debug("%s", error->message);
	else if (!context->target->process)
		command_hint(context,
			     "much of it is free: `memprobe trim %s --dry-run` shows what could "
			     "have come back",
			     target);
	else if (forecast.released > stats->totals.free / 8)
		command_hint(context, "much of it is free: `memprobe trim %s` would give back %s",
			     target, text);
	else
		command_hint(context,
			     "much of it is free, but most of that has left memory already or lies "
			     "between blocks: %s would come back; see `memprobe trim %s --dry-run`",
			     text, target);
	trim_forecast_deinit(&forecast);
	error_destroy(error);
}

/* ---- the allocator's own functions ---- */

static struct error *print_text(FILE *out, void *data)
{
	const struct call_text *text = data;

	fwrite(text->bytes, 1, text->size, out);
	if (text->size && text->bytes[text->size - 1] != '\n')
		fputc('\n', out);
	return NULL;
}

static struct error *choose_method(const struct command_context *context, enum method *ret)
{
	const char *method = command_option(context, "method");

	*ret = METHOD_AUTO;
	if (!method || !strcmp(method, "auto"))
		return NULL;
	*ret = METHOD_CALL;
	if (!strcmp(method, "call"))
		return NULL;
	*ret = METHOD_WALK;
	if (!strcmp(method, "walk"))
		return NULL;
	return error_create(ERROR_USAGE, "--method takes auto, call or walk, not '%s'", method);
}

static struct error *choose_what(const struct command_context *context, enum what *ret)
{
	bool xml = command_option(context, "xml"), stats = command_option(context, "stats");

	if (xml && stats)
		return error_create(ERROR_USAGE, "--xml and --stats exclude each other");
	if (xml && context->json)
		return error_create(ERROR_USAGE, "--xml and --json exclude each other");
	*ret = xml ? SHOW_XML : stats ? SHOW_STATS : SHOW_TABLE;
	return NULL;
}

/* What @print, one of the allocator's ops, has to say. */
static struct error *show_text(struct command_context *context, struct allocator_caller *caller,
			       struct error *(*print)(struct allocator_caller *caller,
						      struct call_text *ret))
{
	struct call_text text = { 0 };
	struct error *error = print(caller, &text);

	if (!error && text.size == 0)
		log_warn("the allocator printed nothing: its stream may be buffered or closed");
	command_stopped(context, call_stopped_us(caller->session));
	if (!error && context->json)
		error = command_write_json(context,
					   mallinfo_json(context, "call", NULL, NULL, text.bytes));
	else if (!error)
		error = command_print(context, print_text, &text);
	call_text_deinit(&text);
	return error;
}

/*
 * The heap was too busy to be walked: malloc_info tells nothing of thread caches, of which the walk
 * has seen some. Where it saw none, it may have missed them.
 */
static void fill_from_walk(struct heap_stats *stats, const struct heap *busy)
{
	vec_for_each (arena, &stats->arenas) {
		vec_for_each (walked, &busy->arenas) {
			if (!arena->address || walked->address != arena->address ||
			    !walked->figures.tcache_chunks)
				continue;
			arena->figures.tcache = walked->figures.tcache;
			arena->figures.tcache_chunks = walked->figures.tcache_chunks;
		}
	}
	heap_stats_sum_caches(stats);
	log_warn("the heap changed too fast to be read: malloc_info was called in the target; what "
		 "thread caches hold is approximate, or unknown (-)");
}

static struct error *show_figures(struct command_context *context, struct allocator_caller *caller,
				  const struct heap *busy)
{
	struct heap_stats stats;
	struct error *error;

	heap_stats_init(&stats);
	error = caller->allocator.ops->stats(caller, &stats);
	command_stopped(context, call_stopped_us(caller->session));
	if (!error && busy)
		fill_from_walk(&stats, busy);
	if (!error && context->json)
		error = command_write_json(context,
					   mallinfo_json(context, "call", &stats, NULL, NULL));
	else if (!error)
		error = mallinfo_print(context, "call", &stats, NULL, caller->allocator.name);
	if (!error)
		hint_at_trim(context, &stats, NULL);
	heap_stats_deinit(&stats);
	return error;
}

static struct error *show(struct command_context *context, struct allocator_caller *caller,
			  enum what what, const struct heap *busy)
{
	const struct allocator_ops *ops = caller->allocator.ops;

	if (what == SHOW_XML && !ops->xml)
		return error_hint(error_create(ERROR_UNSUPPORTED,
					       "%s has no malloc_info that would print XML",
					       caller->allocator.name),
				  "--stats prints its own report");
	if (what == SHOW_XML)
		return show_text(context, caller, ops->xml);
	if (what == SHOW_STATS && !ops->text)
		return error_hint(error_create(ERROR_UNSUPPORTED, "%s has no report of its own",
					       caller->allocator.name),
				  "without --stats its figures are shown");
	if (what == SHOW_STATS || !ops->stats)
		return show_text(context, caller, ops->text);
	return show_figures(context, caller, busy);
}

static bool tells_figures(const struct allocator_ops *ops)
{
	return ops->stats || ops->text;
}

static struct error *no_functions(const struct allocator *allocator)
{
	struct error *error =
		error_create(ERROR_UNSUPPORTED, "%s has no functions that tell its figures",
			     allocator->name ? allocator->name : "the target's allocator");
	char titles[ALLOCATOR_TITLES_MAX];

	if (allocator->ops && allocator->ops->no_figures)
		return error_hint(error, "%s", allocator->ops->no_figures);
	allocator_titles(tells_figures, titles);
	return error_hint(
		error, "memprobe knows %s; `memprobe maps --by-type` shows what is mapped", titles);
}

/* NULL @busy: nothing was walked before. */
static struct error *run_call(struct command_context *context, struct allocator *allocator,
			      enum what what, const struct heap *busy)
{
	struct allocator_caller caller = { .target = context->target, .allocator = *allocator };
	cleanup(call) struct call_session *session = NULL;
	char text[SIZE_TEXT_MAX];
	struct error *error;

	if (!allocator->ops || !tells_figures(allocator->ops))
		return no_functions(allocator);
	error = command_open_call(context, &session);
	if (error)
		return error;
	caller.session = session;
	error = show(context, &caller, what, busy);
	if (error || !caller.missing_bytes)
		return error;
	log_warn("%s (%" PRIu64 " bytes) of further copies of malloc in the process are missing "
		 "here; --method=walk shows all",
		 format_size(caller.missing_bytes, text), caller.missing_bytes);
	context->status = ERROR_PARTIAL;
	return NULL;
}

/* ---- read from outside ---- */

static struct error *show_heap(struct command_context *context, const struct heap *heap)
{
	const char *name = heap->ops->name;
	struct thread_vec threads = { 0 };
	struct heap_coverage coverage;
	struct heap_stats stats;
	struct error *error;

	heap_stats_init(&stats);
	heap_coverage_read(context->target, heap, &coverage);
	context->target->lent_maps = heap->maps;
	error = target_read_threads(context->target, &threads);
	context->target->lent_maps = NULL;
	if (!error)
		error = heap_stats_of(heap, &threads, &stats);
	if (!error && context->json)
		error = command_write_json(context,
					   mallinfo_json(context, "walk", &stats, &coverage, NULL));
	else if (!error)
		error = mallinfo_print(context, "walk", &stats, &coverage, name);
	if (!error)
		hint_at_trim(context, &stats, heap);
	heap_stats_deinit(&stats);
	thread_vec_deinit(&threads);
	return error;
}

static struct error *run_walk(struct command_context *context)
{
	cleanup(heap) struct heap *heap = NULL;
	struct error *error = heap_open(context->target, NULL, &heap);

	if (error)
		return error;
	command_warn_of_heap(context, heap);
	return show_heap(context, heap);
}

/* What two looks at a running process find wrong is believed only if a snapshot has it, too. */
static struct error *run_frozen(struct command_context *context)
{
	struct frozen_heap frozen = { 0 };
	struct error *error = frozen_heap_open(context, NULL, &frozen);

	if (!error)
		error = show_heap(context, frozen.heap);
	frozen_heap_close(context, &frozen);
	return error;
}

/*
 * Without being told how: by walking where that gives true figures. A heap that is changing all the
 * time holds still for a call only, or in a snapshot; one that is corrupt must not be called into.
 */
static struct error *run_auto(struct command_context *context, struct allocator *allocator)
{
	bool is_live = context->target->process != NULL;
	cleanup(heap) struct heap *heap = NULL;
	struct error *error;

	if (is_live && !(allocator->ops && allocator->ops->walk))
		return run_call(context, allocator, SHOW_TABLE, NULL);
	error = heap_open(context->target, NULL, &heap);
	if (error)
		return error;
	if (heap->is_changing && is_live) {
		error = run_call(context, allocator, SHOW_TABLE, heap);
		if (!error)
			return NULL;
		log_debug("%s", error->message);
		error_destroy(error);
	}
	if (heap->is_inconsistent && is_live) {
		error = run_frozen(context);
		if (!error)
			return NULL;
		log_debug("%s", error->message);
		error_destroy(error);
	}
	command_warn_of_heap(context, heap);
	return show_heap(context, heap);
}

static struct error *run(struct command_context *context)
{
	enum method method = METHOD_AUTO;
	enum what what = SHOW_TABLE;
	struct allocator allocator;
	struct error *error = choose_method(context, &method);

	if (!error)
		error = choose_what(context, &what);
	if (!error && method == METHOD_WALK && what != SHOW_TABLE)
		error = error_create(ERROR_USAGE, "--xml and --stats are what a call returns");
	if (!error)
		error = allocator_detect(context->target, &allocator);
	if (error)
		return error;
	if (method == METHOD_WALK)
		return run_walk(context);
	if (method == METHOD_CALL || what != SHOW_TABLE)
		return run_call(context, &allocator, what, NULL);
	return run_auto(context, &allocator);
}

const struct command cmd_mallinfo = {
	.name = "mallinfo",
	.arguments = "",
	.summary = "the allocator's own figures per arena, and which threads use it",
	.target = TARGET_ANY,
	.options = options,
	.stops = true,
	.run = run,
};
