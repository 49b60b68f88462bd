#include "diagnose_gather.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "frozen_leaks.h"
#include "heap_coverage.h"
#include "memprobe/cgroup.h"
#include "memprobe/classify.h"
#include "memprobe/io.h"
#include "memprobe/log.h"
#include "memprobe/num.h"
#include "memprobe/process_usage.h"
#include "memprobe/stack_use.h"
#include "memprobe/trim_forecast.h"

/* A larger process is not searched for leaks: that would take longer than an answer may. */
#define LEAKS_MAX ((uint64_t)8 << 30)

/* ---- mappings ---- */

static void add_mapping(struct diagnose_facts *facts, const struct mapping *mapping)
{
	uint64_t size = mapping->end - mapping->start;
	uint64_t resident = mapping->usage_known ? mapping->usage.rss : size;

	if (mapping->type == MAPPING_GUARD)
		resident = 0;
	facts->space_used += size;
	facts->rss += resident;
	facts->types[mapping->type] += resident;
	if (mapping->usage_known)
		facts->swap += mapping->usage.swap;
	facts->huge += mapping->usage.huge;
}

static struct error *gather_mappings(struct command_context *context, struct diagnose_facts *facts,
				     struct mapping_vec *maps)
{
	struct target *target = context->target;
	struct error *error =
		target_read_classified(target, facts->is_live ? MAPS_USAGE : MAPS_PLAIN, maps);

	if (error)
		return error;
	facts->mappings = maps->size;
	vec_for_each (mapping, maps)
		add_mapping(facts, mapping);
	if (target->arch->bits == 32)
		facts->space = stack_use_space_32(maps);
	return NULL;
}

/* ---- stacks ---- */

static struct error *gather_stacks(struct target *target, struct diagnose_facts *facts)
{
	struct thread_vec threads = { 0 };
	struct stack_use_vec uses = { 0 };
	struct error *error = target_read_threads(target, &threads);

	if (!error)
		error = stack_use_read(target, &threads, &uses);
	if (!error) {
		struct stack_use total = stack_use_total(&uses);

		vec_for_each (use, &uses)
			facts->stacks += use->known;
		facts->stacks_size = total.size;
		facts->stacks_used = total.depth;
	}
	thread_vec_deinit(&threads);
	stack_use_vec_deinit(&uses);
	return error;
}

/* ---- the heap ---- */

static bool is_foretold(const struct heap *heap)
{
	return heap->ops && heap->ops->trim_is_foretold;
}

/* Pages of free blocks, whole or shared with blocks in use, as trim_forecast() tells them. */
static struct error *gather_free_pages(const struct heap *heap, struct diagnose_facts *facts)
{
	struct trim_forecast forecast = { 0 };
	struct error *error = trim_forecast(heap, 0, &forecast);

	facts->heap_free = 0;
	for (size_t i = 0; !error && i < forecast.arenas.size; i++) {
		const struct trim_arena *arena = &forecast.arenas.data[i];
		uint64_t bytes = arena->inner + arena->top + arena->top_kept + arena->pinned;

		facts->heap_free += bytes;
		if (!heap->arenas.data[i].is_main)
			facts->arenas_free += bytes;
	}
	facts->released = forecast.released;
	trim_forecast_deinit(&forecast);
	return error;
}

/* By the allocator's figures: what is not in use. */
static struct error *gather_free_figures(const struct heap *heap, struct diagnose_facts *facts)
{
	struct heap_stats stats;
	struct error *error;

	heap_stats_init(&stats);
	error = heap_stats_of(heap, NULL, &stats);
	if (!error && stats.totals.in_use != STAT_UNKNOWN) {
		uint64_t mapped = stats.mmapped_bytes == STAT_UNKNOWN ? 0 : stats.mmapped_bytes;
		uint64_t used = stats.totals.in_use + mapped;

		facts->heap_free = facts->heap - min_u64(facts->heap, used);
	}
	heap_stats_deinit(&stats);
	return error;
}

static void gather_heap(struct target *live, const struct heap *heap, struct diagnose_facts *facts)
{
	struct heap_coverage coverage = { 0 };

	heap_coverage_read(live, heap, &coverage);
	facts->allocator = heap->ops ? heap->ops->title : "the allocator";
	facts->heap = coverage.walked;
	/* A core does not tell what was resident: all that the allocator has is. */
	if (!coverage.known)
		vec_for_each (region, &heap->regions)
			facts->heap += region->end - region->start;
	facts->arenas = heap->arenas.size;
}

