#include "memprobe/trim_forecast.h"

#include <string.h>

#include "memprobe/num.h"

/* Free chunks that consolidation makes one; empty: start == end. */
struct run {
	uint64_t start, end; /* from header to header */
	bool has_top;
};

/* Whole pages. */
struct pages {
	uint64_t start, end;
};

struct forecaster {
	const struct heap *heap;
	uint64_t pad;
	struct trim_forecast *ret;
	const struct heap_region *region;
	struct run before,
		run;	     /* around the block at hand: the run in front of it, the one behind */
	struct trim_pin pin; /* the block at hand */
	bool has_pin;
	struct error *error;
};

/* ---- the sums of mtrim() and systrim() ---- */

static struct pages inner_pages(const struct heap *heap, uint64_t start, uint64_t end)
{
	/* Behind struct malloc_chunk. */
	uint64_t first = round_up(start + 6 * heap->target->arch->word_size, PAGE_SIZE);
	uint64_t last = first + (end > first ? round_down(end - first, PAGE_SIZE) : 0);

	return (struct pages){ first, last };
}

static bool is_main(const struct forecaster *forecaster)
{
	return forecaster->heap->arenas.data[forecaster->region->arena].is_main;
}

/* The end of the top chunk, if the break is where it ends: else it stays. */
static struct pages top_pages(const struct forecaster *forecaster, const struct run *run)
{
	const struct heap *heap = forecaster->heap;
	const struct mapping *mapping = mappings_find(heap->maps, run->end - 1);
	uint64_t spare = 4 * heap->target->arch->word_size + 1, size = run->end - run->start;

	if (!is_main(forecaster) || !mapping || strcmp(mapping->path, "[heap]") ||
	    mapping->end != round_up(run->end, PAGE_SIZE) || size <= spare ||
	    size - spare <= forecaster->pad)
		return (struct pages){ run->end, run->end };
	return (struct pages){ run->end - round_down(size - spare - forecaster->pad, PAGE_SIZE),
			       run->end };
}

static struct pages pages_of(const struct forecaster *forecaster, const struct run *run)
{
	return run->has_top ? top_pages(forecaster, run)
			    : inner_pages(forecaster->heap, run->start, run->end);
}

/* How much of it is there, bytes. */
static uint64_t present_bytes(struct forecaster *forecaster, struct pages pages)
{
	enum { PART = 4096 };
	uint64_t at = round_up(pages.start, PAGE_SIZE), sum = 0;
	bool present[PART];

	while (at < pages.end && !forecaster->error) {
		size_t count = min_u64((pages.end - at + PAGE_SIZE - 1) / PAGE_SIZE, PART);
		struct error *error =
			target_page_present(forecaster->heap->target, at, count, present);

		if (error_is(error, ERROR_UNSUPPORTED)) {
			error_destroy(error);
			memset(present, true, count);
		} else {
			forecaster->error = error;
		}
		for (size_t i = 0; i < count && !forecaster->error; i++)
			sum += present[i] ? PAGE_SIZE : 0;
		at += count * PAGE_SIZE;
	}
	return sum;
}

/* ---- runs and the blocks between them ---- */

static struct trim_arena *arena_of(struct forecaster *forecaster)
{
	return &forecaster->ret->arenas.data[forecaster->region->arena];
}

static void count_run(struct forecaster *forecaster, const struct run *run)
{
	struct trim_arena *arena = arena_of(forecaster);
	struct pages pages = pages_of(forecaster, run);
	uint64_t bytes = present_bytes(forecaster, pages);

	if (run->has_top) {
		arena->top += bytes;
		arena->top_kept +=
			present_bytes(forecaster, (struct pages){ run->start, pages.start });
		return;
	}
	arena->inner += bytes;
	arena->free += run->end - run->start;
	arena->pinned += (run->end - run->start) - (pages.end - pages.start);
}

/* Keeps the largest, most first. */
static void note_pin(struct forecaster *forecaster, const struct trim_pin *pin)
{
	struct trim_pin_vec *pins = &forecaster->ret->pins;
	size_t at = pins->size;

	if (pins->size == TRIM_PINS_MAX) {
		if (pins->data[at - 1].pins >= pin->pins)
			return;
		at--;
	} else {
		struct error *error = trim_pin_vec_append(pins, pin);

		if (error) {
			forecaster->error = error;
			return;
		}
	}
	for (; at > 0 && pins->data[at - 1].pins < pin->pins; at--)
		pins->data[at] = pins->data[at - 1];
	pins->data[at] = *pin;
}

