/*
 * Gathers what may be pointers while the heap is being walked: words that are addresses in some
 * region. Whether they stand in a block in use, and point to one, is seen afterwards.
 */
#include <pthread.h>
#include <string.h>

#include "leak_scan.h"
#include "memprobe/num.h"
#include "memprobe/big_array.h"

#define BUDGET_DIVISOR 20u
#define BUDGET_MIN     (32u << 20)

struct leak_prescan {
	struct heap_observer observer;
	const struct heap *heap; /* that it is of; NULL: of none yet */
	struct heap_ranges ranges;
	pthread_mutex_t lock;
	/* Of each stretch; the lock guards them. */
	struct raw_window **windows;
	bool *incomplete;
	size_t part_count;
	uint64_t stored, budget; /* bytes */
};

uint64_t leak_budget(const struct heap *heap)
{
	uint64_t bytes = 0;

	/* Block numbers are kept in 32 bits. */
	if (heap->bits > UINT32_MAX)
		return 0;
	vec_for_each (region, &heap->regions)
		bytes += region->end - region->start;
	return max_u64(BUDGET_MIN, bytes / BUDGET_DIVISOR);
}

/* The two ranges around the widest gap between regions. */
void heap_ranges_set(const struct heap *heap, struct heap_ranges *ret)
{
	const struct heap_region_vec *regions = &heap->regions;
	uint64_t widest = 0;
	size_t split = regions->size;

	*ret = (struct heap_ranges){ 0 };
	for (size_t i = 1; i < regions->size; i++) {
		uint64_t gap = regions->data[i].start - regions->data[i - 1].end;

		if (gap > widest) {
			widest = gap;
			split = i;
		}
	}
	if (!regions->size)
		return;
	/* With the address right behind the last block of each. */
	ret->low[0] = regions->data[0].start;
	ret->length[0] = regions->data[split - 1].end - ret->low[0] + 1;
	if (split == regions->size)
		return;
	ret->low[1] = regions->data[split].start;
	ret->length[1] = regions->data[regions->size - 1].end - ret->low[1] + 1;
}

void raw_window_destroy(struct raw_window *window)
{
	if (window)
		big_array_destroy(window, window->size);
}

static void forget(struct leak_prescan *prescan)
{
	for (size_t i = 0; prescan->windows && i < prescan->part_count; i++) {
		while (prescan->windows[i]) {
			struct raw_window *window = prescan->windows[i];

			prescan->windows[i] = window->next;
			raw_window_destroy(window);
		}
	}
	free(prescan->windows);
	free(prescan->incomplete);
	prescan->windows = NULL;
	prescan->incomplete = NULL;
	prescan->part_count = 0;
	prescan->stored = 0;
	prescan->heap = NULL;
}

static struct error *begin(void *data, const struct heap *heap)
{
	struct leak_prescan *prescan = data;

	forget(prescan);
	prescan->part_count = (heap->bits >> PART_BITS) + 1;
	prescan->windows = calloc(prescan->part_count, sizeof(*prescan->windows));
	prescan->incomplete = calloc(prescan->part_count, sizeof(*prescan->incomplete));
	if (!prescan->windows || !prescan->incomplete)
		return &error_no_memory;
	prescan->heap = heap;
	prescan->budget = leak_budget(heap);
	heap_ranges_set(heap, &prescan->ranges);
	return NULL;
}

/* What is gathered of a window before its size is known. */
struct gathered {
	const struct heap *heap;
	const struct heap_region *region; /* the last that was hit */
	struct raw *raws;
	size_t count, capacity;
};

/* False: out of memory. */
static bool add_raw(struct gathered *gathered, uint64_t value, uint32_t word)
{
	uint64_t guess;

	if (!leak_guess(gathered->heap, &gathered->region, value, &guess))
		return true;
	if (guess & GUESS_BEHIND)
		word |= RAW_BEHIND;
	if (gathered->count == gathered->capacity) {
		size_t capacity = gathered->capacity ? gathered->capacity * 2 : 8192;
		struct raw *raws = reallocarray(gathered->raws, capacity, sizeof(*gathered->raws));

		if (!raws)
			return false;
		gathered->raws = raws;
		gathered->capacity = capacity;
	}
	gathered->raws[gathered->count++] = (struct raw){ word, guess };
	return true;
}

static bool gather(const struct leak_prescan *prescan, struct gathered *gathered,
		   const uint8_t *bytes, size_t size)
{
	const unsigned word = gathered->heap->target->arch->word_size;
	const uint64_t low0 = prescan->ranges.low[0], length0 = prescan->ranges.length[0];
	const uint64_t low1 = prescan->ranges.low[1], length1 = prescan->ranges.length[1];

	for (size_t i = 0; i < size / word; i++) {
		uint64_t value =
			word == 8 ? load_word(bytes + 8 * i, 8) : load_word(bytes + 4 * i, 4);

		if ((value - low0 < length0 || value - low1 < length1) &&
		    !add_raw(gathered, value, i))
			return false;
	}
	return true;
}

static struct error *see_window(void *data, const struct heap *heap, heap_index first,
				const uint8_t *bytes, size_t size)
{
	struct leak_prescan *prescan = data;
	struct gathered gathered = { .heap = heap };
	struct raw_window *window = NULL;
	size_t part = first >> PART_BITS, raw_bytes;
	bool whole = prescan->budget && gather(prescan, &gathered, bytes, size);

	raw_bytes = sizeof(*window) + gathered.count * sizeof(*gathered.raws);
	/* Not malloc's: what is given back is to be had for the pointers that are kept. */
	if (whole && gathered.count)
		window = big_array_create(raw_bytes);
	if (window)
		window->size = raw_bytes;
	pthread_mutex_lock(&prescan->lock);
	/* Without memory, or beyond what is allowed, that stretch is read again. */
	if (!whole ||
	    (gathered.count && (!window || prescan->stored + raw_bytes > prescan->budget))) {
		prescan->incomplete[part] = true;
		raw_window_destroy(window);
	} else if (window) {
		window->first = first;
		window->count = gathered.count;
		memcpy(window->raws, gathered.raws, gathered.count * sizeof(*gathered.raws));
		window->next = prescan->windows[part];
		prescan->windows[part] = window;
		prescan->stored += raw_bytes;
	}
	pthread_mutex_unlock(&prescan->lock);
	free(gathered.raws);
	return NULL;
}

struct raw_window *leak_prescan_take(struct leak_prescan *prescan, const struct heap *heap,
				     size_t part, bool *whole_ret)
{
	struct raw_window *windows;

	*whole_ret = false;
	if (!prescan || prescan->heap != heap || part >= prescan->part_count)
		return NULL;
	windows = prescan->windows[part];
	prescan->windows[part] = NULL;
	*whole_ret = !prescan->incomplete[part];
	prescan->incomplete[part] = true;
	return windows;
}

struct error *leak_prescan_create(struct leak_prescan **ret)
{
	struct leak_prescan *prescan = calloc(1, sizeof(*prescan));

	if (!prescan)
		return &error_no_memory;
	prescan->observer = (struct heap_observer){ begin, see_window, prescan };
	pthread_mutex_init(&prescan->lock, NULL);
	*ret = prescan;
	return NULL;
}

void leak_prescan_destroy(struct leak_prescan *prescan)
{
	if (!prescan)
		return;
	forget(prescan);
	pthread_mutex_destroy(&prescan->lock);
	free(prescan);
}

const struct heap_observer *leak_prescan_observer(struct leak_prescan *prescan)
{
	return &prescan->observer;
}
