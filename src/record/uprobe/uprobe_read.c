/* What has been recorded, as plain data. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "memprobe/clock.h"
#include "memprobe/num.h"
#include "uprobe.h"

double uprobe_weight(uint64_t rate, uint64_t size)
{
	return rate <= 1 ? 1 : -1 / expm1(-fmax((double)size, 1) / (double)rate);
}

struct collecting {
	struct uprobe_engine *engine;
	const struct stack_set *set;
	struct trace_data *data;
	uint32_t *sites; /* by stack: index + 1; 0: none yet */
};

/* Its pcs come later, when it is known how many there are. */
static struct error *site_of(struct collecting *collecting, uint32_t stack, uint32_t *ret)
{
	const struct trace_site none = { .depth = stack };

	if (!collecting->sites[stack]) {
		struct error *error = trace_site_vec_append(&collecting->data->sites, &none);

		if (error)
			return error;
		collecting->sites[stack] = (uint32_t)collecting->data->sites.size;
	}
	*ret = collecting->sites[stack] - 1;
	return NULL;
}

static struct error *add_block(struct collecting *collecting, const struct trace_wanted *wanted,
			       const struct uprobe_block *block, uint64_t now)
{
	struct trace_block found = {
		.address = block->address,
		.size = block->size,
		.number = block->time,
		.age_ms = block->time < now ? (uint32_t)((now - block->time) / 1000000) : 0,
		.weight = uprobe_weight(collecting->engine->rate, block->size),
	};
	struct trace_site *site;
	struct error *error;

	if (found.age_ms < wanted->older_ms)
		return NULL;
	error = site_of(collecting, block->stack, &found.site);
	if (error)
		return error;
	site = &collecting->data->sites.data[found.site];
	site->samples++;
	site->live_count += found.weight;
	site->live_bytes += found.weight * (double)found.size;
	return wanted->blocks ? trace_block_vec_append(&collecting->data->blocks, &found) : NULL;
}

static struct error *add_totals(struct collecting *collecting)
{
	struct error *error = NULL;

	for (uint32_t i = 0; !error && i < collecting->engine->totals.size; i++) {
		const struct uprobe_total *total = &collecting->engine->totals.data[i];
		uint32_t site;

		if (total->count <= 0)
			continue;
		error = site_of(collecting, i, &site);
		if (error)
			return error;
		collecting->data->sites.data[site].all_count = total->count;
		collecting->data->sites.data[site].all_bytes = total->bytes;
	}
	return NULL;
}

/* Until here a site's depth is its stack's number. */
static struct error *add_frames(struct collecting *collecting)
{
	unsigned depth_max = collecting->engine->options->depth_max;
	size_t words = 0, depth;
	uint64_t *to;
	bool cut;

	vec_for_each (site, &collecting->data->sites) {
		stack_set_get(collecting->set, site->depth, &depth, &cut);
		words += min_u64(depth, depth_max);
	}
	to = collecting->data->pcs = malloc(words * sizeof(*to) + sizeof(*to));
	if (!to)
		return &error_no_memory;
	vec_for_each (site, &collecting->data->sites) {
		const uint64_t *pcs = stack_set_get(collecting->set, site->depth, &depth, &cut);

		site->truncated = cut || depth > depth_max;
		site->depth = (uint32_t)min_u64(depth, depth_max);
		site->pcs = to;
		memcpy(to, pcs, site->depth * sizeof(*to));
		/* Where the function returned to: the sample was taken there. */
		if (site->depth)
			to[0] &= ~STACK_PC_EXACT;
		to += site->depth;
	}
	return NULL;
}

struct error *uprobe_collect(struct uprobe_engine *engine, const struct trace_wanted *wanted,
			     struct trace_data *ret)
{
	const struct stack_set *set = sample_stacks_set(engine->stacks);
	cleanup(free) uint32_t *sites = calloc(stack_set_size(set) + 1, sizeof(*sites));
	struct collecting collecting = { engine, set, ret, sites };
	struct error *error = NULL;
	uint64_t now = engine->until ? engine->until : clock_ns();

	if (!sites)
		return &error_no_memory;
	for (size_t i = 0; !error && i < engine->table.capacity; i++)
		if (engine->table.blocks[i].address)
			error = add_block(&collecting, wanted, &engine->table.blocks[i], now);
	if (!error)
		error = add_totals(&collecting);
	if (!error)
		error = add_frames(&collecting);
	if (!error)
		uprobe_counters(engine, &ret->counters);
	return error;
}

/* ---- counters ---- */

/* A realloc whose beginning was lost is a block that was not freed and one that did not come. */
static void take_losses(struct uprobe_engine *engine)
{
	uint64_t lost[PERF_SPECS_MAX];
	struct uprobe_counts *counts = &engine->counts;

	if (!engine->probes)
		return;
	counts->lost_entries = counts->lost_returns = counts->lost_frees = 0;
	bpf_probes_lost(engine->probes, lost);
	for (unsigned i = 0; i < engine->spec_count; i++) {
		const struct uprobe_event *event = &engine->events[i];
		enum agent_kind kind = engine->functions.data[event->function].spec->kind;

		if (event->kind != UPROBE_ENTRY)
			counts->lost_returns += lost[i];
		else if (kind != AGENT_KIND_FREE)
			counts->lost_entries += lost[i];
		if (event->kind == UPROBE_ENTRY &&
		    (kind == AGENT_KIND_FREE || kind == AGENT_KIND_REALLOC))
			counts->lost_frees += lost[i];
	}
}

void uprobe_counters(struct uprobe_engine *engine, struct trace_counters *ret)
{
	const struct uprobe_counts *counts = &engine->counts;
	uint64_t end = engine->end_us ? engine->end_us : clock_us();

	take_losses(engine);
	*ret = (struct trace_counters){
		.calls = counts->calls,
		.recorded = counts->recorded,
		.freed = counts->freed,
		.lost_allocs = counts->lost_entries + counts->unreturned +
			       max_u64(counts->lost_returns, uprobe_calls_abandoned(engine->calls)),
		.lost_frees = max_u64(counts->lost_frees, counts->replaced),
		.filtered = counts->filtered,
		.truncated = sample_stacks_truncated(engine->stacks),
		.threads = uprobe_calls_threads(engine->calls),
		.bytes_per_second = engine->bytes_per_second,
		.table_memory = engine->table.capacity * sizeof(struct uprobe_block),
		.time_us = engine->begin_us ? end - engine->begin_us : 0,
	};
}