/* The block between two runs, both of which are known now. */
static void settle_pin(struct forecaster *forecaster)
{
	const struct run *before = &forecaster->before, *behind = &forecaster->run;
	struct trim_arena *arena = arena_of(forecaster);
	struct trim_pin pin = forecaster->pin;
	unsigned word = forecaster->heap->target->arch->word_size;
	struct pages with, own;
	struct run merged;
	uint64_t released, now;

	if (!forecaster->has_pin || (before->start == before->end && behind->start == behind->end))
		return;
	arena->pinning_blocks++;
	arena->pinning_bytes += pin.size;
	merged = (struct run){ .start = before->start == before->end ? pin.address - 2 * word
								     : before->start,
			       .end = behind->end,
			       .has_top = behind->has_top };
	with = pages_of(forecaster, &merged);
	now = before->start == before->end
		      ? 0
		      : pages_of(forecaster, before).end - pages_of(forecaster, before).start;
	now += behind->start == behind->end
		       ? 0
		       : pages_of(forecaster, behind).end - pages_of(forecaster, behind).start;
	own = (struct pages){ round_up(pin.address - 2 * word, PAGE_SIZE),
			      round_down(pin.address + pin.size, PAGE_SIZE) };
	released = now + (own.end > own.start ? own.end - own.start : 0);
	if (with.end - with.start <= released)
		return;
	pin.pins = with.end - with.start - released;
	note_pin(forecaster, &pin);
}

static bool visit(void *data, const struct heap_chunk *chunk)
{
	struct forecaster *forecaster = data;
	const struct heap *heap = forecaster->heap;
	unsigned word = heap->target->arch->word_size;
	const struct heap_region *region = &heap->regions.data[chunk->region];
	uint64_t start = chunk->address - 2 * word, end = chunk->address + chunk->size - word;
	struct run *run = &forecaster->run;

	if (region != forecaster->region) {
		if (forecaster->region) {
			if (run->start != run->end)
				count_run(forecaster, run);
			settle_pin(forecaster);
		}
		forecaster->region = region;
		forecaster->has_pin = false;
		forecaster->before = *run = (struct run){ 0 };
	}
	if (region->mmapped)
		return true;
	if (chunk->state == HEAP_FREE || chunk->state == HEAP_FAST || chunk->state == HEAP_TOP) {
		if (run->start == run->end)
			run->start = start;
		run->end = chunk->state == HEAP_TOP ? region->end : end;
		run->has_top = chunk->state == HEAP_TOP;
		return !forecaster->error;
	}
	/* The end of a run: it is known in whole now. */
	if (run->start != run->end)
		count_run(forecaster, run);
	settle_pin(forecaster);
	forecaster->before = *run;
	*run = (struct run){ end, end, false };
	forecaster->pin = (struct trim_pin){
		.address = chunk->address,
		.size = chunk->size,
		.state = chunk->state,
		.arena = chunk->arena,
	};
	forecaster->has_pin = chunk->state == HEAP_IN_USE || chunk->state == HEAP_TCACHE;
	return !forecaster->error;
}

struct error *trim_forecast(const struct heap *heap, uint64_t pad, struct trim_forecast *ret)
{
	struct forecaster forecaster = { .heap = heap, .pad = pad, .ret = ret };
	struct error *error = NULL;

	for (size_t i = 0; !error && i < heap->arenas.size; i++) {
		struct trim_arena arena = { 0 };

		error = trim_arena_vec_append(&ret->arenas, &arena);
	}
	if (error)
		return error;
	heap_walk(heap, visit, &forecaster);
	if (forecaster.region && !forecaster.region->mmapped) {
		if (forecaster.run.start != forecaster.run.end)
			count_run(&forecaster, &forecaster.run);
		settle_pin(&forecaster);
	}
	vec_for_each (arena, &ret->arenas)
		ret->released += arena->inner + arena->top;
	return forecaster.error;
}

void trim_forecast_deinit(struct trim_forecast *forecast)
{
	trim_arena_vec_deinit(&forecast->arenas);
	trim_pin_vec_deinit(&forecast->pins);
}
