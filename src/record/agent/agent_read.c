/* The tables as plain data. All of it is foreign: the target can write there what it likes. */
#include "agent_recorder.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "memprobe/clock.h"
#include "memprobe/map64.h"
#include "memprobe/num.h"

/* Read of a table at a time. */
#define PART (192u << 10)

/* A stack's entry, as far as it makes sense. */
struct stack_entry {
	uint64_t first; /* word of the frames */
	uint32_t depth; /* 0: there is no such stack */
	bool truncated;
	uint32_t pair_of; /* id of the stack + 1: an entry of a stack and a size; 0: a stack */
	uint16_t rate;	  /* ... and of the rate with this index */
	uint64_t allocs, bytes;
	uint32_t site; /* index + 1; 0: none yet */
};

VEC_DEFINE(stack_entry_vec, struct stack_entry)

struct reading {
	struct agent_recorder *agent;
	struct trace_wanted wanted;
	struct stack_entry_vec stacks; /* by id */
	struct trace_data *data;
	uint64_t *frames; /* all words that are in use */
	uint64_t frame_count;
	uint32_t now;
	uint64_t emptied;      /* blocks that are in the table, but freed with their context */
	struct map64 resets;   /* context: the number of its last emptying */
	struct map64 contexts; /* address: index into data->contexts */
};

static struct error *unreadable(void)
{
	return error_create(ERROR_FAILED, "the recording's tables cannot be read");
}

/* ---- stacks ---- */

static struct stack_entry take_stack(const struct reading *reading, const struct agent_stack *stack)
{
	struct stack_entry entry = { .allocs = stack->allocs, .bytes = stack->bytes };
	uint64_t where = stack->where;

	if (!stack->hash || !where)
		return entry;
	if (where & AGENT_STACK_PAIR) {
		entry.pair_of = (uint32_t)min_u64((uint32_t)where, UINT32_MAX - 1) + 1;
		entry.rate = (uint16_t)(where >> AGENT_STACK_RATE & 0xff);
		return entry;
	}
	entry.first = where >> 16;
	entry.depth = where & AGENT_STACK_COUNT;
	entry.truncated = where & AGENT_STACK_TRUNCATED;
	if (entry.depth > AGENT_FRAMES_MAX || entry.first > reading->frame_count ||
	    entry.depth > reading->frame_count - entry.first)
		entry.depth = 0;
	return entry;
}

static struct error *read_stacks(struct reading *reading)
{
	const struct tables *tables = &reading->agent->tables;
	cleanup(free) struct agent_stack *part = malloc(PART);
	enum { COUNT = PART / sizeof(struct agent_stack) };

	if (!part)
		return &error_no_memory;
	for (unsigned level = 0; level < tables->stack_ready; level++) {
		const struct table_level *stacks = &tables->stacks[level];

		for (uint64_t at = 0; at < stacks->count; at += COUNT) {
			size_t count = min_u64(COUNT, stacks->count - at);

			if (!tables_read(tables, stacks->offset + at * sizeof(*part), part,
					 count * sizeof(*part)))
				return unreadable();
			for (size_t i = 0; i < count; i++) {
				struct stack_entry entry = take_stack(reading, &part[i]);
				struct error *error =
					stack_entry_vec_append(&reading->stacks, &entry);

				if (error)
					return error;
			}
		}
	}
	return NULL;
}

static struct error *read_frames(struct reading *reading)
{
	const struct tables *tables = &reading->agent->tables;

	reading->frame_count = min_u64(tables_shm(tables)->frames_used, tables->frames_ready);
	reading->frames = malloc(reading->frame_count * 8 + 8);
	if (!reading->frames)
		return &error_no_memory;
	if (!tables_read(tables, tables->frames_offset, reading->frames, reading->frame_count * 8))
		return unreadable();
	return NULL;
}

/* The site of a stack, begun if it is not there; *ret its index. False: there is no such stack. */
static bool site_of(struct reading *reading, uint64_t id, uint32_t *ret, struct error **error)
{
	struct stack_entry *stack;
	struct trace_site site;

	if (id < reading->stacks.size && reading->stacks.data[id].pair_of)
		id = reading->stacks.data[id].pair_of - 1;
	if (id >= reading->stacks.size || !reading->stacks.data[id].depth)
		return false;
	stack = &reading->stacks.data[id];
	if (!stack->site) {
		site = (struct trace_site){
			.pcs = reading->frames + stack->first,
			.depth = stack->depth,
			.truncated = stack->truncated,
		};
		*error = trace_site_vec_append(&reading->data->sites, &site);
		if (*error)
			return false;
		stack->site = (uint32_t)reading->data->sites.size;
	}
	*ret = stack->site - 1;
	return true;
}