static struct error *gather_leaks(struct frozen_leaks *leaks, struct diagnose_facts *facts)
{
	struct leak_result result = { 0 };
	struct error *error = leaks_find(leaks->frozen.heap, &leaks->options, &result);

	if (!error) {
		facts->leaked = result.leaked_bytes;
		facts->leaked_count = result.leaked_count;
	}
	leak_result_deinit(&result);
	return error;
}

/* From a snapshot, whose heap is that of an instant. */
static struct error *gather_frozen(struct command_context *context, struct diagnose_facts *facts)
{
	uint64_t max_pause = context->max_pause_us;
	struct frozen_leaks leaks = { 0 };
	const struct heap *heap;
	struct error *error;

	if (facts->is_live && facts->rss > LEAKS_MAX)
		return error_create(ERROR_BUSY, "it is large");
	context->max_pause_us = min_u64(max_pause ? max_pause : UINT64_MAX, DIAGNOSE_PAUSE_US);
	error = frozen_leaks_open(context, &leaks);
	context->max_pause_us = max_pause;
	if (!error)
		error = gather_leaks(&leaks, facts);
	heap = leaks.frozen.heap;
	if (!error && is_foretold(heap))
		error = gather_free_pages(heap, facts);
	/* What follows needs no copy: the target is to be rid of it. */
	if (!error) {
		frozen_heap_release(context, &leaks.frozen);
		gather_heap(context->target, heap, facts);
	}
	if (!error && !is_foretold(heap))
		error = gather_free_figures(heap, facts);
	frozen_leaks_close(context, &leaks);
	return error;
}

/* While it runs; nothing is stopped. */
static struct error *gather_running(struct command_context *context, struct diagnose_facts *facts)
{
	cleanup(heap) struct heap *heap = NULL;
	struct error *error = heap_open(context->target, NULL, &heap);

	if (error)
		return error;
	gather_heap(context->target, heap, facts);
	return is_foretold(heap) ? gather_free_pages(heap, facts)
				 : gather_free_figures(heap, facts);
}

/* What forbids to read the heap is no reason to say nothing of the rest. */
static struct error *gather_allocator(struct command_context *context,
				      struct diagnose_gathered *gathered)
{
	struct diagnose_facts *facts = &gathered->facts;
	struct allocator allocator;
	struct error *error = allocator_detect(context->target, &allocator);

	if (error)
		return error;
	if (!allocator.ops || !allocator.ops->walk) {
		facts->unread = allocator.ops ? allocator.ops->title : NULL;
		gathered->no_leaks = strdup("its heap cannot be read from outside");
		return gathered->no_leaks ? NULL : &error_no_memory;
	}
	error = gather_frozen(context, facts);
	if (!error || error_is(error, ERROR_INTERRUPTED) || error == &error_no_memory)
		return error;
	gathered->no_leaks = strdup(error->message);
	error_destroy(error);
	error = gather_running(context, facts);
	if (error_is(error, ERROR_UNSUPPORTED) || error_is(error, ERROR_PERMISSION)) {
		log_debug("%s", error->message);
		error_destroy(error);
		error = NULL;
	}
	return error;
}

/* ---- the rest ---- */

static void gather_machine(struct diagnose_facts *facts)
{
	char *text = NULL;
	struct error *error = read_file_at(AT_FDCWD, "/proc/sys/vm/max_map_count", &text, NULL);

	if (!error)
		facts->mappings_max = strtoull(text, NULL, 10);
	error_destroy(error);
	free(text);
}

static void gather_group(const struct process *process, struct diagnose_facts *facts)
{
	struct cgroup_memory group;

	cgroup_read_memory(process, &group);
	if (!group.known)
		return;
	facts->group_limit = group.limit;
	facts->group_usage = group.limit_usage;
	facts->group_shmem = group.shmem;
}

/* Of huge pages of anonymous memory. */
#define HUGE_PAGE  ((uint64_t)2 << 20)
#define SAMPLE_MAX 32u
#define SMALL_PAGE 4096u

static unsigned count_empty(const unsigned char *bytes)
{
	unsigned empty = 0;

	for (size_t at = 0; at < HUGE_PAGE; at += SMALL_PAGE)
		empty += !bytes[at] && !memcmp(bytes + at, bytes + at + 1, SMALL_PAGE - 1);
	return empty;
}

