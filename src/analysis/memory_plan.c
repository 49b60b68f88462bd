#include "memory_plan.h"

#include "memprobe/core.h"
#include "memprobe/memory_walk.h"
#include "memprobe/num.h"

/* So many stretches are passed over before the caller may look for a signal. */
#define BUDGET 4096u

void plan_init(struct plan *plan, struct target *target, const struct mapping_vec *maps,
	       const struct range_vec *ranges)
{
	plan->target = target;
	plan->maps = maps;
	plan->ranges = ranges;
	plan->range = 0;
	plan->at = ranges->size ? ranges->data[0].start : 0;
	plan->mapping = memory_first_behind(maps, plan->at);
	plan->window_start = plan->window_end = 0;
	plan->current = plan->next = plan->last = (struct plan_extent){ 0 };
	plan->primed = false;
	plan->left_out = 0;
	plan->asked = NULL;
}

/* ---- stretches ---- */

/* False: there are no more ranges. Otherwise plan->mapping has plan->at in it. */
static struct error *find_mapped(struct plan *plan, bool *found_ret)
{
	const struct mapping *behind = plan->maps->data + plan->maps->size;

	*found_ret = false;
	for (; plan->range < plan->ranges->size; plan->range++) {
		const struct range *range = &plan->ranges->data[plan->range];
		uint64_t to;
		struct error *error;

		plan->at = max_u64(plan->at, range->start);
		if (plan->at >= range->end)
			continue;
		while (plan->mapping < behind && plan->mapping->end <= plan->at)
			plan->mapping++;
		*found_ret = plan->mapping < behind && plan->mapping->start < range->end;
		to = *found_ret ? plan->mapping->start : range->end;
		if (to > plan->at) {
			error = plan->missing(plan->data, plan->at, to);
			if (error)
				return error;
			plan->at = to;
		}
		if (*found_ret)
			return NULL;
	}
	return NULL;
}

static bool is_in_window(const struct plan *plan)
{
	return plan->at >= plan->window_start && plan->at < plan->window_end;
}

/* False: the target cannot tell. */
static struct error *load_window(struct plan *plan, uint64_t to, bool *known_ret)
{
	uint64_t first = round_down(plan->at, PAGE_SIZE);
	uint64_t pages = min_u64((round_up(to, PAGE_SIZE) - first) / PAGE_SIZE, PLAN_WINDOW_PAGES);
	struct error *error;

	*known_ret = true;
	if (is_in_window(plan))
		return NULL;
	error = target_page_present(plan->target, first, pages, plan->present);
	if (error_is(error, ERROR_UNSUPPORTED) || error_is(error, ERROR_PERMISSION)) {
		error_destroy(error);
		*known_ret = false;
		return NULL;
	}
	plan->window_start = first;
	plan->window_end = error ? first : first + pages * PAGE_SIZE;
	return error;
}

/*
 * Reading a page of shared memory that is not there makes one, and takes memory from the target; of
 * a file, it reads the file. So only what the process has touched is read.
 */
static bool may_have_holes(struct plan *plan, const struct mapping *mapping)
{
	if (plan->asked != mapping) {
		plan->asked = mapping;
		plan->backing = target_backing(plan->target, mapping, NULL);
	}
	return memory_is_private(mapping) || plan->backing != BACKING_ANY ||
	       (mapping->perms & PERM_SHARED) || target_is_core(plan->target);
}

static void set_untouched(struct plan *plan, struct plan_extent *extent)
{
	extent->is_untouched = true;
	/* A hole of a core stands for zeros. */
	extent->is_zeros = memory_is_private(plan->mapping) || target_is_core(plan->target);
	if (!extent->is_zeros)
		plan->left_out += extent->end - extent->start;
}

/* An empty one: that was all. */
static struct error *next_extent(struct plan *plan, struct plan_extent *ret)
{
	uint64_t to, next = 0;
	bool found, known = false;
	struct error *error = find_mapped(plan, &found);