/* How many blocks of @size one that was sampled stands for; @rate: the index of that time's. */
static double weight_of(const struct reading *reading, double size, unsigned rate)
{
	uint64_t bytes = rate_of(reading->agent, rate);

	return bytes <= 1 ? 1 : -1 / expm1(-fmax(size, 1) / (double)bytes);
}

/* ---- live blocks ---- */

/* Whether the block's context has been emptied since: then it is freed, though its entry stays. */
static bool is_emptied(const struct reading *reading, const struct agent_owner *owner)
{
	uint64_t reset = owner->context ? map64_get(&reading->resets, owner->context) : MAP64_NONE;

	return reset != MAP64_NONE && reset > owner->sequence;
}

static struct error *count_context(struct reading *reading, const struct trace_block *block)
{
	struct trace_context_vec *contexts = &reading->data->contexts;
	uint64_t index = map64_get(&reading->contexts, block->context);
	struct error *error;

	if (index == MAP64_NONE) {
		index = contexts->size;
		error = trace_context_vec_append(
			contexts, &(struct trace_context){ .address = block->context });
		if (!error)
			error = map64_put(&reading->contexts, block->context, index);
		if (error)
			return error;
	}
	contexts->data[index].samples++;
	contexts->data[index].live_count += block->weight;
	contexts->data[index].live_bytes += block->weight * (double)block->size;
	return NULL;
}

/* @owner: NULL without pools. */
static struct error *take_block(struct reading *reading, uint64_t address,
				const struct agent_block *block, const struct agent_owner *owner)
{
	uint32_t age = reading->now - block->time;
	struct error *error = NULL;
	struct trace_site *site;
	struct trace_block taken = {
		.address = address,
		.size = block->size,
		.age_ms = (int32_t)age < 0 ? 0 : age,
		.context = owner ? owner->context : 0,
		.number = owner ? owner->sequence : block->time,
	};

	if (address <= AGENT_KEY_RESERVED)
		return NULL;
	if (owner && is_emptied(reading, owner)) {
		reading->emptied++;
		return NULL;
	}
	if (taken.age_ms < reading->wanted.older_ms)
		return NULL;
	if (!site_of(reading, block->stack, &taken.site, &error))
		return error;
	taken.weight = weight_of(reading, (double)block->size, block->rate);
	site = &reading->data->sites.data[taken.site];
	site->samples++;
	site->live_count += taken.weight;
	site->live_bytes += taken.weight * (double)block->size;
	if (owner && (error = count_context(reading, &taken)))
		return error;
	return reading->wanted.blocks ? trace_block_vec_append(&reading->data->blocks, &taken)
				      : NULL;
}

/* Buckets read at a time, and the owners of their blocks. */
enum { BUCKETS = PART / sizeof(struct agent_bucket) };

struct live_part {
	struct agent_bucket buckets[BUCKETS];
	struct agent_owner owners[BUCKETS][AGENT_BUCKET_BLOCKS];
};

static struct error *read_part(struct reading *reading, const struct table_level *live, uint64_t at,
			       struct live_part *part)
{
	const struct tables *tables = &reading->agent->tables;
	bool pools = tables->contexts_count != 0;
	size_t count = min_u64(BUCKETS, live->count - at);

	if (!tables_read(tables, live->offset + at * sizeof(part->buckets[0]), part->buckets,
			 count * sizeof(part->buckets[0])) ||
	    (pools && !tables_read(tables, live->owners + at * sizeof(part->owners[0]),
				   part->owners, count * sizeof(part->owners[0]))))
		return unreadable();
	for (size_t i = 0; i < count; i++) {
		for (unsigned n = 0; n < AGENT_BUCKET_BLOCKS; n++) {
			struct error *error = take_block(reading, part->buckets[i].keys[n],
							 &part->buckets[i].blocks[n],
							 pools ? &part->owners[i][n] : NULL);

			if (error)
				return error;
		}
	}
	return NULL;
}

static struct error *read_live(struct reading *reading)
{
	const struct tables *tables = &reading->agent->tables;
	cleanup(free) struct live_part *part = malloc(sizeof(*part));
	struct error *error = NULL;

