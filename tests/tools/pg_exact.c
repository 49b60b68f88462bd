/*
 * pg_exact.c - an exact recording of a PostgreSQL backend's contexts beside the walk of them.
 *
 *	pg_exact PID POOL-FILE		says `recording`, ends with its input
 *
 * Of each context that was made meanwhile: what is used of it is its header, those of its blocks,
 * and its chunks, each rounded up, with a header (aset.c of PostgreSQL 13 to 15, and from 16 on).
 * Prints how many contexts agree to the byte, and fails if one does not, or if there are blocks of
 * contexts that are gone.
 */
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "memprobe/elf_file.h"
#include "memprobe/map64.h"
#include "memprobe/runtime.h"
#include "memprobe/pool_file.h"
#include "memprobe/trace.h"

#define BLOCK_HEADER 40
#define TRIES	     20

static const struct layout {
	unsigned context_header, chunk_header;
	/* Of allocChunkLimit; a recycled context has that of its former self. */
	unsigned limit_offset;
	uint64_t limit_mask; /* of the word there */
	unsigned limit_shift;
} layout_15 = { 224, 16, 200, UINT64_MAX, 0 }, layout_16 = { 200, 8, 184, UINT32_MAX, 32 };

static void check(struct error *error)
{
	if (!error)
		return;
	fprintf(stderr, "%s\n", error->message);
	exit(1);
}

/* Those above the limit have a block of their own. */
static uint64_t rounded(uint64_t size, uint64_t limit)
{
	uint64_t class = 8;

	if (size > limit)
		return (size + 7) & ~UINT64_C(7);
	while (class < size)
		class *= 2;
	return class;
}

static void read_contexts(struct target *target, struct runtime_objects *ret)
{
	struct runtime runtime;

	check(runtime_detect(target, runtime_has_owners, &runtime));
	check(runtime_read(&runtime, target, TRIES, ret));
	if (ret->state.is_inconsistent) {
		fprintf(stderr, "%s\n", ret->state.issue);
		exit(1);
	}
}

/* Since 16 contexts are asked for by a function. */
static const struct layout *layout_of(struct target *target)
{
	struct elf_symbol symbol;
	struct module *module;

	return target_symbol(target, "GetMemoryChunkContext", &symbol, &module) ? &layout_16
										: &layout_15;
}

/* Of a context that may be gone by now: then it is compared with nothing. */
static uint64_t limit_of(struct target *target, const struct layout *layout, uint64_t context)
{
	uint64_t limit = 0;

	error_destroy(target_read_word(target, context + layout->limit_offset, &limit));
	return limit >> layout->limit_shift & layout->limit_mask;
}

static unsigned compare(struct target *target, const struct trace_data *data,
			const struct runtime_objects *before, const struct runtime_objects *after)
{
	const struct layout *layout = layout_of(target);
	struct map64 used = { 0 }, old = { 0 }, there = { 0 };
	unsigned exact = 0, wrong = 0;

	vec_for_each (context, &before->objects)
		check(map64_put(&old, context->address, 1));
	vec_for_each (block, &data->blocks) {
		uint64_t sum = map64_get(&used, block->context);

		sum = sum == MAP64_NONE ? 0 : sum;
		sum += layout->chunk_header +
		       rounded(block->size, limit_of(target, layout, block->context));
		check(map64_put(&used, block->context, sum));
	}
	vec_for_each (context, &after->objects) {
		uint64_t sum = map64_get(&used, context->address);

		check(map64_put(&there, context->address, 1));
		if (!context->kind || strcmp(context->kind, "AllocSet") ||
		    map64_get(&old, context->address) != MAP64_NONE)
			continue;
		sum = (sum == MAP64_NONE ? 0 : sum) + layout->context_header +
		      BLOCK_HEADER * context->blocks;
		if (sum == context->size - context->free) {
			exact++;
			continue;
		}
		wrong++;
		printf("%s: %" PRIu64 " recorded, %" PRIu64 " used\n", context->type, sum,
		       context->size - context->free);
	}
	vec_for_each (context, &data->contexts) {
		if (map64_get(&there, context->address) != MAP64_NONE)
			continue;
		wrong++;
		printf("0x%" PRIx64 " is gone, but has blocks\n", context->address);
	}
	printf("exact %u\n", exact);
	map64_deinit(&used);
	map64_deinit(&old);
	map64_deinit(&there);
	return wrong;
}

int main(int argc, char **argv)
{
	struct trace_options options = { .rate = 1 };
	const struct trace_wanted wanted = { .blocks = true };
	struct runtime_objects before = { 0 }, after = { 0 };
	struct pollfd input = { STDIN_FILENO, POLLIN, 0 };
	cleanup(pool_file) struct pool_file *file = NULL;
	cleanup(target) struct target *target = NULL;
	cleanup(trace) struct trace_session *session = NULL;
	cleanup(trace_data) struct trace_data *data = NULL;
	bool alive = true;
	unsigned wrong;

	if (argc != 3)
		return 2;
	check(target_open_live((pid_t)strtol(argv[1], NULL, 10), &target));
	check(pool_file_open(argv[2], "", &file));
	options.pool = file;
	read_contexts(target, &before);
	check(trace_attach(target, &options, &session));
	puts("recording");
	fflush(stdout);
	while (alive && !poll(&input, 1, TRACE_TICK_US / 1000))
		check(trace_tick(session, &alive));
	read_contexts(target, &after);
	trace_pause(session);
	check(trace_detach(session));
	check(trace_read(session, &wanted, &data));
	wrong = compare(target, data, &before, &after);
	printf("lost %" PRIu64 "\n", data->counters.lost_allocs + data->counters.lost_frees);
	runtime_objects_deinit(&before);
	runtime_objects_deinit(&after);
	return wrong || data->counters.lost_allocs || data->counters.lost_frees;
}