/* False: it is not all there, and not to be touched. */
static bool read_huge(struct target *target, uint64_t address, unsigned char *bytes)
{
	bool present[HUGE_PAGE / SMALL_PAGE];
	struct error *error =
		target_page_present(target, address, sizeof(present) / sizeof(*present), present);
	bool is_there = !error && !memchr(present, false, sizeof(present));

	if (is_there)
		error = target_read(target, address, bytes, HUGE_PAGE);
	is_there = is_there && !error;
	error_destroy(error);
	return is_there;
}

/* At most SAMPLE_MAX of all mappings, evenly spaced. */
static void gather_huge(struct target *target, const struct mapping_vec *maps,
			struct diagnose_facts *facts)
{
	uint64_t step = max_u64(facts->huge / SAMPLE_MAX, HUGE_PAGE), empty = 0, seen = 0;
	unsigned char *bytes = facts->huge ? malloc(HUGE_PAGE) : NULL;

	for (size_t i = 0; bytes && i < maps->size; i++) {
		const struct mapping *mapping = &maps->data[i];
		uint64_t at = round_up(mapping->start, HUGE_PAGE);

		for (; mapping->usage.huge && at + HUGE_PAGE <= mapping->end;
		     at += round_up(step, HUGE_PAGE)) {
			if (seen >= SAMPLE_MAX || !read_huge(target, at, bytes))
				continue;
			empty += count_empty(bytes);
			seen++;
		}
	}
	free(bytes);
	if (seen)
		facts->huge_empty = (uint64_t)((double)facts->huge * (double)empty /
					       (double)(seen * (HUGE_PAGE / SMALL_PAGE)));
}

/* What cannot be read is said, and the rest is an answer all the same. */
static struct error *go_on(struct command_context *context, struct error *error)
{
	if (!error || error == &error_no_memory || error_is(error, ERROR_INTERRUPTED) ||
	    error_is(error, ERROR_NO_TARGET))
		return error;
	log_warn("%s", error->message);
	error_destroy(error);
	context->status = ERROR_PARTIAL;
	return NULL;
}

static void gather_tables(const struct process *process, struct diagnose_facts *facts)
{
	struct usage usage;
	struct error *error = usage_read(process->dirfd, USAGE_STATUS, &usage);

	if (!error)
		facts->page_tables = usage.page_tables;
	error_destroy(error);
}

struct error *diagnose_gather(struct command_context *context, struct diagnose_gathered *ret)
{
	struct target *target = context->target;
	struct mapping_vec maps = { 0 };
	struct error *error;

	ret->facts = (struct diagnose_facts){
		.target = context->target_text,
		.is_live = target->process != NULL,
		.page_tables = DIAGNOSE_UNKNOWN,
		.heap = DIAGNOSE_UNKNOWN,
		.heap_free = DIAGNOSE_UNKNOWN,
		.released = DIAGNOSE_UNKNOWN,
		.leaked = DIAGNOSE_UNKNOWN,
		.leaked_count = DIAGNOSE_UNKNOWN,
		.mappings_max = DIAGNOSE_UNKNOWN,
		.huge_empty = DIAGNOSE_UNKNOWN,
		.group_usage = DIAGNOSE_UNKNOWN,
		.group_limit = DIAGNOSE_UNKNOWN,
		.group_shmem = DIAGNOSE_UNKNOWN,
	};
	memset(&ret->facts.limits, 0xff, sizeof(ret->facts.limits));
	error = gather_mappings(context, &ret->facts, &maps);
	if (!error)
		error = go_on(context, gather_stacks(target, &ret->facts));
	if (!error)
		error = go_on(context, gather_allocator(context, ret));
	if (!error) {
		ret->facts.runtime_name = heap_coverage_runtime(target, &ret->facts.runtime);
		if (target->process) {
			gather_tables(target->process, &ret->facts);
			gather_machine(&ret->facts);
			gather_group(target->process, &ret->facts);
			usage_read_limits(target->process->dirfd, &ret->facts.limits);
			gather_huge(target, &maps, &ret->facts);
		}
	}
	mappings_deinit(&maps);
	return error;
}

void diagnose_gathered_deinit(struct diagnose_gathered *gathered)
{
	free(gathered->no_leaks);
}