	if (!part)
		return &error_no_memory;
	for (unsigned level = 0; level < tables->live_ready; level++) {
		const struct table_level *live = &tables->live[level];

		for (uint64_t at = 0; !error && at < live->count; at += BUCKETS)
			error = read_part(reading, live, at, part);
	}
	return error;
}

static struct error *read_contexts(struct reading *reading)
{
	const struct tables *tables = &reading->agent->tables;
	cleanup(free) struct agent_context *part = malloc(PART);
	enum { COUNT = PART / sizeof(struct agent_context) };

	if (!part)
		return &error_no_memory;
	for (uint64_t at = 0; at < tables->contexts_count; at += COUNT) {
		size_t count = min_u64(COUNT, tables->contexts_count - at);

		if (!tables_read(tables, tables->contexts_offset + at * sizeof(*part), part,
				 count * sizeof(*part)))
			return unreadable();
		for (size_t i = 0; i < count; i++) {
			struct error *error = NULL;

			if (part[i].key && part[i].reset)
				error = map64_put(&reading->resets, part[i].key, part[i].reset);
			if (error)
				return error;
		}
	}
	return NULL;
}

/* ---- totals ---- */

static struct error *add_totals(struct reading *reading)
{
	struct error *error = NULL;

	if (!reading->agent->options->all)
		return NULL;
	for (size_t id = 0; !error && id < reading->stacks.size; id++) {
		const struct stack_entry *stack = &reading->stacks.data[id];
		double weight = 1;
		uint32_t site;

		if (!stack->allocs || !site_of(reading, id, &site, &error))
			continue;
		/* What was counted at the stack itself was so while every block was recorded. */
		if (stack->pair_of)
			weight = weight_of(reading, (double)stack->bytes / (double)stack->allocs,
					   stack->rate);
		reading->data->sites.data[site].all_count += weight * (double)stack->allocs;
		reading->data->sites.data[site].all_bytes += weight * (double)stack->bytes;
	}
	return error;
}

struct error *agent_read(void *recorder, const struct trace_wanted *wanted, struct trace_data *data)
{
	struct reading reading = {
		.agent = recorder,
		.wanted = *wanted,
		.data = data,
		.now = agent_now(recorder),
	};
	struct error *error = read_frames(&reading);

	data->pcs = reading.frames;
	if (!error)
		error = read_stacks(&reading);
	if (!error)
		error = read_contexts(&reading);
	if (!error)
		error = read_live(&reading);
	if (!error)
		error = add_totals(&reading);
	if (!error)
		error = agent_count(recorder, &data->counters);
	data->counters.freed += reading.emptied;
	stack_entry_vec_deinit(&reading.stacks);
	map64_deinit(&reading.resets);
	map64_deinit(&reading.contexts);
	return error;
}

/* ---- counters ---- */

struct error *agent_count(void *recorder, struct trace_counters *ret)
{
	struct agent_recorder *agent = recorder;
	const struct agent_counters *all;
	uint64_t sums[AGENT_COUNTERS] = { 0 };
	struct trace_counters counters = { 0 };

	all = tables_counters(&agent->tables);
	for (unsigned i = 0; i <= AGENT_THREADS; i++) {
		bool used = false;

		for (unsigned n = 0; n < AGENT_COUNTERS; n++) {
			sums[n] += all[i].count[n];
			used |= all[i].count[n] != 0;
		}
		counters.threads += i > 0 && used;
	}
	counters.recorded = sums[AGENT_COUNT_ALLOCS];
	counters.freed = sums[AGENT_COUNT_FREES];
	counters.bytes = rate_estimate(agent, sums[AGENT_COUNT_ALLOCS], sums[AGENT_COUNT_BYTES]);
	agent->recorded_bytes = sums[AGENT_COUNT_BYTES];
	counters.calls = sums[AGENT_COUNT_CALLS];
	counters.lost_allocs = sums[AGENT_COUNT_LOST];
	counters.lost_frees = sums[AGENT_COUNT_REPLACED] + sums[AGENT_COUNT_LOST_RESET];
	counters.lost_threads = sums[AGENT_COUNT_LOST_SLOT];
	counters.truncated = sums[AGENT_COUNT_TRUNCATED];
	counters.filtered = sums[AGENT_COUNT_FILTERED];
	counters.lapses = agent->lapses;
	counters.table_memory = agent->tables.allocated;
	counters.time_us = agent->begin_us
				   ? (agent->end_us ? agent->end_us : clock_us()) - agent->begin_us
				   : 0;
	counters.bytes_per_second = agent->bytes_per_second;
	*ret = counters;
	return NULL;
}