	*ret = (struct plan_extent){ 0 };
	if (error || !found)
		return error;
	to = min_u64(plan->mapping->end, plan->ranges->data[plan->range].end);
	if (may_have_holes(plan, plan->mapping)) {
		if (!is_in_window(plan))
			next = target_next_present(plan->target, plan->at, to);
		if (next <= plan->at)
			error = load_window(plan, to, &known);
	}
	if (error)
		return error;
	*ret = (struct plan_extent){ .start = plan->at, .end = to };
	if (next > plan->at && plan->backing != BACKING_DEVICE) {
		ret->end = next;
		set_untouched(plan, ret);
	} else if (plan->backing == BACKING_DEVICE) {
		ret->is_untouched = true;
		plan->left_out += ret->end - ret->start;
	} else if (known) {
		size_t page = (plan->at - plan->window_start) / PAGE_SIZE;
		size_t pages = (plan->window_end - plan->window_start) / PAGE_SIZE;
		bool present = plan->present[page];

		while (page < pages && plan->present[page] == present)
			page++;
		ret->end = min_u64(to, plan->window_start + page * PAGE_SIZE);
		if (!present)
			set_untouched(plan, ret);
	}
	plan->at = ret->end;
	return NULL;
}

/* ---- pieces ---- */

static bool is_empty(const struct plan_extent *extent)
{
	return extent->start == extent->end;
}

static struct error *advance(struct plan *plan)
{
	const struct plan_extent *last = &plan->last, *current = &plan->current;

	plan->last = plan->current;
	plan->current = plan->next;
	plan->taken = current->start;
	if (is_empty(last) || last->is_untouched || last->end != current->start)
		plan->data_start = current->start;
	return next_extent(plan, &plan->next);
}

static void set_before(const struct plan *plan, struct plan_piece *piece)
{
	const struct plan_extent *last = &plan->last;

	piece->before = min_u64(plan->before, piece->start - plan->data_start);
	piece->untouched = 0;
	if (piece->start == plan->current.start && last->is_zeros && last->end == piece->start) {
		piece->untouched = min_u64(plan->before, last->end - last->start);
		piece->before = piece->untouched;
	}
}

static void set_after(const struct plan *plan, struct plan_piece *piece)
{
	const struct plan_extent *next = &plan->next;
	uint64_t left;

	piece->after = min_u64(plan->after, plan->current.end - piece->end);
	piece->zeros = 0;
	left = plan->after - piece->after;
	if (is_empty(next) || next->start != plan->current.end)
		return;
	if (next->is_zeros)
		piece->zeros = min_u64(left, next->end - next->start);
	else if (!next->is_untouched)
		piece->after += min_u64(left, next->end - next->start);
}

/* Takes what it can of the current extent, which holds something. */
static void take(struct plan *plan, struct plan_piece *pieces, size_t *count)
{
	uint64_t start = *count ? pieces[0].start : plan->taken;
	struct plan_piece *piece = *count ? &pieces[*count - 1] : NULL;

	if (!piece || piece->end != plan->taken) {
		piece = &pieces[(*count)++];
		piece->start = plan->taken;
		set_before(plan, piece);
	}
	piece->end = min_u64(plan->current.end, start + PLAN_SPAN);
	set_after(plan, piece);
	plan->taken = piece->end;
}

struct error *plan_block(struct plan *plan, struct plan_piece pieces[PLAN_PIECES],
			 size_t *count_ret, bool *end_ret)
{
	struct error *error = NULL;

	*count_ret = 0;
	if (!plan->primed) {
		plan->primed = true;
		error = advance(plan);
		if (!error)
			error = advance(plan);
	}
	for (size_t i = 0; !error && i < BUDGET; i++) {
		const struct plan_extent *current = &plan->current;

		if (is_empty(current)) {
			*end_ret = true;
			break;
		}
		if (current->is_untouched || plan->taken == current->end) {
			error = advance(plan);
			continue;
		}
		if (*count_ret &&
		    (*count_ret == PLAN_PIECES || plan->taken - pieces[0].start >= PLAN_SPAN))
			break;
		take(plan, pieces, count_ret);
	}
	return error;
}
