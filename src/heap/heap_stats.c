#include "memprobe/heap_stats.h"

#include <string.h>

void heap_figures_init(struct heap_figures *figures)
{
	/* All ones is STAT_UNKNOWN in every field. */
	memset(figures, 0xff, sizeof(*figures));
}

static void add(uint64_t *sum, uint64_t value)
{
	*sum = *sum == STAT_UNKNOWN || value == STAT_UNKNOWN ? STAT_UNKNOWN : *sum + value;
}

void heap_figures_add(struct heap_figures *sum, const struct heap_figures *figures)
{
	add(&sum->system, figures->system);
	add(&sum->system_max, figures->system_max);
	add(&sum->in_use, figures->in_use);
	add(&sum->in_use_chunks, figures->in_use_chunks);
	add(&sum->free, figures->free);
	add(&sum->free_chunks, figures->free_chunks);
	add(&sum->fast, figures->fast);
	add(&sum->fast_chunks, figures->fast_chunks);
	add(&sum->tcache, figures->tcache);
	add(&sum->tcache_chunks, figures->tcache_chunks);
	add(&sum->top, figures->top);
}

/* No figure is known of what has no arenas. */
static bool is_empty(const struct heap_stats *stats)
{
	return !stats->arenas.size && stats->totals.system == STAT_UNKNOWN;
}

struct error *heap_stats_merge(struct heap_stats *to, struct heap_stats *from)
{
	bool is_first = is_empty(to);
	struct error *error = NULL;

	if (is_first)
		to->totals = from->totals;
	else
		heap_figures_add(&to->totals, &from->totals);
	if (is_first)
		to->mmapped_count = to->mmapped_bytes = 0;
	add(&to->mmapped_count, from->mmapped_count);
	add(&to->mmapped_bytes, from->mmapped_bytes);
	vec_for_each (arena, &from->arenas) {
		arena->index = (unsigned)to->arenas.size;
		if (!error)
			error = arena_stats_vec_append(&to->arenas, arena);
		if (!error)
			arena->threads = (struct pid_vec){ 0 };
	}
	return error;
}

void heap_stats_sum_caches(struct heap_stats *stats)
{
	struct heap_figures *sum = &stats->totals;

	sum->tcache = sum->tcache_chunks = sum->top = 0;
	vec_for_each (arena, &stats->arenas) {
		add(&sum->tcache, arena->figures.tcache);
		add(&sum->tcache_chunks, arena->figures.tcache_chunks);
		add(&sum->top, arena->figures.top);
	}
}

void heap_stats_init(struct heap_stats *stats)
{
	*stats = (struct heap_stats){
		.mmapped_count = STAT_UNKNOWN,
		.mmapped_bytes = STAT_UNKNOWN,
	};
	heap_figures_init(&stats->totals);
}

void heap_stats_deinit(struct heap_stats *stats)
{
	vec_for_each (arena, &stats->arenas)
		pid_vec_deinit(&arena->threads);
	arena_stats_vec_deinit(&stats->arenas);
	heap_extra_vec_deinit(&stats->extras);
}

struct error *heap_stats_add_arena(struct heap_stats *stats, unsigned index,
				   struct arena_stats **ret)
{
	struct arena_stats arena = { .index = index };
	struct error *error;

	heap_figures_init(&arena.figures);
	error = arena_stats_vec_append(&stats->arenas, &arena);
	if (!error)
		*ret = &stats->arenas.data[stats->arenas.size - 1];
	return error;
}
